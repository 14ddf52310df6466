// Replays a trace: the one function that everything else in this folder and every verb is built on.

import type {LoadedTrace} from '../formats/reader.ts';
import {kernelFacts} from '../kernel/design.ts';
import {type CostOverrides, loadMachine} from '../machine/machines.ts';
import type {RunReport} from '../results/run.ts';
import {DEFAULT_OPTIONS, type ReplayOptions} from './options.ts';
import {ReplayRun} from './replay_run.ts';
import {reportOf} from './report.ts';
import {compileTrace, type CompiledTrace} from './tracks.ts';

/** What to replay on what. */
export interface ReplayRequest {
  /** Name, file or shorthand of a machine. */
  readonly machine: string;
  /** Kernel version of design.ts. */
  readonly kernel: string;
  /** Overrides like `pgd=lockless-v2`. */
  readonly design: readonly string[];
  /** Costs of the machine (ns) that this run changes. */
  readonly costsNs?: CostOverrides;
  readonly options?: Partial<ReplayOptions>;
}

const compiledTraces = new WeakMap<LoadedTrace, {untilNs: number; compiled: CompiledTrace}>();

/** The compiled form of a trace; made once, replayed many times. */
function compiledOf(trace: LoadedTrace, untilNs: number): CompiledTrace {
  const known = compiledTraces.get(trace);
  if (known !== undefined && known.untilNs === untilNs) return known.compiled;
  const compiled = compileTrace(trace, untilNs);
  compiledTraces.set(trace, {untilNs, compiled});
  return compiled;
}

/**
 * Replays `trace` and returns what was measured. Deterministic: equal arguments give an equal
 * digest. Throws DesignError or MachineError for names that do not exist, BoundReached and Deadlock
 * for runs that do not end.
 */
export function replayTrace(trace: LoadedTrace, request: ReplayRequest): RunReport {
  const options: ReplayOptions = {...DEFAULT_OPTIONS, ...request.options};
  const topology = loadMachine(request.machine, request.costsNs);
  const facts = kernelFacts(request.kernel, request.design);
  const began = process.hrtime.bigint();
  const run = new ReplayRun(compiledOf(trace, options.untilNs), topology, facts, options);
  run.execute();
  const wallS = Number(process.hrtime.bigint() - began) / 1e9;
  return reportOf(run, wallS);
}
