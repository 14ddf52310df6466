// How values and changes read in the human tables: one place, so that table and markdown never
// disagree.

import type {Change, Column, Comparison, Row, Table, Verdict} from '../comparison.ts';
import type {Unit} from '../metrics.ts';
import {pairsNeeded} from '../stats.ts';
import {formatChange, formatCount, formatNs, formatRate, formatShare} from './number.ts';

export function valueText(value: number | undefined, unit: Unit): string {
  if (value === undefined) return '-';
  if (unit === 'ns') return formatNs(value);
  if (unit === 'ops/s') return formatRate(value);
  if (unit === 'share') return formatShare(value);
  return formatCount(value);
}

/** `-49.7 % *`, `~`, `=`, `x`, `-`, `+100 % exact`, `-49.7 % ?`; empty for the baseline. */
export function changeText(change: Change, unit: Unit): string {
  switch (change.verdict) {
    case 'baseline':
      return '';
    case 'equal':
      return '=';
    case 'noise':
      return '~';
    case 'incomparable':
      return 'x';
    case 'missing':
      return '-';
    case 'untested':
      return `${sizeText(change, unit)} ?`;
    default:
      return `${sizeText(change, unit)} ${change.basis === 'exact' ? 'exact' : '*'}`;
  }
}

function sizeText(change: Change, unit: Unit): string {
  if (change.ratio !== undefined) return formatChange(change.ratio);
  const difference = change.difference ?? 0;
  return `${difference < 0 ? '' : '+'}${valueText(difference, unit)}`;
}

/** `[-50.1 %, -49.2 %]` around the change; empty where there is none to give. */
export function intervalText(change: Change): string {
  const marked = ['better', 'worse', 'changed', 'untested'].includes(change.verdict);
  if (!marked || change.interval === undefined) return '';
  return `[${formatChange(change.interval.lo)}, ${formatChange(change.interval.hi)}]`;
}

/** Rows worth a line: everything, or only what differs somewhere. */
export function rowsToDraw(table: Table, all: boolean): readonly Row[] {
  if (all || table.name === 'headline') return table.rows;
  const dull: readonly Verdict[] = ['equal', 'noise', 'incomparable'];
  return table.rows.filter((row) =>
    row.cells.slice(1).some((cell) => !dull.includes(cell.change.verdict)),
  );
}

/** The legend: only lines whose mark is on the page, in words a reader can check. */
export function footnotes(comparison: Comparison): string[] {
  const notes: string[] = [];
  const changes = comparison.tables.flatMap((t) =>
    t.rows.flatMap((r) => r.cells.map((c) => c.change)),
  );
  const has = (test: (change: Change) => boolean): boolean => changes.some(test);
  const families = comparison.tables.map((t) => `${t.tests} ${t.name}`).join(' and ');
  if (has((c) => c.basis === 'test')) {
    notes.push(
      `* paired signed-rank test by seed, Holm-corrected over ${families} rows, ` +
        `p <= ${comparison.alpha}; change is the median ratio per seed`,
    );
  }
  if (has((c) => c.basis === 'exact')) {
    notes.push('exact: each design has one value under every seed; nothing was sampled, no test');
  }
  if (has((c) => c.verdict === 'noise')) {
    notes.push(`~ not significant, or below the noise floor of ${comparison.noise_floor * 100} %`);
  }
  if (has((c) => c.verdict === 'equal')) notes.push('= equal under every seed');
  notes.push(...sampleNotes(comparison), ...columnNotes(comparison.columns));
  const leftOut = counted(comparison.columns, (column) => column.notes ?? {});
  notes.push(...leftOut.map((line) => `note: ${line}`));
  return notes;
}

function sampleNotes(comparison: Comparison): string[] {
  const notes: string[] = [];
  for (const table of comparison.tables) {
    const untested = table.rows.some((r) => r.cells.some((c) => c.change.verdict === 'untested'));
    if (!untested) continue;
    notes.push(
      `? need >= ${pairsNeeded(comparison.alpha, table.tests)} seeds to detect a difference ` +
        `at level ${comparison.alpha} over ${table.tests} ${table.name} rows`,
    );
  }
  const fewest = Math.min(...comparison.columns.map((column) => column.seeds.length));
  if (fewest < 6 && comparison.confidence === 0.95) {
    notes.push('need >= 6 seeds for a confidence interval at level 0.95');
  }
  return notes;
}

function columnNotes(columns: readonly Column[]): string[] {
  const notes: string[] = [];
  const [baseline] = columns;
  for (const column of columns) {
    if (column.incomparable !== undefined) notes.push(`x ${column.label}: ${column.incomparable}`);
    const unpaired = column.seeds.filter((seed) => !baseline.seeds.includes(seed));
    if (unpaired.length > 0 && column.incomparable === undefined) {
      notes.push(`${column.label}: seeds ${unpaired.join(', ')} have no pair in ${baseline.label}`);
    }
  }
  return notes;
}

/** Failures and warnings of each column, loud and first. */
export function alarms(columns: readonly Column[]): string[] {
  const lines: string[] = [];
  for (const column of columns) {
    for (const [name, runs] of Object.entries(column.failures)) {
      lines.push(`FAILED ${column.label}: ${name} in ${runs} of ${column.seeds.length} runs`);
    }
  }
  const warnings = counted(columns, (column) => column.warnings);
  return [...lines, ...warnings.map((line) => `WARNING ${line}; check before trusting this`)];
}

/** Texts with their counts, once when they came as often in every column, else by column. */
function counted(
  columns: readonly Column[],
  textsOf: (column: Column) => Readonly<Record<string, number>>,
): string[] {
  const texts = new Set(columns.flatMap((column) => Object.keys(textsOf(column))));
  return [...texts].flatMap((text) => {
    const counts = columns.map((column) => textsOf(column)[text] ?? 0);
    if (columns.length > 1 && counts.every((count) => count === counts[0])) {
      return `${text} (${formatCount(counts[0])} times in each column)`;
    }
    return columns.flatMap(({label}, i) =>
      counts[i] === 0 ? [] : `${label}: ${text} (${formatCount(counts[i])} times)`,
    );
  });
}

/** Configuration that all columns share, once; and per column what is its own. */
export function configuration(columns: readonly Column[]): {
  readonly common: readonly (readonly [string, string])[];
  readonly own: readonly string[];
} {
  const facts = columns.map(factsOf);
  const names = [...new Set(facts.flatMap((f) => [...f.keys()]))];
  const shared = names.filter((name) => facts.every((f) => f.get(name) === facts[0].get(name)));
  const common = shared.map((name) => [name, facts[0].get(name) ?? ''] as const);
  const own = facts.map((f) =>
    [...f]
      .filter(([name]) => !shared.includes(name))
      .map(([name, value]) => `${name}=${value}`)
      .join(' '),
  );
  return {common, own};
}

function factsOf(column: Column): Map<string, string> {
  const facts = new Map<string, string>([
    ['trace', `${column.trace.path} (${column.trace.hash})`],
    ['machine', `${column.machine.name}, ${column.machine.cpus} CPUs (${column.machine.hash})`],
    ['kernel', column.kernel],
  ]);
  for (const axis of Object.keys(column.design).sort()) facts.set(axis, column.design[axis]);
  facts.set('copies', String(column.copies));
  facts.set('seeds', seedsText(column.seeds));
  return facts;
}

/** `1-12` for a run of seeds, `1 4 9` otherwise. */
export function seedsText(seeds: readonly number[]): string {
  const consecutive = seeds.every((seed, i) => i === 0 || seed === seeds[i - 1] + 1);
  if (consecutive && seeds.length > 2) return `${seeds[0]}-${seeds[seeds.length - 1]}`;
  return seeds.join(' ');
}
