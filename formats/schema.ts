// The schema's owner is schema/mmreplay.proto, parsed by protobufjs at run time. Headers, tables
// and footers go through it; blocks of events are coded by hand (writer.ts, block.ts) and only fall
// back to it for rare encodings. 64-bit numbers come out of protobufjs as Long.

import {existsSync, readFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import Long from 'long';
import protobuf from 'protobufjs';
import {WireError} from './varint.ts';

/**
 * Folder of the package: the nearest one above this file with a package.json. The same from source
 * and from dist.
 */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const above = dirname(folder);
    if (above === folder) throw new Error('package.json not found above formats/schema.ts');
    folder = above;
  }
  return folder;
}

let root: protobuf.Root | undefined;

/** A message type of the schema by its name, `Packet` for instance. */
export function messageType(name: string): protobuf.Type {
  if (root === undefined) {
    const path = join(packageRoot(), 'formats', 'schema', 'mmreplay.proto');
    root = protobuf.parse(readFileSync(path, 'utf8')).root;
  }
  return root.lookupType(`mmreplay.${name}`);
}

const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/**
 * A body whose strings can all be written as UTF-8: halves of a pair become U+FFFD, as TextEncoder
 * has it.
 */
function wellFormed(value: unknown): unknown {
  if (typeof value === 'string') return value.replace(LONE_SURROGATE, '\ufffd');
  if (Array.isArray(value)) return value.map(wellFormed);
  if (value === null || typeof value !== 'object' || Long.isLong(value)) return value;
  if (ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, wellFormed(item)]));
}

/** Encodes a Packet whose body is given in protobufjs' own (camelCase) shape. */
export function encodePacket(body: Record<string, unknown>): Uint8Array {
  const type = messageType('Packet');
  return type.encode(type.fromObject(wellFormed(body) as Record<string, unknown>)).finish();
}

/** Decodes a message. Throws WireError when the bytes are no such message. */
export function decodeMessage(name: string, bytes: Uint8Array): Record<string, unknown> {
  const type = messageType(name);
  try {
    return type.decode(bytes) as unknown as Record<string, unknown>;
  } catch (error) {
    throw new WireError((error as Error).message);
  }
}

/** Exact Long of a bigint or a number, for fields of protobufjs. */
export function toLong(value: bigint | number, unsigned = true): Long {
  return typeof value === 'number'
    ? Long.fromNumber(value, unsigned)
    : Long.fromString(BigInt.asUintN(64, value).toString(), unsigned);
}

/** A decoded 64-bit field as a number. Throws RangeError when it is not exact. */
export function longNumber(value: unknown): number {
  const number = Long.isLong(value) ? value.toNumber() : Number(value ?? 0);
  if (!Number.isSafeInteger(number)) throw new RangeError(`${value} is too large`);
  return number;
}

/** A decoded 64-bit field, exact. */
export function longBigInt(value: unknown): bigint {
  return Long.isLong(value) ? BigInt(value.toString()) : BigInt(Number(value ?? 0));
}
