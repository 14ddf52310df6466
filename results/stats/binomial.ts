// The binomial distribution with p = 1/2, summed exactly enough for any n that a benchmark reaches.

/**
 * P(X <= k) for X ~ Binomial(n, 1/2). Terms are built up from the smaller tail, so nothing cancels.
 */
export function binomialCdfHalf(k: number, n: number): number {
  if (k < 0) return 0;
  if (k >= n) return 1;
  if (k > n / 2) return 1 - binomialCdfHalf(n - k - 1, n);
  // log of C(n, k) / 2^n, then walk down: C(n, i - 1) = C(n, i) * i / (n - i + 1).
  let logTerm = -n * Math.LN2;
  for (let i = 1; i <= k; i++) logTerm += Math.log((n - i + 1) / i);
  let term = Math.exp(logTerm);
  let sum = term;
  for (let i = k; i >= 1 && term > 0; i--) {
    term *= i / (n - i + 1);
    sum += term;
  }
  return Math.min(1, sum);
}
