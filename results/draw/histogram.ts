// A latency histogram by powers of two, in the shape of bpftrace's hist(): range, count, bar.

import type {LatencyRecorder} from '../latency.ts';
import {padEnd, padStart} from './number.ts';

const BAR_WIDTH = 52;

/** Several lines, each ending in a newline; "no samples" when nothing was recorded. */
export function drawHistogram(recorder: LatencyRecorder): string {
  if (recorder.count === 0) return 'no samples\n';
  const counts = recorder.log2Counts();
  const most = Math.max(...counts.map((bucket) => bucket.count));
  const lines = counts.map((bucket) => {
    const range = `[${edge(bucket.fromNs)}, ${edge(bucket.toNs)})`;
    const bar = '@'.repeat(Math.ceil((bucket.count / most) * BAR_WIDTH));
    return `${padEnd(range, 20)} ${padStart(String(bucket.count), 10)} |${padEnd(bar, BAR_WIDTH)}|`;
  });
  return `@ns:\n${lines.join('\n')}\n`;
}

/** 512, 1K, 2M: powers of 1024 as bpftrace prints them; fractions of a ns stay fractions. */
function edge(valueNs: number): string {
  if (valueNs < 1024 || !Number.isInteger(valueNs)) {
    return Number.isInteger(valueNs) ? String(valueNs) : String(Number(valueNs.toPrecision(6)));
  }
  const units = ['', 'K', 'M', 'G', 'T', 'P'];
  let unit = 0;
  let scaled = valueNs;
  while (scaled >= 1024 && scaled % 1024 === 0 && unit < units.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${scaled}${units[unit]}`;
}
