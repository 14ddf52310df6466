// Values out of a payload as kernels print them: `key=value`, `key: value`, `key value`, hex with
// or without 0x, %p pointers (hashed or raw: opaque numbers either way), symbolic flags. Exact up
// to 64 bits.

/** Argument of an event: a number while it is exact, else a bigint. */
export type Arg = number | bigint;

/** A payload lacks what its event always has. The importer adds file and line. */
export class FieldError extends Error {}

const NOT_HEX = /[^0-9a-fA-F]/g;
const ALL_ONES = 2n ** 64n - 1n;

/** Hex digits of `text` from `at` on, without prefix. */
export function hexAt(text: string, at: number): Arg {
  NOT_HEX.lastIndex = at;
  const end = NOT_HEX.exec(text)?.index ?? text.length;
  if (end === at) throw new FieldError(`a hex number is missing in "${text}"`);
  const digits = text.slice(at, end);
  if (digits.length <= 13) return Number.parseInt(digits, 16);
  const wide = BigInt(`0x${digits}`);
  if (wide > ALL_ONES) throw new FieldError(`"${digits}" is too large for 64 bits`);
  return wide <= 0x1fffffffffffffn ? Number(wide) : wide;
}

/** The number at `at`: 0x hex, or decimal with an optional sign. */
export function numberAt(text: string, at: number): Arg {
  if (text.charCodeAt(at) === 48 && (text.charCodeAt(at + 1) | 32) === 120) {
    return hexAt(text, at + 2);
  }
  let end = at;
  const negative = text.charCodeAt(at) === 45;
  if (negative) end++;
  const first = end;
  let value = 0;
  for (; end < text.length; end++) {
    const digit = text.charCodeAt(end) - 48;
    if (digit < 0 || digit > 9) break;
    value = value * 10 + digit;
  }
  if (end === first) throw new FieldError(`a number is missing in "${text}"`);
  if (Number.isSafeInteger(value)) return negative ? -value : value;
  const wide = BigInt(text.slice(at, end));
  if (wide > ALL_ONES || wide < -(2n ** 63n)) {
    throw new FieldError(`"${text.slice(at, end)}" is too large for 64 bits`);
  }
  return wide;
}

/**
 * Index of the value of `key` in `text`, -1 when absent. The key starts a word and `=`, `:` or a
 * blank follows.
 */
export function valueIndex(text: string, key: string): number {
  for (let at = text.indexOf(key); at >= 0; at = text.indexOf(key, at + 1)) {
    const before = at === 0 ? 32 : text.charCodeAt(at - 1);
    if (before !== 32 && before !== 44 && before !== 40) continue;
    let end = at + key.length;
    const mark = text.charCodeAt(end);
    if (mark !== 61 && mark !== 58 && mark !== 32) continue;
    while (++end < text.length && text.charCodeAt(end) === 32);
    return end;
  }
  return -1;
}

function need(text: string, key: string): number {
  const at = valueIndex(text, key);
  if (at < 0) throw new FieldError(`${key} is missing in "${text}"`);
  return at;
}

/** Numeric field `key`; 0x decides about hex. */
export function num(text: string, key: string): Arg {
  return numberAt(text, need(text, key));
}

/** Numeric field `key`, or `otherwise` when it is absent. */
export function numOr(text: string, key: string, otherwise: Arg): Arg {
  const at = valueIndex(text, key);
  return at < 0 ? otherwise : numberAt(text, at);
}

/** A pointer or other hex field, with or without 0x. `(null)` is 0. */
export function ptr(text: string, key: string): Arg {
  return ptrAt(text, need(text, key));
}

/** A pointer at `at`. */
export function ptrAt(text: string, at: number): Arg {
  if (text.startsWith('(null)', at)) return 0;
  const prefixed = text.charCodeAt(at) === 48 && (text.charCodeAt(at + 1) | 32) === 120;
  return hexAt(text, prefixed ? at + 2 : at);
}

/** A word: up to the next blank or comma. */
export function word(text: string, key: string): string {
  const at = need(text, key);
  const match = /[^\s,]*/y;
  match.lastIndex = at;
  return match.exec(text)?.[0] ?? '';
}

/**
 * Free text of `key` up to `, next` or ` next`, the key that follows; to the end when there is
 * none.
 */
export function between(text: string, key: string, next: string): string {
  const at = need(text, key);
  const end = next === '' ? -1 : text.indexOf(` ${next}`, at);
  return text.slice(at, end < 0 ? undefined : end);
}

/** 1 for true, 0 for false, or the number. */
export function truth(text: string, key: string): Arg {
  const at = need(text, key);
  if (text.startsWith('true', at)) return 1;
  if (text.startsWith('false', at)) return 0;
  return numberAt(text, at);
}

/**
 * A number that the source prints by name: index in `names`, or the number itself; 2^64-1 for an
 * unknown name.
 */
export function symbol(text: string, names: readonly string[]): Arg {
  const known = names.indexOf(text);
  if (known >= 0) return known;
  return /^(0x[0-9a-f]+|\d+)/i.test(text) ? numberAt(text, 0) : -1;
}

/** Flags printed as `A|B|0x4`: the sum of their bits. Unknown names add nothing. */
export function flagBits(text: string, bits: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const name of text.split('|')) {
    if (/^\d/.test(name)) sum += Number(numberAt(name, 0));
    else sum += bits.get(name) ?? 0;
  }
  return sum;
}
