// Wilcoxon's signed-rank test for paired samples: do the differences lean to one side of zero?
//
// Zero differences are dropped (Wilcoxon's own rule), ties share their mean rank. Up to EXACT_MAX
// pairs the null distribution is counted exactly, ties included: every assignment of signs to the
// actual ranks is equally likely, and doubled ranks are integers, so a table over rank sums counts
// all 2^n of them in n * n^2 steps. Above that, the normal approximation with tie and continuity
// correction.

import {normalUpperTail} from './normal.ts';

/** Most non-zero differences for which the p-value is exact. */
export const EXACT_MAX = 50;

export interface TestResult {
  /** Two-sided p-value; 1 when there is nothing to test. */
  readonly p: number;
  /** Pairs that took part (non-zero differences). */
  readonly n: number;
  readonly exact: boolean;
  /** Sum of the ranks of the positive differences. */
  readonly statistic: number;
}

/** Two-sided Wilcoxon signed-rank test of "the differences are symmetric about 0". */
export function signedRankTest(differences: readonly number[]): TestResult {
  const nonZero = differences.filter((d) => d !== 0);
  const n = nonZero.length;
  if (n === 0) return {p: 1, n, exact: true, statistic: 0};
  const doubled = doubledRanks(nonZero.map(Math.abs));
  let plus = 0;
  for (let i = 0; i < n; i++) if (nonZero[i] > 0) plus += doubled[i];
  const p = n <= EXACT_MAX ? exactP(doubled, plus) : normalP(doubled, plus);
  return {p, n, exact: n <= EXACT_MAX, statistic: plus / 2};
}

/** Twice the mid-rank of each value, so that shared ranks stay integers. */
function doubledRanks(values: readonly number[]): number[] {
  const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]);
  const ranks = new Array<number>(values.length).fill(0);
  for (let start = 0; start < order.length; ) {
    let end = start;
    while (end + 1 < order.length && values[order[end + 1]] === values[order[start]]) end++;
    for (let i = start; i <= end; i++) ranks[order[i]] = start + end + 2;
    start = end + 1;
  }
  return ranks;
}

function exactP(doubled: readonly number[], plus: number): number {
  const total = doubled.reduce((sum, r) => sum + r, 0);
  // probability[s] = chance that the positive ranks sum to s when every sign is a fair coin.
  let probability = new Float64Array(total + 1);
  probability[0] = 1;
  for (const rank of doubled) {
    const next = new Float64Array(total + 1);
    for (let s = 0; s <= total; s++) {
      if (probability[s] === 0) continue;
      next[s] += probability[s] / 2;
      next[s + rank] += probability[s] / 2;
    }
    probability = next;
  }
  const smaller = Math.min(plus, total - plus);
  let tail = 0;
  for (let s = 0; s <= smaller; s++) tail += probability[s];
  return Math.min(1, 2 * tail);
}

function normalP(doubled: readonly number[], plus: number): number {
  const total = doubled.reduce((sum, r) => sum + r, 0);
  // Under the null each rank counts with probability 1/2; mid-ranks already carry the tie
  // correction.
  const deviation = Math.sqrt(doubled.reduce((sum, r) => sum + r * r, 0)) / 2;
  // Continuity correction of half a rank = 1 in doubled ranks.
  const distance = Math.max(0, Math.abs(plus - total / 2) - 1);
  return Math.min(1, 2 * normalUpperTail(distance / deviation));
}
