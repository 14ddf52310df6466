// Holm's step-down correction: with many rows in a table some are "significant" by chance; this
// bounds the chance that any is (family-wise error), whatever the dependence between rows.

/** Adjusted p-values in the order given; compare each with alpha directly. */
export function holm(ps: readonly number[]): number[] {
  const order = ps.map((_, i) => i).sort((a, b) => ps[a] - ps[b]);
  const adjusted = new Array<number>(ps.length).fill(1);
  let running = 0;
  order.forEach((index, place) => {
    running = Math.max(running, Math.min(1, ps[index] * (ps.length - place)));
    adjusted[index] = running;
  });
  return adjusted;
}

/**
 * Fewest pairs with which the signed-rank test can reach `alpha` in a table of `tests` rows: 2 /
 * 2^n <= alpha / tests.
 */
export function pairsNeeded(alpha: number, tests: number): number {
  return Math.ceil(1 + Math.log2(Math.max(1, tests) / alpha));
}
