// What a user may ask of any drawer.

import type {Comparison} from '../comparison.ts';

export interface DrawOptions {
  /**
   * Colour escapes; default off. The command line decides by terminal and NO_COLOR (see
   * `colourWanted`).
   */
  readonly color?: boolean;
  /**
   * Also rows that are equal or missing in every column; default false where a drawer leaves them
   * out.
   */
  readonly all?: boolean;
}

/** A drawer turns a comparison into text that ends with a newline. It computes nothing. */
export type Draw = (comparison: Comparison, options?: DrawOptions) => string;

/**
 * Colour on a terminal, unless NO_COLOR is set and not empty (no-color.org); `--color`/`--no-color`
 * win.
 */
export function colourWanted(
  env: Readonly<Record<string, string | undefined>>,
  isTerminal: boolean,
  flag?: boolean,
): boolean {
  if (flag !== undefined) return flag;
  if ((env['NO_COLOR'] ?? '') !== '') return false;
  return isTerminal;
}
