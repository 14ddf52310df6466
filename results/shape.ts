// Strict reading of JSON that people write or store: every error names the file, the place in it as
// a JSON path, what was expected there and what was found. Nothing unknown is accepted in silence.

import {readFileSync} from 'node:fs';
import {orUserError, UserError} from './errors.ts';

/**
 * Reads a JSON file. UserError with the line of the first syntax error, or why the file cannot be
 * read.
 */
export function readJson(path: string): unknown {
  return parseJson(
    orUserError(path, 'read', () => readFileSync(path, 'utf8')),
    path,
  );
}

/** Parses JSON text that came from `path`. */
export function parseJson(text: string, path: string): unknown {
  if (text.includes('\0') || text.includes('\uFFFD')) {
    throw new UserError(
      `${path}: binary data, expected JSON; name a file that --json or --save wrote`,
    );
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const position = /position (\d+)/.exec(message);
    const offset = position ? Number(position[1]) : text.length;
    const line = text.slice(0, offset).split('\n').length;
    throw new UserError(
      `${path}:${line}: not JSON (${message}); correct the file or write it again`,
    );
  }
}

/** One value inside a file, with the way to it. */
export class Place {
  readonly value: unknown;
  readonly file: string;
  readonly path: string;

  constructor(value: unknown, file: string, path = '$') {
    this.value = value;
    this.file = file;
    this.path = path;
  }

  fail(expected: string, remedy = 'correct the file'): never {
    const found = JSON.stringify(this.value) ?? 'nothing';
    const short = found.length > 60 ? `${found.slice(0, 57)}...` : found;
    throw new UserError(
      `${this.file}: at ${this.path}: expected ${expected}, found ${short}; ${remedy}`,
    );
  }

  /**
   * An object with these fields: required ones present, and no others than required and optional.
   */
  fields(required: readonly string[], optional: readonly string[] = []): void {
    const object = this.#object();
    for (const name of required) {
      if (!Object.hasOwn(object, name)) this.at(name).fail(`a field "${name}"`);
    }
    const known = [...required, ...optional];
    for (const name of Object.keys(object)) {
      if (!known.includes(name)) {
        this.at(name).fail(`one of ${known.join(', ')}`, 'remove or rename the field');
      }
    }
  }

  #object(): Record<string, unknown> {
    if (typeof this.value !== 'object' || this.value === null || Array.isArray(this.value)) {
      this.fail('an object');
    }
    return this.value as Record<string, unknown>;
  }

  at(name: string): Place {
    return new Place(this.#object()[name], this.file, `${this.path}.${name}`);
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#object(), name);
  }

  entries(): [string, Place][] {
    return Object.keys(this.#object()).map((name) => [name, this.at(name)]);
  }

  items(): Place[] {
    if (!Array.isArray(this.value)) this.fail('an array');
    return this.value.map((item, i) => new Place(item, this.file, `${this.path}[${i}]`));
  }

  string(): string {
    if (typeof this.value !== 'string') this.fail('a string');
    return this.value;
  }

  text(): string {
    const value = this.string();
    if (value.trim() === '') this.fail('a string that is not empty');
    return value;
  }

  number(): number {
    if (typeof this.value !== 'number' || !Number.isFinite(this.value)) this.fail('a number');
    return this.value;
  }

  integer(): number {
    const value = this.number();
    if (!Number.isSafeInteger(value)) this.fail('an integer');
    return value;
  }

  boolean(): boolean {
    if (typeof this.value !== 'boolean') this.fail('true or false');
    return this.value;
  }

  oneOf<T extends string>(choices: readonly T[]): T {
    const found = choices.find((choice) => choice === this.value);
    if (found === undefined) this.fail(`one of ${choices.map((c) => `"${c}"`).join(', ')}`);
    return found;
  }

  /** An object of strings. */
  strings(): Record<string, string> {
    return Object.fromEntries(this.entries().map(([name, place]) => [name, place.string()]));
  }

  /** An object of numbers. */
  numbers(): Record<string, number> {
    return Object.fromEntries(this.entries().map(([name, place]) => [name, place.number()]));
  }
}
