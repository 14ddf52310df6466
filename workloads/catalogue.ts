// The scenario catalogue: every bug and fix of the threads that this project started from, as data.
// A scenario is a trace builder, the fault's signature in a run's report, and the designs it runs
// under, each with the verdict that it must get: the faulty design is caught on every seed, the
// fixed one is clean. Names are stable: scripts use them.
//
// Nothing here runs anything. replay/ makes a report of the trace under each design; verdict.ts
// compares it.

import {EXIT, UserError} from '../formats/errors.ts';
import type {TraceSummary} from '../formats/writer.ts';
import {CONFORMANCE} from './conformance/all.ts';
import {COST_SCENARIOS} from './scenarios/pgd_cost.ts';
import {ENTRY_SCENARIOS} from './scenarios/pgd_entries.ts';
import {INIT_SCENARIOS} from './scenarios/pgd_init.ts';
import {PUD_SCENARIOS} from './scenarios/pud_leaves.ts';
import {XEN_SCENARIOS} from './scenarios/xen.ts';
import type {OpenTrace} from './workload.ts';

/** Bounds of a number; both inclusive, at least one given. */
export interface Bounds {
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** Counters of a report's `checks` that a scenario can look at. */
export type CheckName =
  | 'missed_pgd_entries'
  | 'stale_mappings'
  | 'soft_lockups'
  | 'lockdep'
  | 'sleep_in_atomic';

/** One thing to look for in a report. */
export type Expectation =
  /** A counter of `checks`. */
  | ({readonly check: CheckName} & Bounds)
  /** How many findings match the regular expression. */
  | ({readonly check: 'findings'; readonly matches: string} & Bounds)
  /** The number at `path` in the report; absent counts as 0. */
  | ({readonly check: 'metric'; readonly path: readonly string[]} & Bounds)
  /** The number at `path` divided by the one at `over`. */
  | ({
      readonly check: 'ratio';
      readonly path: readonly string[];
      readonly over: readonly string[];
    } & Bounds)
  /** The number at `path` divided by the same number of the run labelled `run`. */
  | ({readonly check: 'against'; readonly path: readonly string[]; readonly run: string} & Bounds);

/** What a run under one design must show. */
export type Verdict = 'caught' | 'clean';

/** One design under test. */
export interface ScenarioRun {
  /** Unique in the scenario; what the listings call it. */
  readonly label: string;
  readonly kernel: string;
  /** `axis=choice` overrides of the kernel's design. */
  readonly design: readonly string[];
  readonly machine: string;
  /** Costs of the machine, ns, that this run changes; the scenario says why. */
  readonly costsNs?: Readonly<Record<string, number>>;
  readonly expected: Verdict;
  /** Signature of the fault under this design, where it differs from the scenario's. */
  readonly fault?: readonly Expectation[];
  /** Must hold besides the verdict, so that a clean run is not clean for want of trying. */
  readonly also?: readonly Expectation[];
}

/** One scenario. */
export interface Scenario {
  readonly name: string;
  readonly summary: string;
  /** Where the bug and the fix are described. */
  readonly source: string;
  /** The fault shows when any of these holds. */
  readonly fault: readonly Expectation[];
  readonly runs: readonly ScenarioRun[];
  readonly seeds: readonly number[];
  /** Writes the trace; its bytes depend on the seed alone. */
  build(open: OpenTrace, seed: number): TraceSummary;
}

/** All scenarios by name, in the order of the listings. */
export const CATALOGUE: ReadonlyMap<string, Scenario> = new Map(
  [
    ...INIT_SCENARIOS,
    ...ENTRY_SCENARIOS,
    ...XEN_SCENARIOS,
    ...COST_SCENARIOS,
    ...PUD_SCENARIOS,
    ...CONFORMANCE,
  ].map((one) => [one.name, one]),
);

/** The scenario called `name`. Throws UserError listing those that exist. */
export function scenarioByName(name: string): Scenario {
  const scenario = CATALOGUE.get(name);
  if (scenario !== undefined) return scenario;
  throw new UserError(
    `scenario ${name}: unknown; choose one of ${[...CATALOGUE.keys()].join(', ')}`,
    EXIT.usage,
  );
}
