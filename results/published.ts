// Published measurements, in one form that users can write themselves (schema
// mmreplay.published/1). The files in results/published/ hold facts with their sources;
// docs/json-schemas.md describes every field.
//
// A curve says nothing about our units, so by default it is compared as a ratio: to its own first
// x, or to another series at the same x. `fitted_from` counts the leading points of each series
// that parameters may be taken from; every other point is a prediction and counts in the error.

import {existsSync, readdirSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {UserError} from './errors.ts';
import {Place, readJson} from './shape.ts';

export const PUBLISHED_SCHEMA = 'mmreplay.published/1';

export type Parameter = string | number | boolean;
export type Bound = 'at_most' | 'at_least';

export interface PublishedSeries {
  readonly name: string;
  readonly design: Readonly<Record<string, string>>;
  /** [x, y] pairs, x ascending. */
  readonly points: readonly (readonly [number, number])[];
  /**
   * The source gives only a bound ("below one third"): no error while the simulated value is within
   * it.
   */
  readonly bound?: Bound;
  /** What of a run's report stands for y, by path: `locks.pgd_lock.wait_ns`; default throughput. */
  readonly metric?: string;
}

export interface Published {
  readonly schema: typeof PUBLISHED_SCHEMA;
  readonly name: string;
  readonly source: string;
  /** How the numbers came here: read, derived, recalled. */
  readonly status: string;
  /** The machine as the source describes it, and our machine file for it where there is one. */
  readonly machine: {readonly description: string; readonly model?: string};
  /** As the source names it. */
  readonly kernel: string;
  /** Our kernel generation for it; without it the nearest. */
  readonly kernel_model?: string;
  readonly workload: {
    readonly name: string;
    /**
     * false: the model does not run this workload yet; validate then says so instead of an error.
     */
    readonly modelled: boolean;
    readonly params: Readonly<Record<string, Parameter>>;
  };
  readonly x: {readonly name: string};
  readonly y: {readonly name: string; readonly unit: string};
  readonly series: readonly PublishedSeries[];
  readonly compare: 'ratio' | 'absolute';
  /** `first_x`, or the name of another series. Only with `compare: ratio`. */
  readonly ratio_to?: string;
  readonly fitted_from: number;
  readonly notes: readonly string[];
}

/** The form, checked strictly; UserError names the place. */
export function checkPublished(value: unknown, file: string): Published {
  const root = new Place(value, file);
  if (root.at('schema').value !== PUBLISHED_SCHEMA) root.at('schema').fail(`"${PUBLISHED_SCHEMA}"`);
  root.fields(
    [
      ...['schema', 'name', 'source', 'status', 'machine', 'kernel', 'workload', 'x', 'y'],
      ...['series', 'compare', 'fitted_from', 'notes'],
    ],
    ['ratio_to', 'kernel_model'],
  );
  for (const name of ['name', 'source', 'status', 'kernel']) root.at(name).text();
  if (root.has('kernel_model')) root.at('kernel_model').text();
  root.at('machine').fields(['description'], ['model']);
  root.at('machine').at('description').text();
  if (root.at('machine').has('model')) root.at('machine').at('model').text();
  checkWorkload(root.at('workload'));
  root.at('x').fields(['name']);
  root.at('x').at('name').text();
  root.at('y').fields(['name', 'unit']);
  for (const name of ['name', 'unit']) root.at('y').at(name).text();
  const names = root.at('series').items().map(checkSeries);
  if (names.length === 0) root.at('series').fail('at least one series');
  if (new Set(names).size !== names.length) root.at('series').fail('series with different names');
  checkComparison(root, names);
  for (const note of root.at('notes').items()) note.text();
  return value as Published;
}

function checkWorkload(workload: Place): void {
  workload.fields(['name', 'modelled', 'params']);
  workload.at('name').text();
  workload.at('modelled').boolean();
  for (const [, param] of workload.at('params').entries()) {
    if (!['string', 'number', 'boolean'].includes(typeof param.value)) {
      param.fail('a string, a number, true or false');
    }
  }
}

function checkSeries(series: Place): string {
  series.fields(['name', 'design', 'points'], ['bound', 'metric']);
  if (series.has('metric')) series.at('metric').text();
  series.at('design').strings();
  if (series.has('bound')) series.at('bound').oneOf(['at_most', 'at_least']);
  const points = series.at('points').items();
  if (points.length === 0) series.at('points').fail('at least one [x, y] pair');
  let last = Number.NEGATIVE_INFINITY;
  for (const point of points) {
    const pair = point.items();
    if (pair.length !== 2) point.fail('a pair [x, y]');
    const x = pair[0].number();
    if (x <= last) pair[0].fail(`an x above ${last}`, 'sort the points by x, each x once');
    last = x;
    if (pair[1].number() < 0) pair[1].fail('a y of 0 or more');
  }
  return series.at('name').text();
}

function checkComparison(root: Place, names: readonly string[]): void {
  const compare = root.at('compare').oneOf(['ratio', 'absolute']);
  if (compare === 'absolute' && root.has('ratio_to')) {
    root.at('ratio_to').fail('no ratio_to with compare "absolute"', 'remove the field');
  }
  if (compare === 'ratio') {
    const to = root.at('ratio_to').text();
    if (to !== 'first_x' && !names.includes(to)) {
      root.at('ratio_to').fail(`"first_x" or the name of a series (${names.join(', ')})`);
    }
    checkReferences(root, to);
  }
  if (root.at('fitted_from').integer() < 0) root.at('fitted_from').fail('a count of 0 or more');
}

/** What a ratio divides by must exist at every x and not be zero. */
function checkReferences(root: Place, to: string): void {
  const all = root.at('series').items();
  const reference = all.find((series) => series.at('name').value === to);
  const known = new Map<number, number>();
  for (const pair of reference?.at('points').items() ?? []) {
    const [x, y] = pair.items();
    known.set(x.number(), y.number());
  }
  for (const series of all) {
    const points = series.at('points').items();
    for (const [i, point] of points.entries()) {
      const [x, y] = point.items();
      const below = reference ? known.get(x.number()) : i === 0 ? y.number() : 1;
      if (below === undefined) x.fail(`an x that series "${to}" has too`);
      if (below === 0) y.fail('a reference y above 0', 'a ratio cannot be taken to 0');
    }
  }
}

export function loadPublished(path: string): Published {
  return checkPublished(readJson(path), path);
}

/** Every published result that comes with mmreplay, by file name. */
export function shippedPublished(): Published[] {
  const folder = publishedFolder();
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => loadPublished(join(folder, name)));
}

/** In the source tree and in the package alike: results/published of the project, not of dist/. */
export function publishedFolder(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  const candidates = [join(here, 'published'), join(here, '..', '..', 'results', 'published')];
  const found = candidates.find((folder) => existsSync(folder));
  if (found === undefined) {
    throw new UserError('the folder results/published is missing; install mmreplay again');
  }
  return found;
}
