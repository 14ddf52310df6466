// Lines of a text that may be larger than memory. A piece of the source is decoded up to its last
// newline; the rest is carried over. A last line without its newline is not handed out: tools end
// every line, so it was cut.

import {UserError, inputError} from '../errors.ts';
import type {ByteSource} from '../source.ts';

const MAX_LINE = 1 << 20;
const NEWLINE = 10;

/** How a text ended: cut in a line, or damaged (compressed input). */
export interface TextEnd {
  lines: number;
  cut?: {line: number; message: string};
}

/**
 * Calls `take` with every complete line and its number (from 1). A damaged source ends the text;
 * see the result.
 */
export function eachLine(
  source: ByteSource,
  take: (line: string, number: number) => void,
): TextEnd {
  let carry: Uint8Array = new Uint8Array(0);
  let lines = 0;
  for (;;) {
    let piece: Uint8Array | undefined;
    try {
      piece = source.next();
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      return {lines, cut: {line: lines + 1, message: error.message}};
    }
    if (piece === undefined) break;
    const bytes = carry.length === 0 ? piece : Buffer.concat([carry, piece]);
    const last = bytes.lastIndexOf(NEWLINE);
    if (last < 0 && bytes.length > MAX_LINE) {
      const expected = `a line of more than ${MAX_LINE} bytes is too large`;
      throw inputError(source.name, {line: lines + 1}, expected, 'check that this is a text file');
    }
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, last + 1).toString('utf8');
    carry = bytes.slice(last + 1);
    for (let at = 0; at < text.length; ) {
      const end = text.indexOf('\n', at);
      lines++;
      take(text.slice(at, text.charCodeAt(end - 1) === 13 ? end - 1 : end), lines);
      at = end + 1;
    }
  }
  if (Buffer.from(carry).toString('utf8').trim() === '') return {lines};
  const message = `${source.name}:${lines + 1}: the last line has no end, so it was cut`;
  return {lines, cut: {line: lines + 1, message}};
}
