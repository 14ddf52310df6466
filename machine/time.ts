// Simulated time: whole ticks of 0.1 ns, kept in ordinary numbers. A double holds integers exactly
// up to 2^53, which is ten days of simulated time at this resolution; machine files speak ns, the
// simulated machine speaks ticks.

/** Ticks in one nanosecond. */
export const TICKS_PER_NS = 10;

/** Nearest whole number of ticks for a duration in ns. */
export function nsToTicks(ns: number): number {
  return Math.round(ns * TICKS_PER_NS);
}

/** Duration in ns of a number of ticks. */
export function ticksToNs(ticks: number): number {
  return ticks / TICKS_PER_NS;
}

/** Ticks in one second. */
export const TICKS_PER_S = 1e9 * TICKS_PER_NS;
