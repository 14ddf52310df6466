// The order of events that fall on the same tick. Within one priority: first come, first served.

/** Priority of an event among those of the same tick, lower first. Each with its reason. */
export const PRIORITY = Object.freeze({
  /** A store leaves its buffer before anyone looks: memory at time t includes what drained at t. */
  storeDrain: 0,
  /** An interrupt that arrives at t is taken before the instruction at t. */
  interrupt: 1,
  /** Everything a CPU does. */
  cpu: 2,
  /** Timers (slice end, watchdog) act on the state that the CPUs left at t. */
  timer: 3,
});
