// Where a verb writes: data to `out`, messages and progress to `err`. Tests pass their own.

import {fileError} from '../formats/sink.ts';

/** A place to write text or bytes to. */
export interface Output {
  write(chunk: string | Uint8Array): void;
  /** True on a terminal: progress and colour are welcome. */
  readonly isTerminal: boolean;
}

/**
 * The process's own streams. A reader that went away (EPIPE) ends the process quietly, a full disk
 * with a line.
 */
export function standardStreams(): {out: Output; err: Output} {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    const {message, exitCode} = fileError('standard output', error, 'write');
    process.stderr.write(`mmreplay: ${message}\n`);
    process.exit(exitCode);
  });
  const wrap = (stream: NodeJS.WriteStream): Output => ({
    write: (chunk) => {
      stream.write(chunk);
    },
    isTerminal: stream.isTTY === true,
  });
  return {out: wrap(process.stdout), err: wrap(process.stderr)};
}

/** Collects what is written, for tests. */
export class TextOutput implements Output {
  readonly isTerminal = false;
  text = '';
  write(chunk: string | Uint8Array): void {
    this.text += typeof chunk === 'string' ? chunk : new TextDecoder().decode(chunk);
  }
}
