// Output in the shape of Go's benchstat: configuration once, one table per unit, median ± range of
// its interval, change against the first column, superscript footnotes, geomean last. Where
// benchstat uses Mann-Whitney's U on two unpaired sets, the p here is our paired signed-rank test
// after Holm's correction; the footnote says so.

import type {Cell, Comparison, Row} from '../comparison.ts';
import type {Unit} from '../metrics.ts';
import {geometricMean} from '../stats.ts';
import {alarms, configuration, rowsToDraw} from './cell.ts';
import {csvField} from './csv.ts';
import {padEnd, padStart, widthOf} from './number.ts';
import type {DrawOptions} from './options.ts';

const UNIT_NAMES: Readonly<Record<Unit, string>> = {
  ns: 'sec',
  'ops/s': 'ops/s',
  count: 'count',
  share: '%',
};

const UNIT_ORDER: readonly Unit[] = ['ops/s', 'ns', 'share', 'count'];

/** Footnotes in the order of their first mark. */
class Notes {
  readonly #texts: string[] = [];

  mark(text: string): string {
    let index = this.#texts.indexOf(text);
    if (index < 0) index = this.#texts.push(text) - 1;
    return superscript(index + 1);
  }

  get lines(): string[] {
    return this.#texts.map((text, i) => `${superscript(i + 1)} ${text}`);
  }
}

export function drawBenchstat(comparison: Comparison, options: DrawOptions = {}): string {
  const notes = new Notes();
  const {common} = configuration(comparison.columns);
  const tables = groupByUnit(comparison, options.all ?? false);
  const blocks = [
    common.map(([name, value]) => `${name}: ${value}`).join('\n'),
    alarms(comparison.columns).join('\n'),
    ...tables.map(({unit, rows}) => drawUnit(comparison, unit, rows, notes)),
    notes.lines.join('\n'),
  ];
  return `${blocks.filter((block) => block !== '').join('\n\n')}\n`;
}

function groupByUnit(comparison: Comparison, all: boolean): {unit: Unit; rows: readonly Row[]}[] {
  const rows = comparison.tables.flatMap((table) => rowsToDraw(table, all));
  return UNIT_ORDER.map((unit) => ({unit, rows: rows.filter((r) => r.unit === unit)})).filter(
    (group) => group.rows.length > 0,
  );
}

function drawUnit(comparison: Comparison, unit: Unit, rows: readonly Row[], notes: Notes): string {
  const geomean = geomeanCells(rows, comparison);
  const names = [...rows.map((row) => row.metric), ...(geomean ? ['geomean'] : [])];
  const bodies = rows.map((row) =>
    row.cells.map((cell) => cellParts(cell, unit, notes, comparison)),
  );
  if (geomean)
    bodies.push(geomean.map((parts) => ({...parts, value: si(Number(parts.value), unit)})));
  const lead = Math.max(...names.map(widthOf));
  const columns = comparison.columns.map((column, i) => {
    const parts = bodies.map((body) => body[i]);
    return layoutColumn(column.label, UNIT_NAMES[unit], i === 0, parts);
  });
  const body = names.map((name, row) => {
    const cells = columns.map((column) => column.lines[row]);
    return `${padEnd(name, lead)}   ${cells.join('   ')}`.trimEnd();
  });
  const head = [0, 1].map(
    (line) => `${' '.repeat(lead)} │ ${columns.map((c) => c.head[line]).join(' │ ')} │`,
  );
  return [...head, ...body].join('\n');
}

interface Parts {
  readonly value: string;
  /** `± 2%`, `± ∞ ¹`; empty for the geomean. */
  readonly range: string;
  /** `-17.20%`, `~`, `=`, `x`. */
  readonly delta: string;
  /** `(p=0.002 n=12)`. */
  readonly evidence: string;
}

function layoutColumn(
  label: string,
  unit: string,
  isBaseline: boolean,
  parts: readonly Parts[],
): {head: [string, string]; lines: string[]} {
  const width = (of: (part: Parts) => string): number =>
    Math.max(...parts.map((part) => widthOf(of(part))));
  const [value, range, delta, evidence] = [
    width((p) => p.value),
    width((p) => p.range),
    width((p) => p.delta),
    width((p) => p.evidence),
  ];
  const lines = parts.map((part) => {
    const left = `${padStart(part.value, value)} ${padEnd(part.range, range)}`;
    if (isBaseline) return left;
    return `${left}  ${padStart(part.delta, delta)} ${padEnd(part.evidence, evidence)}`;
  });
  const left = value + 1 + range;
  const second = isBaseline
    ? centre(unit, left)
    : `${centre(unit, left)}  ${padEnd('vs base', delta + 1 + evidence)}`;
  const full = Math.max(widthOf(second), widthOf(label), ...lines.map(widthOf));
  return {
    head: [centre(label, full), padEnd(second, full)],
    lines: lines.map((line) => padEnd(line, full)),
  };
}

function cellParts(cell: Cell, unit: Unit, notes: Notes, comparison: Comparison): Parts {
  const value = cell.median === undefined ? '-' : si(cell.median, unit);
  return {value, range: rangeText(cell, notes, comparison), ...deltaParts(cell, notes)};
}

function rangeText(cell: Cell, notes: Notes, comparison: Comparison): string {
  if (cell.median === undefined) return '';
  const percent = relativeRange(cell);
  if (percent !== undefined) return `± ${percent}%`;
  const level = `at level ${comparison.confidence}`;
  return `± ∞ ${notes.mark(`need >= 6 samples for confidence interval ${level}`)}`;
}

/**
 * The larger side of the interval, in whole percent of the median; undefined without an interval.
 */
function relativeRange(cell: Cell): number | undefined {
  const {median, interval} = cell;
  if (median === undefined || interval === undefined) return undefined;
  if (median === 0) return 0;
  const side = Math.max(interval.hi - median, median - interval.lo) / Math.abs(median);
  return Math.round(side * 100);
}

function deltaParts(cell: Cell, notes: Notes): {delta: string; evidence: string} {
  const {verdict, basis, ratio, difference, n, p_holm: p} = cell.change;
  if (verdict === 'baseline') return {delta: '', evidence: ''};
  if (verdict === 'missing') return {delta: '-', evidence: ''};
  if (verdict === 'incomparable') {
    return {delta: 'x', evidence: notes.mark('another trace or machine, or no seed in common')};
  }
  if (verdict === 'equal') return {delta: '=', evidence: notes.mark('equal under every seed')};
  const size = ratio === undefined ? `${sign(difference ?? 0)}${difference}` : percentText(ratio);
  if (basis === 'exact') {
    const note = 'one value under every seed on each side: exact, no test';
    return {delta: size, evidence: `(exact n=${n}) ${notes.mark(note)}`};
  }
  if (p === undefined) return {delta: '~', evidence: `(exact n=${n})`};
  if (verdict === 'untested') {
    const note = 'too few seeds for the paired test to detect a difference in a table of this size';
    return {delta: '~', evidence: `(n=${n}) ${notes.mark(note)}`};
  }
  const note = notes.mark('p: paired signed-rank test by seed, Holm-corrected over the table');
  return {delta: verdict === 'noise' ? '~' : size, evidence: `(p=${p.toFixed(3)} n=${n}) ${note}`};
}

function percentText(ratio: number): string {
  const percent = (ratio - 1) * 100;
  return `${sign(percent)}${percent.toFixed(2)}%`;
}

function sign(value: number): string {
  return value < 0 ? '' : '+';
}

/**
 * Geomean over the rows that are above zero everywhere; undefined when there are fewer than two.
 */
function geomeanCells(rows: readonly Row[], comparison: Comparison): Parts[] | undefined {
  const usable = rows.filter((row) => row.cells.every((cell) => (cell.median ?? 0) > 0));
  if (usable.length < 2) return undefined;
  return comparison.columns.map((column, i) => {
    const value = geometricMean(usable.map((row) => row.cells[i].median ?? 0)) ?? 0;
    const parts = {value: String(value), range: '', evidence: ''};
    if (i === 0) return {...parts, delta: ''};
    if (column.incomparable !== undefined) return {...parts, delta: 'x'};
    const ratio = geometricMean(usable.map((row) => row.cells[i].change.ratio ?? 0));
    return {...parts, delta: ratio === undefined ? '-' : percentText(ratio)};
  });
}

/** Four digits with an SI prefix, in base units: seconds for times, percent for shares. */
function si(value: number, unit: Unit): string {
  const base = inBaseUnit(value, unit);
  if (unit === 'share') return base.toPrecision(4);
  if (unit === 'count' && Number.isInteger(base) && Math.abs(base) < 10_000) return String(base);
  const prefixes: readonly (readonly [number, string])[] = [
    [1e12, 'T'],
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
    [1, ''],
    [1e-3, 'm'],
    [1e-6, 'µ'],
    [1e-9, 'n'],
  ];
  if (base === 0) return '0.000';
  for (const [scale, prefix] of prefixes) {
    if (Math.abs(base) >= scale || scale === 1e-9) return `${fourDigits(base / scale)}${prefix}`;
  }
  return String(base);
}

function fourDigits(value: number): string {
  const whole = Math.floor(Math.abs(value)).toString().length;
  return value.toFixed(Math.max(0, 4 - whole));
}

function inBaseUnit(value: number, unit: Unit): number {
  if (unit === 'ns') return value / 1e9;
  return unit === 'share' ? value * 100 : value;
}

function centre(text: string, width: number): string {
  return padEnd(' '.repeat(Math.floor(Math.max(0, width - widthOf(text)) / 2)) + text, width);
}

function superscript(number: number): string {
  return [...String(number)].map((digit) => '⁰¹²³⁴⁵⁶⁷⁸⁹'[Number(digit)]).join('');
}

/** The CSV twin: base units, `,sec,CI,sec,CI,vs base,P`. */
export function drawBenchstatCsv(comparison: Comparison, options: DrawOptions = {}): string {
  const {common} = configuration(comparison.columns);
  const lines = common.map(([name, value]) => csvField(`${name}: ${value}`));
  const labels = comparison.columns.map((column) => column.label);
  for (const {unit, rows} of groupByUnit(comparison, options.all ?? false)) {
    const name = UNIT_NAMES[unit];
    const others = labels.slice(1);
    lines.push(
      '',
      ['', labels[0], '', ...others.flatMap((l) => [l, '', '', ''])].map(csvField).join(),
    );
    lines.push(['', name, 'CI', ...others.flatMap(() => [name, 'CI', 'vs base', 'P'])].join());
    for (const row of rows) {
      const fields = [row.metric, ...row.cells.flatMap((cell, i) => csvCells(cell, unit, i === 0))];
      lines.push(fields.map(csvField).join());
    }
  }
  return `${lines.join('\n')}\n`;
}

function csvCells(cell: Cell, unit: Unit, isBaseline: boolean): (string | number | undefined)[] {
  const percent = relativeRange(cell);
  const value = cell.median === undefined ? undefined : inBaseUnit(cell.median, unit);
  const fields = [value, percent === undefined ? '∞' : `${percent}%`];
  if (isBaseline) return fields;
  const {delta} = deltaParts(cell, new Notes());
  const {p_holm: p, n, verdict} = cell.change;
  const tested = p !== undefined && verdict !== 'untested';
  return [...fields, delta, tested ? `p=${p.toFixed(3)} n=${n}` : `n=${n}`];
}
