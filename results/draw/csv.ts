// One line per metric and design, every computed number in full precision: for spreadsheets and
// scripts.

import type {Cell, Comparison} from '../comparison.ts';

const HEADER = [
  'table',
  'metric',
  'unit',
  'better',
  'design',
  'samples',
  'median',
  'median_lo',
  'median_hi',
  'pairs',
  'ratio',
  'ratio_lo',
  'ratio_hi',
  'difference',
  'p',
  'p_holm',
  'p_sign',
  'verdict',
  'basis',
];

export function drawCsv(comparison: Comparison): string {
  const lines = [HEADER.join(',')];
  for (const table of comparison.tables) {
    for (const row of table.rows) {
      row.cells.forEach((cell, i) => {
        const lead = [table.name, row.metric, row.unit, row.better, comparison.columns[i].label];
        lines.push([...lead, ...cellFields(cell)].map(csvField).join(','));
      });
    }
  }
  return `${lines.join('\n')}\n`;
}

function cellFields(cell: Cell): (string | number | undefined)[] {
  const {change} = cell;
  return [
    cell.values.filter((value) => value !== null).length,
    cell.median,
    cell.interval?.lo,
    cell.interval?.hi,
    change.n,
    change.ratio,
    change.interval?.lo,
    change.interval?.hi,
    change.difference,
    change.p,
    change.p_holm,
    change.p_sign,
    change.verdict,
    change.basis,
  ];
}

/** Quotes a field when it must be (RFC 4180); an absent number is an empty field. */
export function csvField(value: string | number | undefined): string {
  if (value === undefined) return '';
  const text = String(value);
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}
