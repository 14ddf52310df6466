// The report of mmtests' compare-kernels.sh, cell for cell: `%12.2f (%7.2f%%)`, stars instead of
// the parentheses where the difference is significant, two header lines when labels have a dash,
// then Duration and Ops tables. Differences from mmtests: stars are our paired test by seed
// (mmtests compares the gap of two means with 1.96 sigma), and a column of another trace or machine
// shows `x`.

import type {Comparison, Table} from '../comparison.ts';
import {type MmtestsCell, type MmtestsRow, mmtestsRows} from '../mmtests_rows.ts';
import {alarms, configuration} from './cell.ts';
import {padEnd, padStart, widthOf} from './number.ts';
import type {DrawOptions} from './options.ts';

const FIELD_LENGTH = 12;
const CELL_LENGTH = 23;

export function drawMmtests(comparison: Comparison, options: DrawOptions = {}): string {
  const {common} = configuration(comparison.columns);
  const blocks = [
    common.map(([name, value]) => `# ${name}: ${value}`).join('\n'),
    alarms(comparison.columns).join('\n'),
    drawStatistics(comparison, mmtestsRows(comparison, true)),
    drawStatistics(comparison, mmtestsRows(comparison, false)),
    drawPlain(comparison, durations(comparison)),
    drawPlain(comparison, counters(comparison, options.all ?? false)),
  ];
  return `${blocks.filter((block) => block !== '').join('\n\n')}\n`;
}

function drawStatistics(comparison: Comparison, rows: readonly MmtestsRow[]): string {
  if (rows.length === 0) return '';
  const names = Math.max(9, ...rows.map((row) => widthOf(row.statistic)));
  const operations = Math.max(...rows.map((row) => widthOf(row.operation)));
  const lead = names + 1 + operations;
  const lines = rows.map((row) => {
    const name = `${padEnd(row.statistic, names)} ${padEnd(row.operation, operations)}`;
    return name + row.cells.map(statisticCell).join('');
  });
  return [...header(comparison, lead, CELL_LENGTH), ...lines].join('\n');
}

function statisticCell(cell: MmtestsCell | undefined): string {
  if (cell === undefined) return padStart('-', FIELD_LENGTH) + ' '.repeat(11);
  const value = padStart(cell.value.toFixed(2), FIELD_LENGTH);
  if (cell.percent === undefined) return `${value} (${padStart('x', 8)})`;
  const percent = `${padStart(noMinusZero(cell.percent), 7)}%`;
  return cell.star ? `${value} *${percent}*` : `${value} (${percent})`;
}

function noMinusZero(value: number): string {
  const text = value.toFixed(2);
  return text === '-0.00' ? '0.00' : text;
}

/**
 * Text before the first dash on the first line, the rest on the second; `-rcN` stays with the
 * version.
 */
export function splitLabel(label: string): [string, string] {
  const match = /^([^-]*(?:-rc\d+)?)(?:-(.*))?$/.exec(label);
  return match ? [match[1], match[2] ?? ''] : [label, ''];
}

function header(comparison: Comparison, lead: number, width: number): string[] {
  const parts = comparison.columns.map((column) => splitLabel(column.label));
  const line = (index: 0 | 1): string =>
    (' '.repeat(lead) + parts.map((part) => padStart(part[index], width)).join('')).trimEnd();
  return parts.some((part) => part[1] !== '') ? [line(0), line(1)] : [line(0)];
}

interface PlainRow {
  readonly name: string;
  readonly values: readonly (number | undefined)[];
}

/** Tables that mmtests prints without a comparison. */
function drawPlain(comparison: Comparison, rows: readonly PlainRow[]): string {
  if (rows.length === 0) return '';
  const lead = Math.max(...rows.map((row) => widthOf(row.name)));
  const label = Math.max(
    ...comparison.columns.flatMap((column) => splitLabel(column.label).map(widthOf)),
  );
  const width = Math.max(FIELD_LENGTH, label + 1, ...rows.flatMap((row) => row.values.map(wide)));
  const lines = rows.map((row) => {
    const cells = row.values.map((v) => padStart(v === undefined ? '-' : v.toFixed(2), width));
    return padEnd(row.name, lead) + cells.join('');
  });
  return [...header(comparison, lead, width), ...lines].join('\n');
}

function wide(value: number | undefined): number {
  return value === undefined ? 2 : value.toFixed(2).length + 1;
}

function medians(table: Table | undefined, metric: string): readonly (number | undefined)[] {
  return table?.rows.find((row) => row.metric === metric)?.cells.map((cell) => cell.median) ?? [];
}

/** CPU seconds in user and system mode, and elapsed seconds, all simulated. */
function durations(comparison: Comparison): PlainRow[] {
  const mechanism = comparison.tables.find((table) => table.name === 'mechanism');
  const headline = comparison.tables.find((table) => table.name === 'headline');
  const idle = medians(mechanism, 'cpu.idle');
  const user = medians(mechanism, 'cpu.user');
  const elapsedNs = medians(headline, 'simulated_ns');
  if (idle.length === 0 || elapsedNs.length === 0) return [];
  const seconds = (share: (column: number) => number): number[] =>
    comparison.columns.map(
      (column, i) => ((elapsedNs[i] ?? 0) / 1e9) * column.machine.cpus * share(i),
    );
  return [
    {name: 'Duration User', values: seconds((i) => user[i] ?? 0)},
    {name: 'Duration System', values: seconds((i) => 1 - (idle[i] ?? 0) - (user[i] ?? 0))},
    {name: 'Duration Elapsed', values: elapsedNs.map((ns) => (ns === undefined ? ns : ns / 1e9))},
  ];
}

/**
 * Where mm people look for the mechanism. Shares come out in percent. Rows of zeros are left out.
 */
function counters(comparison: Comparison, all: boolean): PlainRow[] {
  const table = comparison.tables.find((candidate) => candidate.name === 'mechanism');
  const rows = (table?.rows ?? []).map((row) => {
    const scale = row.unit === 'share' ? 100 : 1;
    const name = `Ops ${row.metric}${row.unit === 'share' ? '%' : ''}`;
    const values = row.cells.map((c) => (c.median === undefined ? undefined : c.median * scale));
    return {name, values};
  });
  return all ? rows : rows.filter((row) => row.values.some((value) => (value ?? 0) !== 0));
}
