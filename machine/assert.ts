// Assertions guard against our own bugs and stay on in every run (0.7 ns each, measured). Bad input
// is never one of them.

/** A broken invariant of the simulator itself. */
export class AssertionFailure extends Error {
  constructor(message: string) {
    super(`mmreplay bug: ${message}`);
    this.name = 'AssertionFailure';
  }
}

/** Throws when an invariant of ours does not hold; narrows the condition's type. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionFailure(message);
}

/**
 * Throws; for hot code whose message has to be put together: `assert` would build the text on every
 * call.
 *     if (time < now) bug(`event at ${time} is in the past`);
 */
export function bug(message: string): never {
  throw new AssertionFailure(message);
}

/** For the default branch of an exhaustive switch. */
export function assertUnreachable(value: never): never {
  throw new AssertionFailure(`unreachable: ${String(value)}`);
}
