// Verifies the model against a recording: replays for states, one for durations, one report.
//
// States (counters, fault classes, flushes) are compared in total order, where every operation has
// one state before and one after it; times in causal order with think time, where tasks run beside
// each other as they did. Traces in which background threads changed memory are replayed at
// recorded times in the first pass, because what those threads do depends on the clock. The first
// pass is repeated while it still learns what was in the page cache (page_cache.ts).

import type {LoadedTrace} from '../formats/reader.ts';
import {KIND} from '../formats/kinds.ts';
import {kernelFacts} from '../kernel/design.ts';
import {loadMachine} from '../machine/machines.ts';
import {VERIFY_SCHEMA, type CountPair, type VerifyReport} from '../results/verify.ts';
import {DEFAULT_OPTIONS, type Order, type ReplayOptions, type TimeMode} from './options.ts';
import type {CacheEvidence} from './page_cache.ts';
import {type CacheMarks, lockedCount, markCount, NO_MARKS, sameMarks} from './page_cache_marks.ts';
import {ReclaimDriver, type ReclaimMode} from './reclaim_driver.ts';
import {planReclaim, type ReclaimPlan} from './recorded_reclaim.ts';
import {ReplayRun} from './replay_run.ts';
import {reportOf} from './report.ts';
import {compileTrace, type CompiledTrace} from './tracks.ts';
import {Differences} from './verify_differences.ts';
import {MEMBER_NAMES, StateGrader} from './verify_state.ts';
import {KsmWatch, ksmPart} from './verify_ksm.ts';
import {readRecorded, type Recorded} from './verify_record.ts';
import {gradeDurations, TimingObserver} from './verify_timing.ts';

/** What to verify on what; everything has a default. */
export interface VerifyOptions {
  readonly machine: string;
  readonly kernel: string;
  readonly design: readonly string[];
  readonly seed: number;
  /** Differences kept in full, and of each cause. */
  readonly differences: number;
  readonly perCause: number;
  readonly order: Order;
  /** Null: recorded times when background threads changed memory, else as soon as possible. */
  readonly time: TimeMode | null;
  /** False skips the replay for durations. */
  readonly durations: boolean;
  /** False takes every file as fully cached when the recording begins. */
  readonly infer: boolean;
  /**
   * Who chooses the pages that reclaim takes; without `infer`, reclaim that the trace does not ask
   * for does not happen.
   */
  readonly reclaim: ReclaimMode;
}

export const VERIFY_DEFAULTS: VerifyOptions = {
  machine: 'epyc-2cpu-guest',
  kernel: '6.18',
  design: [],
  seed: 1,
  differences: 20,
  perCause: 3,
  order: 'total',
  time: null,
  durations: true,
  infer: true,
  reclaim: 'recorded',
};

/** Events that say that a background thread changed memory. */
const BACKGROUND = [
  KIND.ksm_merge_one,
  KIND.ksm_merge_with,
  KIND.vmscan_write_folio,
  KIND.collapse_huge_page,
];

/**
 * Replays `trace` and grades it against its own answers. Deterministic. Throws as replayTrace does.
 */
export function verifyTrace(
  trace: LoadedTrace,
  options: Partial<VerifyOptions> = {},
): VerifyReport {
  const full = {...VERIFY_DEFAULTS, ...options};
  const compiled = compileTrace(trace);
  const recorded = readRecorded(compiled);
  const time = full.time ?? (hasBackground(trace) ? 'timed' : 'asap');
  const plan = full.infer && full.reclaim !== 'none' ? planReclaim(compiled, recorded) : null;
  const states = gradeStates(compiled, recorded, full, time, plan);
  const {run, grader, differences, marks, replays} = states;
  const timed = makeRun(compiled, full, {order: 'causal', time: 'think'}, marks);
  if (plan !== null) timed.steering = driverOf(timed, plan, recorded, full.reclaim);
  const simulated = new TimingObserver(compiled, timed.kernel.machine.engine);
  timed.observer = simulated;
  if (full.durations) timed.execute();
  const state = reportOf(run, 0);
  return {
    schema: VERIFY_SCHEMA,
    trace: state.trace,
    machine: state.machine,
    kernel: state.kernel,
    design: state.design,
    seed: full.seed,
    replay: {order: full.order, time, digest: state.digest},
    faults: faultsPart(grader),
    rss: rssPart(grader, recorded),
    inferred: {
      file_pages: markCount(marks.pages) + lockedCount(marks),
      files: [...marks.pages.values()].filter((pages) => pages.size > 0).length,
      large_folios: markCount(marks.folios),
      replays,
      ...reclaimPart(plan, states.driver, full.reclaim),
    },
    swap: swapPart(trace, recorded, grader),
    ksm: ksmPart(compiled, states.ksm),
    durations: full.durations ? gradeDurations(compiled, recorded, simulated) : {},
    record_cost_ns: recorded.recordCostNs,
    tlb: pairsOf(recorded.flushes, grader.flushes),
    unmodelled: unmodelledPart(trace, grader),
    warnings: state.checks.warnings,
    findings: state.checks.findings,
    causes: differences.report(),
    differences: differences.list,
  };
}

/** More replays than this have never been needed to find the marks. */
const MAX_REPLAYS = 6;

interface GradedStates {
  readonly run: ReplayRun;
  readonly grader: StateGrader;
  readonly ksm: KsmWatch;
  readonly differences: Differences;
  readonly marks: CacheMarks;
  readonly replays: number;
  readonly driver: ReclaimDriver | null;
}

/**
 * Replays in total order until the inferred page cache no longer changes. The best replay counts.
 */
function gradeStates(
  compiled: CompiledTrace,
  recorded: Recorded,
  options: VerifyOptions,
  time: TimeMode,
  plan: ReclaimPlan | null,
): GradedStates {
  let marks = NO_MARKS;
  let best: GradedStates | null = null;
  let cache: CacheEvidence | null = null;
  for (let replays = 1; ; replays++) {
    const differences = new Differences(compiled, options.perCause, options.differences);
    const run = makeRun(compiled, options, {order: options.order, time}, marks);
    const nameOf = (mappingId: number): string => run.files.nameOf(mappingId);
    const grader = new StateGrader(run.kernel, compiled, recorded, differences, nameOf, cache);
    cache = grader.cache;
    run.observer = grader;
    run.kernel.mm.probe = grader;
    const ksm = new KsmWatch(run.kernel);
    run.kernel.tlb.traced = grader;
    const driver = plan === null ? null : driverOf(run, plan, recorded, options.reclaim);
    run.steering = driver;
    run.execute();
    grader.gradeBackground();
    const states = {run, grader, ksm, differences, marks, replays, driver};
    if (best === null || grader.exact > best.grader.exact) best = states;
    const better = options.infer ? grader.cache.marks() : marks;
    if (replays === MAX_REPLAYS || sameMarks(marks, better)) return {...best, replays};
    marks = better;
  }
}

function driverOf(
  run: ReplayRun,
  plan: ReclaimPlan,
  {opLife}: Recorded,
  mode: ReclaimMode,
): ReclaimDriver {
  const total = run.options.order === 'total';
  return new ReclaimDriver(run.kernel, run.compiled, plan, opLife, mode, total);
}

/** What of reclaim is an input. */
function reclaimPart(
  plan: ReclaimPlan | null,
  driver: ReclaimDriver | null,
  mode: ReclaimMode,
): Pick<
  VerifyReport['inferred'],
  'swap_area_pages' | 'memcg_limit_pages' | 'reclaimed_pages' | 'reclaim_operations'
> {
  const chosen = mode === 'recorded' ? plan : null;
  return {
    swap_area_pages: driver?.totals.areaPages ?? 0,
    memcg_limit_pages: driver?.totals.limitPages ?? 0,
    reclaimed_pages: chosen?.pages ?? 0,
    reclaim_operations: chosen?.taken.size ?? 0,
  };
}

/** What was swapped in and out on both sides. */
function swapPart(
  trace: LoadedTrace,
  recorded: Recorded,
  grader: StateGrader,
): VerifyReport['swap'] {
  const {counts} = grader.kernel.mm.swap;
  const {count, kind} = trace.events;
  let written = 0;
  for (let i = 0; i < count; i++) if (kind[i] === KIND.vmscan_write_folio) written++;
  const swapFaults = recorded.faults.filter(({faultClass}) => faultClass === 'swap').length;
  if (written + swapFaults + counts.pswpout === 0) return null;
  return {
    written: {recorded: written, simulated: counts.pswpout},
    faults: {recorded: swapFaults, simulated: grader.swapFaults},
    unused: {recorded: recorded.unused.length, simulated: counts.unused},
  };
}

function makeRun(
  compiled: CompiledTrace,
  options: VerifyOptions,
  how: Partial<ReplayOptions>,
  marks: CacheMarks,
): ReplayRun {
  const topology = loadMachine(options.machine);
  const facts = kernelFacts(options.kernel, options.design);
  const placement = how.order === 'causal' ? 'free' : 'follow';
  const full = {...DEFAULT_OPTIONS, seed: options.seed, placement, ...how} as const;
  return new ReplayRun(compiled, topology, facts, full, marks);
}

function hasBackground(trace: LoadedTrace): boolean {
  const {count, kind} = trace.events;
  for (let i = 0; i < count; i++) if (BACKGROUND.includes(kind[i] as never)) return true;
  return false;
}

function faultsPart(grader: StateGrader): VerifyReport['faults'] {
  const classes: Record<string, {recorded: number; agreed: number}> = {};
  let recorded = 0;
  let agreed = 0;
  for (const [name, tally] of grader.classes) {
    if (tally.recorded === 0) continue;
    classes[name] = {...tally};
    recorded += tally.recorded;
    agreed += tally.agreed;
  }
  return {
    recorded,
    agreed,
    agreement: recorded === 0 ? 1 : agreed / recorded,
    missing: grader.missing,
    extra: grader.extra,
    before_trace: grader.ungradedFaults,
    classes,
  };
}

function rssPart(grader: StateGrader, recorded: Recorded): VerifyReport['rss'] {
  const {samples, exact} = grader;
  const members = MEMBER_NAMES.map((name, member) => [name, grader.members[member]] as const);
  return {
    samples,
    exact,
    agreement: samples === 0 ? 1 : exact / samples,
    mean_abs_error: samples === 0 ? 0 : grader.absError / samples,
    max_abs_error: grader.maxError,
    changes_exact: grader.changesExact,
    members: Object.fromEntries(members.filter(([, counts]) => counts.samples > 0)),
    records: {
      recorded: recorded.stepOp.length,
      simulated: grader.simulatedSteps,
      matched: grader.matchedSteps,
    },
    before_trace: recorded.unknownRecords,
  };
}

function pairsOf(
  recorded: ReadonlyMap<string, number>,
  simulated: ReadonlyMap<string, number>,
): Record<string, CountPair> {
  const names = [...new Set([...recorded.keys(), ...simulated.keys()])].sort();
  return Object.fromEntries(
    names.map((name) => [
      name,
      {recorded: recorded.get(name) ?? 0, simulated: simulated.get(name) ?? 0},
    ]),
  );
}

/** What the importer could not map, and what the replay did not carry out. */
function unmodelledPart(trace: LoadedTrace, grader: StateGrader): Record<string, number> {
  const counts: Record<string, number> = {...trace.footer?.unmodelled};
  for (const [name, count] of grader.outcomes) counts[name] = count;
  return counts;
}
