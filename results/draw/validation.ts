// Validation for people: per published result a table, a small plot where there is a curve, and the
// error that counts.

import type {ValidationPoint, ValidationResult, Validation} from '../validation.ts';
import {padEnd, padStart, widthOf} from './number.ts';
import {drawPlot} from './plot.ts';

export function drawValidation(validation: Validation): string {
  const blocks = validation.results.map(drawResult);
  blocks.push(summary(validation));
  return `${blocks.join('\n\n')}\n`;
}

function drawResult(result: ValidationResult): string {
  const lines = [`${result.name}: ${result.y}, ${comparisonText(result)}`, `  ${result.source}`];
  if (result.status === 'not-modelled') {
    return [...lines, '  not run: the model does not have this workload yet'].join('\n');
  }
  lines.push('', ...table(result).map((line) => `  ${line}`));
  const plots = plotsOf(result);
  if (plots.length > 0) lines.push('', ...plots.map((line) => `  ${line}`.trimEnd()));
  lines.push('', `  ${errorText(result)}`);
  return lines.join('\n');
}

function comparisonText({compare, ratio_to: to}: ValidationResult): string {
  if (compare === 'absolute') return 'absolute values';
  return to === 'first_x' ? 'as ratio to the first point' : `as ratio to "${to}"`;
}

function errorText(result: ValidationResult): string {
  const {predicted, median_abs_error: error, max_abs_error: most, bounds} = result;
  const texts: string[] = [];
  if (error !== undefined && most !== undefined) {
    const over = `over ${counted(predicted, 'predicted point')}`;
    texts.push(`median error ${percent(error)}, largest ${percent(most)}, ${over}`);
  }
  if (bounds.total > 0) texts.push(`${bounds.held} of ${counted(bounds.total, 'bound')} held`);
  return texts.length > 0 ? texts.join('; ') : 'no predicted point was simulated';
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function summary(validation: Validation): string {
  const {median_abs_error: error, predicted} = validation;
  if (error === undefined) return 'nothing was predicted';
  return `all results: median error ${percent(error)} over ${counted(predicted, 'predicted point')}`;
}

function table(result: ValidationResult): string[] {
  const head = ['series', result.x, 'published', 'simulated', 'error', ''];
  const rows = result.points.map((point) => [
    point.series,
    String(point.x),
    boundSign(point) + point.published.toFixed(3),
    point.simulated === undefined ? '-' : point.simulated.toFixed(3),
    point.error === undefined ? '' : signedPercent(point.error),
    point.kind,
  ]);
  const all = [head, ...rows];
  const widths = head.map((_, i) => Math.max(...all.map((row) => widthOf(row[i]))));
  return all.map((row) =>
    row
      .map((text, i) => (i === 0 || i === 5 ? padEnd(text, widths[i]) : padStart(text, widths[i])))
      .join('  ')
      .trimEnd(),
  );
}

function boundSign(point: ValidationPoint): string {
  if (point.bound === 'at_most') return '<= ';
  return point.bound === 'at_least' ? '>= ' : '';
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

function signedPercent(share: number): string {
  return `${share < 0 ? '' : '+'}${percent(share)}`;
}

/** One plot per series with three points or more. */
function plotsOf(result: ValidationResult): string[] {
  const names = [...new Set(result.points.map((point) => point.series))];
  const plots = names.flatMap((name): string[][] => {
    const points = result.points.filter((point) => point.series === name);
    if (points.length < 3) return [];
    const published = points.map((p): [number, number] => [p.x, p.published]);
    const simulated = points.flatMap((p): [number, number][] =>
      p.simulated === undefined ? [] : [[p.x, p.simulated]],
    );
    const title = `${name}: o published, + simulated, * both`;
    return [[title, ...drawPlot([published, simulated], ['o', '+'], '*')]];
  });
  return plots.flatMap((plot, i) => (i === 0 ? plot : ['', ...plot]));
}
