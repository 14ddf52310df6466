// Compares a run's report with what a scenario expects of it. Reads the report as plain JSON, by
// the names that `replay --json` prints, and knows nothing else about it.
//
// Three things can be found: `caught` (the fault's signature is there), `clean` (nothing at all is
// wrong), `other` (the signature is not there but something else is). A run is fine when it is
// found as expected and its `also` holds.

import type {Bounds, Expectation, Scenario, ScenarioRun, Verdict} from './catalogue.ts';

/** A report as parsed JSON. */
export type Json = Readonly<Record<string, unknown>>;

/** What a run showed. */
export interface Judgement {
  readonly found: Verdict | 'other';
  readonly ok: boolean;
  /** One line for each expectation that was looked at. */
  readonly evidence: readonly string[];
}

/** The number at `path`; 0 where there is none. */
export function numberAt(report: Json, path: readonly string[]): number {
  let at: unknown = report;
  for (const name of path) at = (at as Json | undefined)?.[name];
  return typeof at === 'number' ? at : 0;
}

function findingsOf(report: Json): string[] {
  const {findings} = (report['checks'] ?? {}) as Json;
  return Array.isArray(findings) ? findings.map(String) : [];
}

function quotient(over: number, under: number): number {
  return under === 0 ? (over === 0 ? 1 : Infinity) : over / under;
}

/** What is measured, in words and as a number. */
function measure(
  one: Expectation,
  report: Json,
  others: ReadonlyMap<string, Json>,
): [string, number] {
  switch (one.check) {
    case 'findings': {
      const pattern = new RegExp(one.matches, 'i');
      const matching = findingsOf(report).filter((line) => pattern.test(line));
      return [`findings like /${one.matches}/`, matching.length];
    }
    case 'metric':
      return [one.path.join('.'), numberAt(report, one.path)];
    case 'ratio': {
      const words = `${one.path.join('.')} over ${one.over.join('.')}`;
      return [words, quotient(numberAt(report, one.path), numberAt(report, one.over))];
    }
    case 'against': {
      const other = numberAt(others.get(one.run) ?? {}, one.path);
      return [
        `${one.path.join('.')} against ${one.run}`,
        quotient(numberAt(report, one.path), other),
      ];
    }
    default:
      return [one.check, numberAt(report, ['checks', one.check])];
  }
}

function within(value: number, bounds: Bounds): boolean {
  return value >= (bounds.atLeast ?? -Infinity) && value <= (bounds.atMost ?? Infinity);
}

function describeBounds(bounds: Bounds): string {
  const parts = [];
  if (bounds.atLeast !== undefined) parts.push(`>= ${bounds.atLeast}`);
  if (bounds.atMost !== undefined) parts.push(`<= ${bounds.atMost}`);
  return parts.join(' and ');
}

const ALWAYS_WRONG = [
  'missed_pgd_entries',
  'stale_mappings',
  'soft_lockups',
  'lockdep',
  'sleep_in_atomic',
];

/** Everything that is wrong with a run whatever the scenario looks for. */
function anythingWrong(report: Json): string[] {
  const wrong = ALWAYS_WRONG.filter((name) => numberAt(report, ['checks', name]) > 0).map(
    (name) => `${name}: ${numberAt(report, ['checks', name])}`,
  );
  return [...wrong, ...findingsOf(report).slice(0, 3)];
}

/**
 * Judges the report of one run. `others` holds reports of the same scenario and seed by label;
 * those that an `against` expectation names must be in it.
 */
export function judge(
  scenario: Scenario,
  run: ScenarioRun,
  report: Json,
  others: ReadonlyMap<string, Json> = new Map(),
): Judgement {
  const evidence: string[] = [];
  const reports = new Map([...others, [run.label, report]]);
  const holds = (one: Expectation): boolean => {
    const [words, value] = measure(one, report, reports);
    const yes = within(value, one);
    const shown = Number.isInteger(value) ? value : value.toPrecision(4);
    evidence.push(`${words}: ${shown}, ${yes ? '' : 'not '}${describeBounds(one)}`);
    return yes;
  };
  const caught = (run.fault ?? scenario.fault).map(holds).includes(true);
  const also = (run.also ?? []).map(holds).every((one) => one);
  const wrong = caught && run.expected === 'caught' ? [] : anythingWrong(report);
  const found = caught ? 'caught' : wrong.length > 0 ? 'other' : 'clean';
  return {found, ok: found === run.expected && also, evidence: [...evidence, ...wrong]};
}
