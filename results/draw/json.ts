// The comparison itself: samples in seed order, digests, hashes, every statistic. Schema
// mmreplay.compare/1.

import type {Comparison} from '../comparison.ts';

export function drawJson(comparison: Comparison): string {
  return `${JSON.stringify(comparison, null, 2)}\n`;
}
