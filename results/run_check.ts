// Is this JSON a run report? Checked field by field before anything computes with it: a report from
// another version or a truncated file must fail here, with the place, not as a NaN in a table.

import {type Distance, type LatencyNs, RUN_SCHEMA, type RunReport} from './run.ts';
import {Place} from './shape.ts';

const DISTANCES: readonly Distance[] = ['self', 'smt', 'l3', 'socket', 'cross', 'two_hop'];
const LATENCY_FIELDS: readonly (keyof LatencyNs)[] = ['mean', 'p50', 'p90', 'p99', 'p999', 'max'];
const TOP_FIELDS: readonly (keyof RunReport)[] = [
  'schema',
  'trace',
  'machine',
  'kernel',
  'design',
  'seed',
  'digest',
  'simulated_ns',
  'host',
  'replay',
  'ops',
  'throughput_ops_s',
  'cpu',
  'locks',
  'notifier',
  'tlb',
  'faults',
  'counters',
  'checks',
];

/**
 * The value as a run report; UserError naming the first field that is not as `run.ts` says.
 * Fields that a later version adds are accepted; missing or mistyped ones are not.
 */
export function checkRunReport(value: unknown, file: string, path = '$'): RunReport {
  const run = new Place(value, file, path);
  if (run.at('schema').value !== RUN_SCHEMA) {
    run
      .at('schema')
      .fail(
        `"${RUN_SCHEMA}"`,
        'give what replay --json or compare --save wrote with this version of mmreplay',
      );
  }
  for (const name of TOP_FIELDS) if (!run.has(name)) run.at(name).fail(`a field "${name}"`);
  checkIdentity(run);
  checkHost(run.at('host'));
  checkReplay(run.at('replay'));
  for (const [, op] of run.at('ops').entries()) {
    op.at('count').integer();
    checkLatency(op.at('ns'));
  }
  run.at('throughput_ops_s').number();
  run.at('cpu').at('idle').number();
  run.at('cpu').at('user').number();
  run.at('cpu').at('functions').numbers();
  for (const [, lock] of run.at('locks').entries()) checkLock(lock);
  checkNotifier(run.at('notifier'));
  for (const name of ['tlb', 'faults', 'counters']) run.at(name).numbers();
  checkChecks(run.at('checks'));
  return value as RunReport;
}

function checkIdentity(run: Place): void {
  const trace = run.at('trace');
  trace.at('path').string();
  trace.at('hash').text();
  trace.at('events').integer();
  const machine = run.at('machine');
  machine.at('name').text();
  machine.at('cpus').integer();
  machine.at('hash').text();
  run.at('kernel').string();
  run.at('design').strings();
  run.at('seed').integer();
  run.at('digest').text();
  if (run.at('simulated_ns').number() < 0) run.at('simulated_ns').fail('a time of 0 or more');
}

function checkHost(host: Place): void {
  const names = ['wall_s', 'events', 'ops', 'events_per_s', 'ops_per_s', 'peak_rss_mb'];
  for (const name of names) host.at(name).number();
}

function checkReplay(replay: Place): void {
  for (const name of ['order', 'time', 'placement']) replay.at(name).string();
  for (const name of ['copies', 'lost_events']) replay.at(name).number();
  const operations = replay.at('operations');
  for (const name of ['done', 'skipped', 'failed', 'differed']) operations.at(name).integer();
  replay.at('edges').numbers();
  checkLatency(replay.at('lateness_ns'));
}

function checkLatency(latency: Place): void {
  for (const name of LATENCY_FIELDS) latency.at(name).number();
}

function checkLock(lock: Place): void {
  for (const name of ['acquired', 'contended', 'wait_ns', 'hold_ns', 'cpu_share']) {
    lock.at(name).number();
  }
  for (const [distance, count] of lock.at('handoff').entries()) {
    if (!DISTANCES.some((known) => known === distance))
      count.fail(`one of ${DISTANCES.join(', ')}`);
    count.number();
  }
  lock.at('wait_ns_by_caller').numbers();
}

function checkNotifier(notifier: Place): void {
  notifier.at('calls').numbers();
  checkLatency(notifier.at('latency_ns'));
  notifier.at('retries').number();
  notifier.at('eagain').number();
}

function checkChecks(checks: Place): void {
  const counts = [
    'missed_pgd_entries',
    'stale_mappings',
    'soft_lockups',
    'lockdep',
    'sleep_in_atomic',
  ];
  for (const name of counts) checks.at(name).integer();
  checks.at('warnings').numbers();
  if (checks.has('notes')) checks.at('notes').numbers();
  for (const finding of checks.at('findings').items()) finding.string();
}
