// A/B comparison of designs: any number of columns, the first is the baseline, runs paired by seed.
//
// Rules that keep the table honest:
// - Only runs of the same trace on the same machine are compared (by hash, per seed); else the
//   column is `x`.
// - A difference counts when the paired signed-rank test, after Holm's correction over the whole
//   table, is below alpha and the median change is at least the noise floor; all else is `~`.
// - Fewer pairs than the test could ever need to reach alpha give `untested`, not `~`: absence of
//   evidence.
// - Metrics that no seed changes are compared exactly, without a p-value.

import {
  type Change,
  type Column,
  COMPARE_SCHEMA,
  type Comparison,
  type Row,
  type Table,
} from './comparison.ts';
import {buildColumns, type Input} from './compare_columns.ts';
import {geomeansOf} from './compare_geomean.ts';
import {type Better, type Metric, metricsOf, type TableName} from './metrics.ts';
import {comparePaired, holm, median, medianInterval, type Paired, pairsNeeded} from './stats.ts';

export type {Input} from './compare_columns.ts';

export interface CompareOptions {
  /** Family-wise error rate per table; default 0.05. */
  readonly alpha?: number;
  /** Confidence of intervals; default 0.95. */
  readonly confidence?: number;
  /** Smallest relative change worth a mark; default 0.005. */
  readonly noiseFloor?: number;
}

interface Settings {
  readonly alpha: number;
  readonly confidence: number;
  readonly noiseFloor: number;
}

/**
 * Compares runs of several designs. Each input is one design under several seeds; the first input
 * is the baseline. Throws UserError when an input has no runs, mixes designs, or has a seed twice.
 */
export function compareRuns(inputs: readonly Input[], options: CompareOptions = {}): Comparison {
  const settings = {
    alpha: options.alpha ?? 0.05,
    confidence: options.confidence ?? 0.95,
    noiseFloor: options.noiseFloor ?? 0.005,
  };
  const columns = buildColumns(inputs);
  const metrics = inputs.map((input) => input.runs.map(metricsOf));
  return {
    schema: COMPARE_SCHEMA,
    alpha: settings.alpha,
    confidence: settings.confidence,
    noise_floor: settings.noiseFloor,
    columns,
    tables: (['headline', 'mechanism'] as const).map((name) =>
      buildTable(name, columns, metrics, settings),
    ),
  };
}

function buildTable(
  name: TableName,
  columns: readonly Column[],
  metrics: readonly (readonly (readonly Metric[])[])[],
  settings: Settings,
): Table {
  const byRun = metrics.map((runs) => runs.map((run) => mapByName(run, name)));
  const first = new Map<string, Metric>();
  for (const runs of byRun) {
    for (const run of runs)
      for (const [key, metric] of run) if (!first.has(key)) first.set(key, metric);
  }
  const drafts = [...first.values()].map((metric) => draftRow(metric, columns, byRun, settings));
  const tested = drafts.flatMap((draft) => draft.pairs.filter((p) => p?.p !== undefined));
  const adjusted = holm(tested.map((pair) => pair?.p ?? 1));
  const adjustedOf = new Map(tested.map((pair, i) => [pair, adjusted[i]]));
  const family = {...settings, pairsNeeded: pairsNeeded(settings.alpha, tested.length)};
  const rows = drafts.map((draft) => finishRow(draft, columns, adjustedOf, family));
  return {name, rows, tests: tested.length, geomeans: geomeansOf(rows, columns)};
}

/** The settings, and the pairs below which no row of this table could ever be significant. */
interface Family extends Settings {
  readonly pairsNeeded: number;
}

function mapByName(metrics: readonly Metric[], table: TableName): Map<string, Metric> {
  return new Map(metrics.filter((m) => m.table === table).map((m) => [m.name, m]));
}

interface Draft {
  readonly metric: Metric;
  readonly values: readonly (readonly (number | null)[])[];
  /** Per column: undefined for the baseline, incomparable and missing ones. */
  readonly pairs: readonly (Paired | undefined)[];
}

function draftRow(
  metric: Metric,
  columns: readonly Column[],
  byRun: readonly (readonly Map<string, Metric>[])[],
  settings: Settings,
): Draft {
  const values = byRun.map((runs) => runs.map((run) => valueIn(run, metric)));
  const pairs = columns.map((column, i) => {
    if (i === 0 || column.incomparable !== undefined) return undefined;
    const [a, b] = pairBySeed(columns[0].seeds, values[0], column.seeds, values[i]);
    return a.length === 0 ? undefined : comparePaired(a, b, settings.confidence);
  });
  return {metric, values, pairs};
}

/**
 * A run's value; zero where only its map lacks the name; null where it has no such thing at all.
 */
function valueIn(run: ReadonlyMap<string, Metric>, metric: Metric): number | null {
  const own = run.get(metric.name);
  if (own !== undefined) return own.value;
  return metric.zeroWith !== undefined && run.has(metric.zeroWith) ? 0 : null;
}

function pairBySeed(
  seedsA: readonly number[],
  valuesA: readonly (number | null)[],
  seedsB: readonly number[],
  valuesB: readonly (number | null)[],
): [number[], number[]] {
  const a: number[] = [];
  const b: number[] = [];
  seedsA.forEach((seed, i) => {
    const j = seedsB.indexOf(seed);
    const x = valuesA[i];
    const y = j < 0 ? null : valuesB[j];
    if (x === null || y === null) return;
    a.push(x);
    b.push(y);
  });
  return [a, b];
}

function finishRow(
  draft: Draft,
  columns: readonly Column[],
  adjusted: ReadonlyMap<Paired | undefined, number>,
  settings: Family,
): Row {
  const {metric} = draft;
  const cells = columns.map((column, i) => {
    const values = draft.values[i];
    const present = values.filter((v): v is number => v !== null);
    const interval = medianInterval(present, settings.confidence);
    return {
      values,
      ...(present.length > 0 ? {median: median(present)} : {}),
      ...(interval ? {interval} : {}),
      change: changeOf(i, column, draft.pairs[i], adjusted, metric.better, settings),
    };
  });
  return {metric: metric.name, unit: metric.unit, better: metric.better, cells};
}

function changeOf(
  index: number,
  column: Column,
  pair: Paired | undefined,
  adjusted: ReadonlyMap<Paired | undefined, number>,
  better: Better,
  settings: Family,
): Change {
  if (index === 0) return {verdict: 'baseline', n: column.seeds.length};
  if (column.incomparable !== undefined) return {verdict: 'incomparable', n: 0};
  if (pair === undefined) return {verdict: 'missing', n: 0};
  const {n, ratio, ratioInterval, difference, p, pSign} = pair;
  const pHolm = adjusted.get(pair);
  const facts = {
    n,
    ...(ratio === undefined ? {} : {ratio}),
    ...(ratioInterval === undefined ? {} : {interval: ratioInterval}),
    difference,
    ...(p === undefined ? {} : {p, p_holm: pHolm, p_sign: pSign}),
  };
  if (pair.kind === 'equal') return {verdict: 'equal', ...facts};
  const small = ratio !== undefined && Math.abs(ratio - 1) < settings.noiseFloor;
  if (small) return {verdict: 'noise', ...facts};
  if (pair.kind === 'exact') {
    return {verdict: direction(difference, better), basis: 'exact', ...facts};
  }
  if (n < settings.pairsNeeded) return {verdict: 'untested', ...facts};
  if (pHolm === undefined || pHolm > settings.alpha) return {verdict: 'noise', ...facts};
  return {verdict: direction(signOf(ratio, difference), better), basis: 'test', ...facts};
}

/** The median ratio decides the side; where there is none, the median difference. */
function signOf(ratio: number | undefined, difference: number): number {
  return ratio === undefined ? difference : ratio - 1;
}

function direction(sign: number, better: Better): 'better' | 'worse' | 'changed' {
  if (better === 'none' || sign === 0) return 'changed';
  return sign > 0 === (better === 'higher') ? 'better' : 'worse';
}
