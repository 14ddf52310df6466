// Runs scenarios of the catalogue: every design under every seed, judged. An against-expectation
// needs the reports of the other designs of the same seed, so a seed's runs are judged together.

import {replayTrace, type ReplayRequest} from '../replay/replay.ts';
import type {RunReport} from '../results/run.ts';
import type {Scenario, ScenarioRun, Verdict} from '../workloads/catalogue.ts';
import {judge, type Json} from '../workloads/verdict.ts';
import type {ReplayJob} from './pool/jobs.ts';
import {scenarioTrace} from './scenario_trace.ts';

/** One design under one seed: what was expected, what was found. */
export interface ScenarioResult {
  readonly scenario: string;
  readonly label: string;
  readonly kernel: string;
  readonly design: readonly string[];
  readonly machine: string;
  readonly seed: number;
  readonly expected: Verdict;
  readonly found: string;
  readonly ok: boolean;
  readonly evidence: readonly string[];
  readonly digest: string;
  /** The one command that replays it. */
  readonly command: string;
}

/** Which part of a scenario to run. */
export interface ScenarioFilter {
  readonly label?: string;
  readonly seed?: number;
}

/** Mean time of a run of the catalogue, ms. */
const RUN_MS = 60;

function seedsOf(scenario: Scenario, filter: ScenarioFilter): readonly number[] {
  return filter.seed === undefined ? scenario.seeds : [filter.seed];
}

function requestOf({machine, kernel, design, costsNs}: ScenarioRun, seed: number): ReplayRequest {
  const options = {seed, audit: true, placement: 'free' as const};
  return {machine, kernel, design, options, ...(costsNs === undefined ? {} : {costsNs})};
}

/** Every run of a scenario of the catalogue: seed by seed, in the catalogue's order. */
export function scenarioJobs(scenario: Scenario, filter: ScenarioFilter): ReplayJob[] {
  const {name} = scenario;
  return seedsOf(scenario, filter).flatMap((seed) =>
    scenario.runs.map(
      (run): ReplayJob => ({
        trace: {from: 'scenario', name, seed},
        request: requestOf(run, seed),
        label: `${name} ${run.label} seed ${seed}`,
        guessMs: RUN_MS,
      }),
    ),
  );
}

/** Judges the reports of scenarioJobs. */
export function judgeScenario(
  scenario: Scenario,
  filter: ScenarioFilter,
  reports: readonly RunReport[],
): ScenarioResult[] {
  const {runs} = scenario;
  return seedsOf(scenario, filter).flatMap((seed, n) => {
    const byLabel = new Map(runs.map(({label}, i) => [label, reports[n * runs.length + i]]));
    return runs
      .filter((run) => filter.label === undefined || run.label === filter.label)
      .map((run) => resultOf(scenario, run, seed, byLabel));
  });
}

/**
 * Runs any scenario in this thread, whether it is in the catalogue or not, and judges every run.
 */
export function runScenario(scenario: Scenario, filter: ScenarioFilter): ScenarioResult[] {
  const reports = seedsOf(scenario, filter).flatMap((seed) => {
    const trace = scenarioTrace(scenario, seed);
    return scenario.runs.map((run) => replayTrace(trace, requestOf(run, seed)));
  });
  return judgeScenario(scenario, filter, reports);
}

function resultOf(
  scenario: Scenario,
  run: ScenarioRun,
  seed: number,
  reports: ReadonlyMap<string, RunReport>,
): ScenarioResult {
  const report = reports.get(run.label)!;
  const asJson = (one: RunReport): Json => one as unknown as Json;
  const others = new Map([...reports].map(([label, one]) => [label, asJson(one)]));
  const {found, ok, evidence} = judge(scenario, run, asJson(report), others);
  return {
    scenario: scenario.name,
    label: run.label,
    kernel: run.kernel,
    design: run.design,
    machine: run.machine,
    seed,
    expected: run.expected,
    found,
    ok,
    evidence,
    digest: report.digest,
    command: `mmreplay scenario run ${scenario.name} --design '${run.label}' --seed ${seed}`,
  };
}
