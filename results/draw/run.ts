// One run for people: what was run, how much of the trace took part, operations, locks, shootdowns,
// notifier, checks. Failures and warnings come first and in colour: whoever reads only the top must
// not miss them.

import pc from 'picocolors';
import {designText} from '../compare_columns.ts';
import {checkCounts} from '../metrics.ts';
import type {LatencyNs, LockReport, RunReport} from '../run.ts';
import {align} from './columns.ts';
import {formatCount, formatNs, formatRate, formatShare} from './number.ts';
import type {DrawOptions} from './options.ts';

type Colors = ReturnType<typeof pc.createColors>;

export function drawRun(run: RunReport, options: DrawOptions = {}): string {
  const colors = pc.createColors(options.color ?? false);
  const blocks = [
    header(run),
    alarmLines(run).map(colors.red).join('\n'),
    replayLines(run).join('\n'),
    opsTable(run),
    ...locksTables(run),
    cpuTable(run),
    countsTable('tlb', run.tlb),
    notifierTable(run),
    countsTable('faults', run.faults),
    countsTable('counters', run.counters),
    [checksLine(run, colors), ...noteLines(run)].join('\n'),
  ];
  return `${blocks.filter((block) => block !== '').join('\n\n')}\n`;
}

function header(run: RunReport): string {
  const {trace, machine, host} = run;
  return [
    `trace      ${trace.path}, ${formatCount(trace.events)} events (${trace.hash})`,
    `machine    ${machine.name}, ${machine.cpus} CPUs (${machine.hash})`,
    `design     ${designText(run)}`,
    `seed       ${run.seed}`,
    `digest     ${run.digest}`,
    `simulated  ${formatNs(run.simulated_ns)}, ${formatRate(run.throughput_ops_s)} operations`,
    `host       ${host.wall_s.toFixed(2)} s, ${formatRate(host.events_per_s)} events, ` +
      `${formatRate(host.ops_per_s)} operations, ${host.peak_rss_mb.toFixed(0)} MB`,
  ].join('\n');
}

function alarmLines(run: RunReport): string[] {
  const failed = Object.entries(checkCounts(run)).filter(([, count]) => count > 0);
  const lines = failed.map(([name, count]) => `FAILED ${name}: ${formatCount(count)}`);
  lines.push(...run.checks.findings.map((finding) => `FOUND ${finding}`));
  for (const [text, count] of Object.entries(run.checks.warnings)) {
    lines.push(`WARNING ${text} (${formatCount(count)} times); check before trusting this`);
  }
  if (run.replay.lost_events > 0) {
    lines.push(`WARNING the recording lost ${formatCount(run.replay.lost_events)} events`);
  }
  return lines;
}

function replayLines(run: RunReport): string[] {
  const {order, time, copies, placement, operations, edges, lateness_ns: late} = run.replay;
  const kinds = Object.keys(edges).sort();
  const edgeText = kinds.map((kind) => `${kind} ${formatCount(edges[kind])}`).join(', ');
  const {done, skipped, failed, differed} = operations;
  const [doneText, skippedText, failedText, differedText] = [done, skipped, failed, differed].map(
    formatCount,
  );
  const copiesText = `${copies} ${copies === 1 ? 'copy' : 'copies'}`;
  return [
    `replay     order ${order}, time ${time}, ${copiesText}, placement ${placement}`,
    `           ${doneText} done, ${skippedText} skipped, ${failedText} failed, ` +
      `${differedText} with another result than recorded`,
    `           edges: ${edgeText || 'none'}`,
    `           lateness ${latencyText(late)}`,
  ];
}

function latencyText({p50, p99, max}: LatencyNs): string {
  return `p50 ${formatNs(p50)}, p99 ${formatNs(p99)}, max ${formatNs(max)}`;
}

const LATENCY_HEAD = ['mean', 'p50', 'p90', 'p99', 'p99.9', 'max'];

function latencyFields(ns: LatencyNs): string[] {
  return [ns.mean, ns.p50, ns.p90, ns.p99, ns.p999, ns.max].map(formatNs);
}

function opsTable(run: RunReport): string {
  const rows = Object.keys(run.ops)
    .sort()
    .map((name) => [name, formatCount(run.ops[name].count), ...latencyFields(run.ops[name].ns)]);
  return rows.length === 0 ? '' : align([['operation', 'count', ...LATENCY_HEAD], ...rows]);
}

/** Locks by waiting time, then what each hand-off crossed, then who waited. */
function locksTables(run: RunReport): string[] {
  const names = Object.keys(run.locks).sort(
    (a, b) => run.locks[b].wait_ns - run.locks[a].wait_ns || (a < b ? -1 : 1),
  );
  if (names.length === 0) return [];
  const head = ['lock', 'acquired', 'contended', 'wait', 'hold', 'hold/acq', 'CPU share'];
  const rows = names.map((name) => lockFields(name, run.locks[name]));
  return [align([head, ...rows]), handoffTable(run, names), callerTable(run, names)];
}

function lockFields(name: string, lock: LockReport): string[] {
  return [
    name,
    formatCount(lock.acquired),
    formatCount(lock.contended),
    formatNs(lock.wait_ns),
    formatNs(lock.hold_ns),
    lock.acquired === 0 ? '-' : formatNs(lock.hold_ns / lock.acquired),
    formatShare(lock.cpu_share),
  ];
}

function handoffTable(run: RunReport, names: readonly string[]): string {
  const distances = ['self', 'smt', 'l3', 'socket', 'cross', 'two_hop'] as const;
  const used = distances.filter((d) => names.some((name) => (run.locks[name].handoff[d] ?? 0) > 0));
  if (used.length === 0) return '';
  const rows = names.map((name) => {
    const {handoff} = run.locks[name];
    const total = distances.reduce((sum, d) => sum + (handoff[d] ?? 0), 0);
    const shares = used.map((d) => (total === 0 ? '-' : formatShare((handoff[d] ?? 0) / total)));
    return [name, formatCount(total), ...shares];
  });
  return align([['hand-offs by distance', 'total', ...used], ...rows]);
}

function callerTable(run: RunReport, names: readonly string[]): string {
  const rows = names.flatMap((name) => {
    const {wait_ns: wait, wait_ns_by_caller: callers} = run.locks[name];
    const order = Object.keys(callers).sort((a, b) => callers[b] - callers[a]);
    return order
      .filter((caller) => callers[caller] > 0)
      .map((caller) => [
        `${name} < ${caller}`,
        formatNs(callers[caller]),
        wait === 0 ? '-' : formatShare(callers[caller] / wait),
      ]);
  });
  return rows.length === 0 ? '' : align([['waiting by caller', 'wait', 'share'], ...rows]);
}

function cpuTable(run: RunReport): string {
  const {idle, user, functions} = run.cpu;
  const names = Object.keys(functions).sort((a, b) => functions[b] - functions[a]);
  const rows = names
    .filter((name) => functions[name] >= 0.0005)
    .slice(0, 15)
    .map((name) => [name, formatShare(functions[name])]);
  return align([
    ['CPU time', 'share'],
    ['idle', formatShare(idle)],
    ['user', formatShare(user)],
    ...rows,
  ]);
}

function countsTable(title: string, counts: Readonly<Record<string, number>>): string {
  const names = Object.keys(counts).sort();
  if (names.length === 0) return '';
  return align([[title, 'count'], ...names.map((name) => [name, formatCount(counts[name])])]);
}

function notifierTable(run: RunReport): string {
  const {calls, latency_ns: ns, retries, eagain} = run.notifier;
  if (Object.keys(calls).length === 0) return '';
  const counts = `${formatCount(retries)} retries, ${formatCount(eagain)} -EAGAIN`;
  return `${countsTable('notifier calls', calls)}\nlatency ${latencyText(ns)}; ${counts}`;
}

function noteLines(run: RunReport): string[] {
  return Object.entries(run.checks.notes ?? {}).map(
    ([text, count]) => `note       ${text} (${formatCount(count)} times)`,
  );
}

function checksLine(run: RunReport, colors: Colors): string {
  const counts = checkCounts(run);
  const bad = Object.values(counts).some((count) => count > 0);
  const text = Object.entries(counts)
    .map(([name, count]) => `${name} ${formatCount(count)}`)
    .join(', ');
  return `checks     ${bad ? colors.red(text) : colors.green(text)}`;
}
