// The report of the kernel test robot (LKP): value, %stddev, %change, value, and the metric name
// last, so that names may have any length. Only rows that changed; one block per design against the
// baseline; failures in their own table. Differences from LKP: a row is printed when our paired
// test (or an exact difference) says so, not by its range rule.

import type {Cell, Column, Comparison, Row} from '../comparison.ts';
import {mean, standardDeviation} from '../stats.ts';
import {configuration} from './cell.ts';
import {padEnd, padStart} from './number.ts';
import type {DrawOptions} from './options.ts';

const ABS_WIDTH = 10;
const REL_WIDTH = 10;
const ERR_WIDTH = 6;
/** LKP prints a standard deviation only above this many percent. */
const ERR_LIMIT = 2;
const RULE = '='.repeat(105);

export function drawLkp(comparison: Comparison, options: DrawOptions = {}): string {
  const blocks = comparison.columns
    .slice(1)
    .map((_, i) => drawBlock(comparison, i + 1, options.all ?? false));
  return `${blocks.join('\n\n')}\n`;
}

function drawBlock(comparison: Comparison, index: number, all: boolean): string {
  const [baseline] = comparison.columns;
  const column = comparison.columns[index];
  const {common, own} = configuration([baseline, column]);
  const lines = [
    ...noticed(comparison, index),
    RULE,
    `${common.map(([name]) => name).join('/')}:`,
    `  ${common.map(([, value]) => value).join('/')}`,
    '',
    'commit:',
    `  ${baseline.label} ("${own[0]}")`,
    `  ${column.label} ("${own[1]}")`,
    '',
    `${padEnd(baseline.label.slice(0, 16), 16)} ${column.label}`,
    `${'-'.repeat(16)} ${'-'.repeat(27)}`,
  ];
  if (column.incomparable !== undefined) {
    return [...lines, `x not comparable: ${column.incomparable}`].join('\n');
  }
  lines.push(...failures(baseline, column));
  lines.push(
    '         %stddev     %change         %stddev',
    '             \\          |                \\',
  );
  for (const table of comparison.tables) {
    for (const row of table.rows)
      if (all || isChanged(row.cells[index])) lines.push(rowLine(row, index));
  }
  return [...lines, ...notes(comparison, index)].join('\n');
}

/** What the rows above rest on: a test, an exact difference, or nothing yet. */
function notes(comparison: Comparison, index: number): string[] {
  const changes = comparison.tables.flatMap((t) => t.rows.map((row) => row.cells[index].change));
  const texts: string[] = [];
  if (changes.some((change) => change.basis !== undefined)) {
    const test = `paired signed-rank test by seed, Holm-corrected, p <= ${comparison.alpha}`;
    texts.push(`rows: ${test}; or one value under every seed on each side`);
  }
  if (changes.some((change) => change.verdict === 'untested')) {
    const seeds = comparison.columns[index].seeds.length;
    texts.push(
      `${seeds} seeds are too few for that test: rows that vary with the seed are untested`,
    );
  }
  return texts.length > 0 ? ['', ...texts] : [];
}

function isChanged(cell: Cell): boolean {
  return ['better', 'worse', 'changed', 'untested'].includes(cell.change.verdict);
}

/** The sentence that mm developers quote; only for a significant headline change. */
function noticed(comparison: Comparison, index: number): string[] {
  const headline = comparison.tables.find((table) => table.name === 'headline');
  const row = headline?.rows.find((candidate) => {
    const {verdict, basis} = candidate.cells[index].change;
    return (verdict === 'better' || verdict === 'worse') && basis === 'test';
  });
  if (row === undefined) return [];
  const [a, b] = [meanOf(row.cells[0]), meanOf(row.cells[index])];
  if (a === undefined || b === undefined || a === 0) return [];
  const size = Math.abs((b / a - 1) * 100).toFixed(1);
  const word = row.cells[index].change.verdict === 'better' ? 'improvement' : 'regression';
  return [`mmreplay noticed a ${size}% ${word} of ${row.metric} on:`, ''];
}

function failures(baseline: Column, column: Column): string[] {
  const names = [...new Set([...Object.keys(baseline.failures), ...Object.keys(column.failures)])];
  if (names.length === 0) return [];
  const lines = names.sort().map((name) => {
    const [a, b] = [baseline, column].map((c) => (c.failures[name] ?? 0) / c.seeds.length);
    const change = `${Math.round((b - a) * 100)}%`;
    const left = padEnd(runs(baseline, name), 16);
    return `${left}${padStart(change, 11)} ${padEnd(runs(column, name), 18)}checks.${name}`;
  });
  return [
    '       fail:runs  %reproduction    fail:runs',
    '           |             |             |',
    ...lines,
  ];
}

/**
 * `          4:6`: failures right-aligned before the colon; nothing before it when there were none.
 */
function runs(column: Column, name: string): string {
  const failed = column.failures[name] ?? 0;
  return `${padStart(failed === 0 ? '' : String(failed), 11)}:${column.seeds.length}`;
}

function rowLine(row: Row, index: number): string {
  const isShare = row.unit === 'share';
  const a = meanOf(row.cells[0]);
  const b = meanOf(row.cells[index]);
  let change = padStart('', REL_WIDTH + 1);
  if (a !== undefined && b !== undefined) {
    if (isShare) change = `${padStart(signed((b - a) * 100), REL_WIDTH)} `;
    else if (a !== 0) change = `${padStart(signed((b / a - 1) * 100), REL_WIDTH)}%`;
    else change = `${padStart(b === 0 ? '+0.0' : 'inf', REL_WIDTH)} `;
  }
  const name = isShare ? `${row.metric}%` : row.metric;
  const left = valueAndError(row.cells[0], a, isShare);
  const right = valueAndError(row.cells[index], b, isShare);
  return `${left}${change} ${right}  ${name}`;
}

function signed(value: number): string {
  return `${value < 0 ? '' : '+'}${value.toFixed(1)}`;
}

function meanOf(cell: Cell): number | undefined {
  const present = cell.values.filter((value): value is number => value !== null);
  return present.length === 0 ? undefined : mean(present);
}

function valueAndError(cell: Cell, centre: number | undefined, isShare: boolean): string {
  if (centre === undefined) return padStart('-', ABS_WIDTH) + ' '.repeat(ERR_WIDTH);
  const present = cell.values.filter((value): value is number => value !== null);
  const percent = centre === 0 ? 0 : (standardDeviation(present) * 100) / Math.abs(centre);
  const error = percent > ERR_LIMIT ? ` ± ${padStart(String(Math.round(percent)), 2)}%` : '';
  return padStart(lkpNumber(isShare ? centre * 100 : centre), ABS_WIDTH) + padEnd(error, ERR_WIDTH);
}

/** Two decimals below 1000, an integer to 1e8, four significant digits in exponent form above. */
export function lkpNumber(value: number): string {
  const size = Math.abs(value);
  if (size < 1000) return value.toFixed(2);
  if (size < 1e8) return value.toFixed(0);
  return value.toExponential(3).replace(/e\+(\d)$/, 'e+0$1');
}
