// The default output of `compare`: what all columns share, alarms, headline table, mechanism table,
// footnotes.

import Table from 'cli-table3';
import pc from 'picocolors';
import type {Change, Comparison, Row, Table as Data} from '../comparison.ts';
import {
  alarms,
  changeText,
  configuration,
  footnotes,
  intervalText,
  rowsToDraw,
  valueText,
} from './cell.ts';
import {formatChange, formatP} from './number.ts';
import type {DrawOptions} from './options.ts';

type Colors = ReturnType<typeof pc.createColors>;

/** No box: a rule under the header, two spaces between columns, as perf and mmtests print. */
const CHARS = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
};

export function drawTable(comparison: Comparison, options: DrawOptions = {}): string {
  const colors = pc.createColors(options.color ?? false);
  const {common, own} = configuration(comparison.columns);
  const blocks = [
    common.map(([name, value]) => `${name}: ${value}`).join('\n'),
    comparison.columns.map((column, i) => `${column.label}: ${own[i] || '(as above)'}`).join('\n'),
    alarms(comparison.columns).map(colors.red).join('\n'),
    ...comparison.tables.map((table) => drawOne(table, comparison, colors, options)),
    footnotes(comparison).join('\n'),
  ];
  return `${blocks.filter((block) => block !== '').join('\n\n')}\n`;
}

function drawOne(data: Data, comparison: Comparison, colors: Colors, options: DrawOptions): string {
  const rows = rowsToDraw(data, options.all ?? false);
  const hidden = data.rows.length - rows.length;
  const hiddenLine = `${hidden} rows without a difference left out; --all prints them`;
  if (rows.length === 0) return `${data.name}: ${hiddenLine}`;
  const table = new Table({
    chars: CHARS,
    style: {'padding-left': 0, 'padding-right': 0, head: [], border: [], compact: true},
    head: [data.name, ...headers(comparison)],
    colAligns: ['left', ...headers(comparison).map((_, i) => (i % 4 === 2 ? 'left' : 'right'))] as (
      | 'left'
      | 'right'
    )[],
  });
  for (const row of rows) table.push([row.metric, ...cellsOf(row, colors)]);
  for (const line of geomeanLines(data, comparison)) table.push(line);
  const text = table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd());
  const plain = [text[0], '-'.repeat(ruleWidth(text)), ...text.slice(1)];
  if (hidden > 0) plain.push(hiddenLine);
  return plain.join('\n');
}

function ruleWidth(lines: readonly string[]): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colour escapes start with ESC
  const escapes = /\u001b\[\d+m/g;
  return Math.max(...lines.map((line) => [...line.replace(escapes, '')].length));
}

/** Baseline: its value. Every other column: value, change, interval, p. */
function headers(comparison: Comparison): string[] {
  const [baseline, ...others] = comparison.columns;
  const interval = `${comparison.confidence * 100} % CI`;
  return [baseline.label, ...others.flatMap((column) => [column.label, 'change', interval, 'p'])];
}

function cellsOf(row: Row, colors: Colors): string[] {
  const [baseline, ...others] = row.cells;
  const cells = [valueText(baseline.median, row.unit)];
  for (const cell of others) {
    const paint = painter(cell.change, colors);
    cells.push(
      valueText(cell.median, row.unit),
      paint(changeText(cell.change, row.unit)),
      intervalText(cell.change),
      pText(cell.change),
    );
  }
  return cells;
}

/** No p where the table is too small for one to mean anything. */
function pText(change: Change): string {
  if (change.p_holm === undefined || change.verdict === 'untested') return '';
  return formatP(change.p_holm);
}

function painter(change: Change, colors: Colors): (text: string) => string {
  if (change.verdict === 'better') return colors.green;
  if (change.verdict === 'worse') return colors.red;
  if (change.verdict === 'incomparable') return colors.yellow;
  return (text) => text;
}

function geomeanLines(data: Data, comparison: Comparison): string[][] {
  return data.geomeans.map((geomean) => {
    const line = [`geomean ${geomean.name} (${geomean.rows} rows)`, ''];
    for (let i = 1; i < comparison.columns.length; i++) {
      const ratio = geomean.ratios[i];
      line.push('', ratio === null ? 'x' : formatChange(ratio), '', '');
    }
    return line;
  });
}
