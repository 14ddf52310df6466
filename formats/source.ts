// Where bytes to read come from: a file, `-` for standard input, or memory; plain, gzip or zstd,
// told by the first bytes. Reading is synchronous, in pieces of 1 MiB, and holds only one piece
// (plus the window of the compressor). Offsets in messages count decompressed bytes.

import {closeSync, fstatSync, openSync, readSync} from 'node:fs';
import {Decompress} from 'fzstd';
import {UserError} from './errors.ts';
import {Inflater} from './inflate.ts';
import {fileError} from './sink.ts';

const PIECE_BYTES = 1 << 20;

/** Pieces of a file's content, decompressed. */
export interface ByteSource {
  readonly name: string;
  /** About how many bytes will come, when that is known: how much to make room for. */
  readonly expectedBytes?: number;
  /**
   * Next piece, never empty; undefined at the end. Valid until the next call. Throws UserError on
   * damage.
   */
  next(): Uint8Array | undefined;
  close(): void;
}

type Pull = () => Uint8Array | undefined;

function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function filePull(name: string, fd: number): Pull {
  const buffer = new Uint8Array(PIECE_BYTES);
  return () => {
    for (;;) {
      try {
        const read = readSync(fd, buffer, 0, PIECE_BYTES, null);
        return read === 0 ? undefined : buffer.subarray(0, read);
      } catch (error) {
        const {code} = error as NodeJS.ErrnoException;
        if (code === 'EOF') return undefined;
        if (code !== 'EAGAIN') throw fileError(name, error, 'read');
        pause(5); // a non-blocking pipe whose writer is slow
      }
    }
  };
}

function damaged(name: string, format: string, produced: number, what: string): UserError {
  return new UserError(
    `${name}: offset ${produced} (decompressed): ${format} data ${what}; ` +
      'copy the file again, or read what is before the damage with the tolerant option',
  );
}

function zstdPull(name: string, pull: Pull): Pull {
  const ready: Uint8Array[] = [];
  let produced = 0;
  let ended = false;
  let failed: UserError | undefined;
  const decompress = new Decompress((chunk) => {
    if (chunk.length > 0) ready.push(chunk);
  });
  return () => {
    while (ready.length === 0 && !ended && failed === undefined) {
      const piece = pull();
      ended = piece === undefined;
      try {
        // fzstd keeps what it is given until a block is complete: hand over a copy.
        decompress.push(piece?.slice() ?? new Uint8Array(0), ended);
      } catch (error) {
        failed = damaged(name, 'zstd', produced, `is damaged (${(error as Error).message})`);
      }
    }
    const chunk = ready.shift();
    if (chunk === undefined && failed !== undefined) throw failed;
    produced += chunk?.length ?? 0;
    return chunk;
  };
}

function gzipPull(name: string, pull: Pull): Pull {
  const inflater = new Inflater(pull);
  return () => {
    try {
      return inflater.next();
    } catch (error) {
      if (error instanceof UserError) throw error;
      throw damaged(name, 'gzip', inflater.produced, (error as Error).message);
    }
  };
}

/** First pieces again, before the rest: decompressors are chosen by the first bytes. */
function peekable(pull: Pull): {head: Uint8Array; pull: Pull} {
  let head = pull() ?? new Uint8Array(0);
  if (head.length < 4) head = head.slice(); // the next pull may overwrite it
  while (head.length < 4) {
    const more = pull();
    if (more === undefined) break;
    const joined = new Uint8Array(head.length + more.length);
    joined.set(head);
    joined.set(more, head.length);
    head = joined;
  }
  let first = head.length > 0;
  const again = (): Uint8Array | undefined => {
    if (!first) return pull();
    first = false;
    return head;
  };
  return {head, pull: again};
}

function decoded(
  name: string,
  raw: Pull,
  storedBytes: number,
): Pick<ByteSource, 'next' | 'expectedBytes'> {
  const {head, pull} = peekable(raw);
  const expanded = storedBytes * 6; // what traces and their texts shrink by
  if (head[0] === 0x1f && head[1] === 0x8b) {
    return {next: gzipPull(name, pull), expectedBytes: expanded};
  }
  if (head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd) {
    return {next: zstdPull(name, pull), expectedBytes: expanded};
  }
  return {next: pull, expectedBytes: storedBytes};
}

/** Opens a file (`-`: standard input). Throws UserError when it cannot be read. */
export function openSource(path: string): ByteSource {
  const name = path === '-' ? 'standard input' : path;
  let fd = 0;
  try {
    if (path !== '-') fd = openSync(path, 'r');
  } catch (error) {
    throw fileError(path, error, 'read');
  }
  let open = true;
  const close = (): void => {
    if (open && path !== '-') closeSync(fd);
    open = false;
  };
  try {
    return {name, ...decoded(name, filePull(name, fd), fstatSync(fd).size), close};
  } catch (error) {
    close();
    throw error;
  }
}

/** Reads from memory, in pieces of `pieceBytes`, as openSource would from a file. */
export function memorySource(
  bytes: Uint8Array,
  name = 'memory',
  pieceBytes = PIECE_BYTES,
): ByteSource {
  let at = 0;
  const pull = (): Uint8Array | undefined => {
    if (at >= bytes.length) return undefined;
    const piece = bytes.subarray(at, at + pieceBytes);
    at += piece.length;
    return piece;
  };
  return {name, ...decoded(name, pull, bytes.length), close: () => {}};
}
