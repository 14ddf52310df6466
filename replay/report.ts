// Turns a finished run into the report that users and tools read. Times leave the simulation here:
// ticks become ns.

import {DISTANCE_NAMES} from '../machine/topology.ts';
import {TICKS_PER_S, ticksToNs} from '../machine/time.ts';
import {RUN_SCHEMA, type Distance, type LockReport, type RunReport} from '../results/run.ts';
import {mmCounters} from './mm_counters.ts';
import type {ReplayRun} from './replay_run.ts';

/** The report of a run that took `wallS` seconds of host time. */
export function reportOf(run: ReplayRun, wallS: number): RunReport {
  const {kernel, compiled, options, recorder} = run;
  const {machine} = kernel;
  const simulatedTicks = Math.max(1, run.endTick - run.startTick);
  const cpuTicks = simulatedTicks * machine.cpus.length;
  const ops = recorder.done + recorder.failed;
  return {
    schema: RUN_SCHEMA,
    trace: {
      path: compiled.trace.path,
      hash: compiled.trace.hash,
      events: compiled.trace.events.count,
    },
    machine: {
      name: machine.topology.name,
      cpus: machine.cpus.length,
      hash: machine.topology.hash,
    },
    kernel: kernel.facts.version,
    design: kernel.design,
    seed: options.seed,
    digest: finalDigest(run),
    simulated_ns: ticksToNs(simulatedTicks),
    host: hostPart(run, wallS, ops),
    replay: replayPart(run),
    ops: recorder.report(),
    throughput_ops_s: (ops * TICKS_PER_S) / simulatedTicks,
    cpu: cpuPart(run, cpuTicks),
    locks: locksPart(run, cpuTicks),
    notifier: notifierPart(run),
    tlb: tlbPart(run),
    faults: pick(kernel.checks.counters, (name) => name.includes('fault')),
    counters: {...Object.fromEntries(kernel.checks.counters), ...mmCounters(kernel)},
    checks: checksPart(run),
  };
}

function notifierPart({kernel, recorder}: ReplayRun): RunReport['notifier'] {
  const counts = kernel.mmIfMade?.notifierCounts;
  return {
    calls: counts?.starts() ?? {},
    latency_ns: recorder.invalidations.summary(),
    retries: counts?.retries ?? 0,
    eagain: counts?.eagain ?? 0,
  };
}

/** The engine's events, and what the run counted, in one fingerprint. */
function finalDigest(run: ReplayRun): string {
  const {digest, now} = run.kernel.machine.engine;
  digest.mixLong(now);
  digest.mixLong(run.recorder.done);
  digest.mixLong(run.recorder.failed);
  for (const [name, count] of run.kernel.checks.counters) {
    digest.mixText(name);
    digest.mixLong(count);
  }
  return digest.hex();
}

function hostPart(run: ReplayRun, wallS: number, ops: number): RunReport['host'] {
  const {events} = run.kernel.machine.engine;
  return {
    wall_s: wallS,
    events,
    ops,
    events_per_s: events / wallS,
    ops_per_s: ops / wallS,
    peak_rss_mb: process.resourceUsage().maxRSS / 1024,
  };
}

function replayPart(run: ReplayRun): RunReport['replay'] {
  const {options, recorder, compiled, dependencies} = run;
  const unfinished =
    compiled.opCount * options.copies - recorder.done - recorder.failed - recorder.skipped;
  return {
    order: options.order,
    time: options.time === 'scaled' ? `scaled=${options.scale}` : options.time,
    copies: options.copies,
    placement: options.placement,
    operations: {
      done: recorder.done,
      skipped: recorder.skipped + unfinished,
      failed: recorder.failed,
      differed: recorder.differed,
    },
    edges: dependencies.counts,
    lateness_ns: recorder.lateness.summary(),
    lost_events: compiled.trace.footer?.lost ?? 0,
  };
}

function cpuPart(run: ReplayRun, cpuTicks: number): RunReport['cpu'] {
  const {machine, sched} = run.kernel;
  const functions: Record<string, number> = {};
  for (const [name, ticks] of machine.profile.entries()) functions[name] = ticks / cpuTicks;
  const times = sched.times();
  return {
    idle: (times.idleTicks - run.timesAtStart.idleTicks) / cpuTicks,
    user: (times.userTicks - run.timesAtStart.userTicks) / cpuTicks,
    functions,
  };
}

function locksPart(run: ReplayRun, cpuTicks: number): Record<string, LockReport> {
  const locks: Record<string, LockReport> = {};
  for (const [name, stats] of run.kernel.locks.report()) {
    if (stats.acquired === 0) continue;
    const handoff: Partial<Record<Distance, number>> = {};
    DISTANCE_NAMES.forEach((distance, i) => {
      if (stats.handoff[i] > 0) handoff[distance] = stats.handoff[i];
    });
    locks[name] = {
      acquired: stats.acquired,
      contended: stats.contended,
      wait_ns: ticksToNs(stats.waitTicks),
      hold_ns: ticksToNs(stats.holdTicks),
      handoff,
      cpu_share: stats.waitTicks / cpuTicks,
      wait_ns_by_caller: Object.fromEntries(
        [...stats.waitTicksByCaller].map(([caller, ticks]) => [caller, ticksToNs(ticks)]),
      ),
    };
  }
  return locks;
}

function tlbPart(run: ReplayRun): Record<string, number> {
  const {machine} = run.kernel;
  const total = {full_flushes: 0, page_flushes: 0, context_switches: 0, ipis: machine.ipi.sent};
  for (const {counts} of machine.tlbs) {
    total.full_flushes += counts.full;
    total.page_flushes += counts.pages;
    total.context_switches += counts.switches;
  }
  return total;
}

function checksPart(run: ReplayRun): RunReport['checks'] {
  const {checks} = run.kernel;
  return {
    missed_pgd_entries: checks.missedPgdEntries,
    stale_mappings: checks.staleMappings,
    soft_lockups: checks.softLockups,
    lockdep: checks.lockdep,
    sleep_in_atomic: checks.sleepInAtomic,
    warnings: Object.fromEntries(checks.warnings),
    notes: Object.fromEntries(checks.notes),
    findings: checks.findings,
  };
}

function pick(
  counters: ReadonlyMap<string, number>,
  keep: (name: string) => boolean,
): Record<string, number> {
  return Object.fromEntries([...counters].filter(([name]) => keep(name)));
}
