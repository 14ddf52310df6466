// Runs scenarios of the catalogue: every design under every seed, judged. An against-expectation needs the reports of
// the other designs of the same seed, so a seed's runs are made in the catalogue's order and judged together.

import {TraceWriter} from '../formats/writer.ts';
import {traceFrom} from '../replay/generated.ts';
import {replayTrace} from '../replay/replay.ts';
import type {RunReport} from '../results/run.ts';
import type {Scenario, ScenarioRun, Verdict} from '../workloads/catalogue.ts';
import {judge, type Json} from '../workloads/verdict.ts';

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

/** Runs `scenario` and judges every run. */
export function runScenario(
  scenario: Scenario,
  filter: ScenarioFilter,
  show: (text: string) => void,
): ScenarioResult[] {
  const seeds = filter.seed === undefined ? scenario.seeds : [filter.seed];
  return seeds.flatMap((seed) => {
    const trace = traceFrom(`${scenario.name} --seed ${seed}`, (sink) => {
      scenario.build((header) => new TraceWriter(sink, header), seed);
    });
    const reports = new Map<string, RunReport>();
    for (const run of scenario.runs) {
      show(`${scenario.name} ${run.label} seed ${seed}`);
      const {machine, kernel, design, costsNs} = run;
      const options = {seed, audit: true, placement: 'free' as const};
      const costs = costsNs === undefined ? {} : {costsNs};
      reports.set(run.label, replayTrace(trace, {machine, kernel, design, options, ...costs}));
    }
    return scenario.runs
      .filter((run) => filter.label === undefined || run.label === filter.label)
      .map((run) => resultOf(scenario, run, seed, reports));
  });
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
