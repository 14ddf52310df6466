// Parameters of a workload: what they are, and how `key=value` words of a command line become
// values.
//
// A value is a number with a unit or a choice among words. Times take ns, us, ms or s and sizes
// take K, M, G or T after the number (K is 1024); without a suffix a time is in ns and a size in
// bytes. Sweeps give a parameter several values: a list `1,2,4,8`, a range `1..144` in steps of
// one, `0..100+25` in steps of 25, `1..144*2` in factors of two. The last value of a stepped or
// multiplied range is always its end. Every mistake is a UserError that says what to type.

import {EXIT, UserError} from '../formats/errors.ts';

/** Unit of a number; `share` is a probability, `flag` 0 or 1. */
export type Unit = 'count' | 'ns' | 'bytes' | 'pages' | 'share' | 'per_s' | 'factor';

/** One parameter as the listings show it. A choice has unit `choice` and bounds of its index. */
export interface ParamSpec {
  readonly name: string;
  readonly unit: Unit | 'choice';
  readonly default: number | string;
  readonly min: number;
  readonly max: number;
  readonly choices?: readonly string[];
  readonly doc: string;
}

/** Values of all parameters of one trace, by name. */
export type Params = Readonly<Record<string, number | string>>;

/** Most traces that one sweep may ask for. */
export const MAX_SWEEP = 10_000;

const SUFFIXES: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  ns: {ns: 1, us: 1e3, ms: 1e6, s: 1e9},
  bytes: {B: 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4},
};
const WHOLE: ReadonlySet<string> = new Set(['count', 'ns', 'bytes', 'pages']);
const NUMBER = /^(-?\d+(?:\.\d+)?(?:e\d+)?)([A-Za-z]*)$/;

function usage(message: string): UserError {
  return new UserError(message, EXIT.usage);
}

/** What a parameter accepts, for messages and listings. */
export function describeRange(spec: ParamSpec): string {
  if (spec.choices !== undefined) return spec.choices.join('|');
  return `${spec.min}..${spec.max}${spec.unit === 'count' ? '' : ` ${spec.unit}`}`;
}

function parseNumber(spec: ParamSpec, text: string): number {
  const match = NUMBER.exec(text);
  const suffixes = SUFFIXES[spec.unit] ?? {};
  const scale = match === null || match[2] === '' ? 1 : suffixes[match[2]];
  if (match === null || scale === undefined) {
    const known = Object.keys(suffixes);
    const hint = known.length > 0 ? `, plain or with ${known.join(', ')}` : '';
    throw usage(`${spec.name}=${text}: expected a number${hint}; for example ${spec.default}`);
  }
  const value = Number(match[1]) * scale;
  if (WHOLE.has(spec.unit) && !Number.isSafeInteger(value)) {
    throw usage(`${spec.name}=${text}: expected a whole number of ${spec.unit}`);
  }
  return value;
}

/** One value of one parameter, within its bounds. */
export function parseValue(spec: ParamSpec, text: string): number | string {
  if (spec.choices !== undefined) {
    if (spec.choices.includes(text)) return text;
    throw usage(`${spec.name}=${text}: expected one of ${spec.choices.join(', ')}`);
  }
  const value = parseNumber(spec, text);
  if (value < spec.min || value > spec.max) {
    throw usage(`${spec.name}=${text}: out of range; give ${describeRange(spec)}`);
  }
  return value;
}

function expandRange(spec: ParamSpec, text: string): (number | string)[] {
  const match = /^([^.]+(?:\.\d+)?)\.\.([^*+]+)(?:([*+])(.+))?$/.exec(text);
  if (match === null || spec.choices !== undefined) return [parseValue(spec, text)];
  const first = parseValue(spec, match[1]) as number;
  const last = parseValue(spec, match[2]) as number;
  const factor = match[3] === '*';
  const step = match[4] === undefined ? 1 : factor ? Number(match[4]) : parseNumber(spec, match[4]);
  if (last < first || !(factor ? step > 1 && first > 0 : step > 0)) {
    throw usage(
      `${spec.name}=${text}: expected first..last, first..last+step or first..last*factor, rising`,
    );
  }
  const values: number[] = [];
  for (let at = first, i = 0; at < last; i++) {
    const value = WHOLE.has(spec.unit) ? Math.round(at) : at;
    if (value !== values.at(-1)) values.push(value);
    if (values.length > MAX_SWEEP) {
      throw usage(`${spec.name}=${text}: more than ${MAX_SWEEP} values; widen the step`);
    }
    at = factor ? at * step : first + (i + 1) * step;
  }
  if (values.at(-1) !== last) values.push(last);
  return values;
}

function splitWord(
  workload: string,
  specs: readonly ParamSpec[],
  word: string,
): [ParamSpec, string] {
  const at = word.indexOf('=');
  if (at < 1) throw usage(`${word}: expected key=value, for example ${specs[0].name}=1`);
  const name = word.slice(0, at).replaceAll('-', '_');
  const spec = specs.find((candidate) => candidate.name === name);
  if (spec === undefined) {
    const known = specs.map((candidate) => candidate.name).join(', ');
    throw usage(`${word}: ${workload} has no parameter ${name}; it has ${known}`);
  }
  return [spec, word.slice(at + 1)];
}

/**
 * Every combination of the values in `words`, defaults for the rest. The first word varies slowest.
 * Throws UserError for an unknown or repeated name, a malformed or out-of-range value, and for more
 * than MAX_SWEEP combinations.
 */
export function expandWords(
  workload: string,
  specs: readonly ParamSpec[],
  words: readonly string[],
): Params[] {
  let rows: Record<string, number | string>[] = [
    Object.fromEntries(specs.map((spec) => [spec.name, spec.default])),
  ];
  const seen = new Set<string>();
  for (const word of words) {
    const [spec, text] = splitWord(workload, specs, word);
    if (seen.has(spec.name)) throw usage(`${word}: ${spec.name} was given before; give it once`);
    seen.add(spec.name);
    const values = [...new Set(text.split(',').flatMap((part) => expandRange(spec, part)))];
    if (rows.length * values.length > MAX_SWEEP) {
      throw usage(`${word}: the sweep has more than ${MAX_SWEEP} combinations; give fewer values`);
    }
    rows = rows.flatMap((row) => values.map((value) => ({...row, [spec.name]: value})));
  }
  return rows;
}
