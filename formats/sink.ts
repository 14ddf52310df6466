// Where a written file goes: a path, a path ending in .gz, or `-` for standard output. Writes are
// synchronous and in order. What was handed over before a failure is in the file, readable with the
// reader's tolerant option: an exit hook flushes files that were never closed. A .gz file is a
// sequence of gzip members of about 1 MiB of input each, as gzip(1) and zlib read it; a member is
// complete once written.

import {closeSync, openSync, writeSync} from 'node:fs';
import {gzipSync} from 'node:zlib';
import {UserError} from './errors.ts';
import type {ByteSink} from './writer.ts';

const MEMBER_BYTES = 1 << 20;

/** A file being written. `close()` must be called; calling it again does nothing. */
export interface OpenTraceFile {
  readonly sink: ByteSink;
  close(): void;
}

function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function writeAll(fd: number, chunk: Uint8Array): void {
  let at = 0;
  while (at < chunk.length) {
    try {
      at += writeSync(fd, chunk, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      pause(1); // a non-blocking pipe whose reader is slow
    }
  }
}

/** What went wrong with a file of the user, as the one line to print. */
export function fileError(path: string, error: unknown, doing: string): UserError {
  const {code, message} = error as NodeJS.ErrnoException;
  const reasons: Record<string, string> = {
    ENOENT: 'no such file or folder; check the path',
    ENOTDIR: 'a part of the path is no folder; check the path',
    EACCES: 'permission denied; check who owns it',
    EISDIR: 'is a folder, a file was expected; name a file in it',
    ENOSPC: 'no space left on the device; free some or write elsewhere',
  };
  return new UserError(`${path}: cannot ${doing}: ${reasons[code ?? ''] ?? message}`);
}

/**
 * Opens `path` for writing: `.gz` compresses, `-` is standard output. Throws UserError when it
 * cannot be opened.
 */
export function openTraceFile(path: string): OpenTraceFile {
  let fd = 1;
  try {
    if (path !== '-') fd = openSync(path, 'w');
  } catch (error) {
    throw fileError(path, error, 'write');
  }
  const compress = path.endsWith('.gz');
  let held: Uint8Array[] = [];
  let heldBytes = 0;
  let open = true;

  const flushHeld = (): void => {
    if (heldBytes === 0) return;
    const member = gzipSync(Buffer.concat(held), {level: 6});
    held = [];
    heldBytes = 0;
    writeAll(fd, member);
  };
  const sink = (chunk: Uint8Array): void => {
    if (!open) throw new Error(`${path} is closed`);
    try {
      if (!compress) {
        writeAll(fd, chunk);
        return;
      }
      held.push(chunk);
      heldBytes += chunk.length;
      if (heldBytes >= MEMBER_BYTES) flushHeld();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EPIPE') throw error;
      throw fileError(path, error, 'write');
    }
  };
  const close = (): void => {
    if (!open) return;
    open = false;
    process.removeListener('exit', close);
    flushHeld();
    if (path !== '-') closeSync(fd);
  };
  process.on('exit', close);
  return {sink, close};
}
