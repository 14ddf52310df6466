// Tables for a pull request or a mail that renders Markdown: the same cells as the terminal table.

import type {Comparison, Table} from '../comparison.ts';
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

export function drawMarkdown(comparison: Comparison, options: DrawOptions = {}): string {
  const {common, own} = configuration(comparison.columns);
  const blocks = [
    common.map(([name, value]) => `- ${name}: ${escaped(value)}`).join('\n'),
    comparison.columns.map((c, i) => `- **${escaped(c.label)}**: ${escaped(own[i])}`).join('\n'),
    alarms(comparison.columns)
      .map((line) => `> **${escaped(line)}**`)
      .join('\n'),
    ...comparison.tables.map((table) => drawOne(table, comparison, options.all ?? false)),
    footnotes(comparison)
      .map((line) => `- ${escaped(line)}`)
      .join('\n'),
  ];
  return `${blocks.filter((block) => block !== '').join('\n\n')}\n`;
}

function drawOne(table: Table, comparison: Comparison, all: boolean): string {
  const rows = rowsToDraw(table, all);
  if (rows.length === 0) return '';
  const [baseline, ...others] = comparison.columns;
  const interval = `${comparison.confidence * 100} % CI`;
  const head = [
    table.name,
    baseline.label,
    ...others.flatMap((column) => [column.label, 'change', interval, 'p']),
  ];
  const lines = [line(head), `|:---|---:|${'---:|:---|---:|---:|'.repeat(others.length)}`];
  for (const row of rows) {
    const [first, ...cells] = row.cells;
    const fields = [row.metric, valueText(first.median, row.unit)];
    for (const {median, change} of cells) {
      const p = change.verdict === 'untested' ? undefined : change.p_holm;
      fields.push(valueText(median, row.unit), changeText(change, row.unit));
      fields.push(intervalText(change), p === undefined ? '' : formatP(p));
    }
    lines.push(line(fields));
  }
  for (const {name, rows: count, ratios} of table.geomeans) {
    const fields = [`geomean ${name} (${count} rows)`, ''];
    for (const ratio of ratios.slice(1)) {
      fields.push('', ratio === null ? 'x' : formatChange(ratio), '', '');
    }
    lines.push(line(fields));
  }
  return lines.join('\n');
}

function line(fields: readonly string[]): string {
  return `| ${fields.map(escaped).join(' | ')} |`;
}

/** Only what would break a table cell or turn into emphasis. */
function escaped(text: string): string {
  return text.replace(/[|*~_]/g, (mark) => `\\${mark}`);
}
