// The numbers of one run that a comparison has rows for, with their unit and which direction is
// good.
//
// Two tables, as mm developers read them: the headline (did it get faster?) and the mechanism
// (why?). A metric that a run does not have (a lock it never took) is absent there, not zero.

import type {LatencyNs, LockReport, RunReport} from './run.ts';

export type Unit = 'ns' | 'ops/s' | 'count' | 'share';
/** Which direction is an improvement; `none` where more is neither good nor bad in itself. */
export type Better = 'higher' | 'lower' | 'none';
export type TableName = 'headline' | 'mechanism';

export interface Metric {
  readonly table: TableName;
  readonly name: string;
  readonly unit: Unit;
  readonly better: Better;
  readonly value: number;
  /** A run that has this other metric, but not this one, has it as zero. */
  readonly zeroWith?: string;
}

/** Every metric of a run, headline first, in a fixed order. */
export function metricsOf(run: RunReport): readonly Metric[] {
  return [...headline(run), ...mechanism(run)];
}

function headline(run: RunReport): Metric[] {
  const metrics: Metric[] = [
    row('headline', 'throughput_ops_s', 'ops/s', 'higher', run.throughput_ops_s),
    row('headline', 'simulated_ns', 'ns', 'lower', run.simulated_ns),
  ];
  for (const name of keys(run.ops)) {
    metrics.push(row('headline', `ops.${name}.p50_ns`, 'ns', 'lower', run.ops[name].ns.p50));
    metrics.push(row('headline', `ops.${name}.p99_ns`, 'ns', 'lower', run.ops[name].ns.p99));
  }
  return metrics;
}

function mechanism(run: RunReport): Metric[] {
  const metrics: Metric[] = [];
  for (const name of keys(run.locks)) metrics.push(...lockMetrics(name, run.locks[name]));
  metrics.push(row('mechanism', 'cpu.idle', 'share', 'none', run.cpu.idle));
  metrics.push(row('mechanism', 'cpu.user', 'share', 'none', run.cpu.user));
  metrics.push(...each('cpu', run.cpu.functions, 'share', 'none', 'cpu.idle'));
  metrics.push(...each('tlb', run.tlb, 'count', 'lower', 'cpu.idle'));
  metrics.push(...each('notifier.calls', run.notifier.calls, 'count', 'lower', 'cpu.idle'));
  metrics.push(...latencyMetrics('notifier.latency', run.notifier.latency_ns));
  metrics.push(row('mechanism', 'notifier.retries', 'count', 'lower', run.notifier.retries));
  metrics.push(row('mechanism', 'notifier.eagain', 'count', 'lower', run.notifier.eagain));
  metrics.push(...each('faults', run.faults, 'count', 'none', 'cpu.idle'));
  metrics.push(...each('counters', run.counters, 'count', 'none', 'cpu.idle'));
  metrics.push(...each('checks', checkCounts(run), 'count', 'lower', 'cpu.idle'));
  return metrics;
}

function lockMetrics(name: string, lock: LockReport): Metric[] {
  const at = `locks.${name}`;
  return [
    row('mechanism', `${at}.acquired`, 'count', 'none', lock.acquired),
    row('mechanism', `${at}.contended`, 'count', 'lower', lock.contended),
    row('mechanism', `${at}.wait_ns`, 'ns', 'lower', lock.wait_ns),
    row('mechanism', `${at}.hold_ns`, 'ns', 'lower', lock.hold_ns),
    row('mechanism', `${at}.cpu_share`, 'share', 'lower', lock.cpu_share),
    ...each(`${at}.handoff`, lock.handoff, 'count', 'none', `${at}.acquired`),
    ...each(`${at}.wait_ns`, lock.wait_ns_by_caller, 'ns', 'lower', `${at}.acquired`),
  ];
}

function latencyMetrics(name: string, latency: LatencyNs): Metric[] {
  return [
    row('mechanism', `${name}.p50_ns`, 'ns', 'lower', latency.p50),
    row('mechanism', `${name}.p99_ns`, 'ns', 'lower', latency.p99),
  ];
}

/** The countable checks of a run, by name: what LKP would call failures. */
export function checkCounts(run: RunReport): Readonly<Record<string, number>> {
  const {missed_pgd_entries, stale_mappings, soft_lockups, lockdep, sleep_in_atomic} = run.checks;
  return {missed_pgd_entries, stale_mappings, soft_lockups, lockdep, sleep_in_atomic};
}

function each(
  prefix: string,
  values: Readonly<Record<string, number | undefined>>,
  unit: Unit,
  better: Better,
  zeroWith: string,
): Metric[] {
  const metrics: Metric[] = [];
  for (const name of keys(values)) {
    const value = values[name];
    if (value !== undefined) {
      metrics.push({...row('mechanism', `${prefix}.${name}`, unit, better, value), zeroWith});
    }
  }
  return metrics;
}

function row(table: TableName, name: string, unit: Unit, better: Better, value: number): Metric {
  return {table, name, unit, better, value};
}

/** Keys in code-unit order: two runs that met things in another order still give the same rows. */
function keys(record: object): string[] {
  return Object.keys(record).sort();
}
