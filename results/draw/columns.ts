// A table of text without borders.

import {padEnd, padStart, widthOf} from './number.ts';

/** First column left, the others right; a rule under the header. */
export function align(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => widthOf(row[i]))));
  const lines = rows.map((row) =>
    row
      .map((text, i) => (i === 0 ? padEnd(text, widths[i]) : padStart(text, widths[i])))
      .join('  ')
      .trimEnd(),
  );
  const rule = '-'.repeat(widths.reduce((sum, width) => sum + width + 2, -2));
  return [lines[0], rule, ...lines.slice(1)].join('\n');
}
