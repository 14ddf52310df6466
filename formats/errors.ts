// What goes wrong with a user's input, said in one line: where, what was expected, what to do about
// it. Our own bugs are assertions (machine/assert.ts), never this.

/** Exit codes of the command line; the same numbers in every verb. */
export const EXIT = Object.freeze({
  ok: 0,
  failed: 1,
  usage: 2,
  badInput: 3,
  partial: 4,
  interrupted: 130,
});

/** Bad input or bad usage. `message` is the one line that the user reads. */
export class UserError extends Error {
  readonly exitCode: number;
  constructor(message: string, exitCode: number = EXIT.badInput) {
    super(message);
    this.name = 'UserError';
    this.exitCode = exitCode;
  }
}

/**
 * Where in an input something was wrong: `file:line 12` for text, `file: offset 4096` for binary.
 */
export function inputError(
  file: string,
  place: {line: number} | {offset: number},
  expected: string,
  remedy: string,
): UserError {
  const where = 'line' in place ? `${file}:${place.line}` : `${file}: offset ${place.offset}`;
  return new UserError(`${where}: ${expected}; ${remedy}`);
}
