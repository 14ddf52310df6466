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

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or folder; check the path',
  ENOTDIR: 'a part of the path is no folder; check the path',
  EACCES: 'permission denied; check who owns it',
  EISDIR: 'is a folder, a file was expected; name a file in it',
  ENOSPC: 'no space left on the device; free some or write elsewhere',
};

/** Does what may fail because of a file of the user; that becomes a UserError. */
export function orUserError<T>(path: string, doing: 'read' | 'write', act: () => T): T {
  try {
    return act();
  } catch (error) {
    const {code, message} = error as NodeJS.ErrnoException;
    throw new UserError(`${path}: cannot ${doing}: ${REASONS[code ?? ''] ?? message}`);
  }
}
