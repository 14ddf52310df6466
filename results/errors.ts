// What goes wrong with a user's input, in one line: where, what was expected, what to do about it.
// The same shape as formats/errors.ts; results/ imports no other folder, so it has its own copy of
// the class.

/**
 * Bad input or bad usage. `message` is the one line that the user reads; `exitCode` 3 is "bad
 * input", 2 is "usage".
 */
export class UserError extends Error {
  readonly exitCode: number;
  constructor(message: string, exitCode = 3) {
    super(message);
    this.name = 'UserError';
    this.exitCode = exitCode;
  }
}

/** A broken invariant of ours: a bug in mmreplay, never the user's fault. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`mmreplay bug: ${message}`);
}
