// Names of the errors that system calls return here.

import * as errno from '../../kernel/errno.ts';

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(errno).map(([name, number]) => [number, name]),
);

/** `EINVAL` for 22; a number without a name stays a number. */
export function errnoName(number: number): string {
  return NAMES.get(number) ?? `errno ${number}`;
}
