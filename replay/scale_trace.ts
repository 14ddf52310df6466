// The trace of the scale run: one process tree of any size. A server maps memory and writes all of
// it, more than its cgroup may hold, so that the oldest of it is swapped out; it forks, the child
// reads what was swapped out and exits; then the server exits. Several such lives, one after the
// other, show whether what one gives back serves the next. `mmreplay generate snapshot` makes the
// same kind of trace with more to choose from.

import {KIND} from '../formats/kinds.ts';
import type {LoadedTrace} from '../formats/reader.ts';
import {TraceWriter} from '../formats/writer.ts';
import {traceFrom} from './generated.ts';

/** How large. */
export interface ScaleRun {
  /** Pages that a server maps and writes. */
  readonly pages: number;
  /** Of these, how many do not fit: they are swapped out and read back. */
  readonly swapped: number;
  readonly lives: number;
}

const PAGE_BYTES = 4096;
const TOP = 0x7f00_0000_0000;
const MAIN = 1000;
const CLONE_FORK = 0x01200011;
const RW = 3;
const ANON = 0x22;
const NO_FD = 2n ** 64n - 1n;

/** Memory that a main process and page tables may take besides, pages; see memory.max. */
const SLACK = 64;

/** Faults, copied entries and unmapped pages of a run, for figures per operation. */
export function scaleOperations({pages, swapped, lives}: ScaleRun): number {
  const written = pages;
  const copied = pages;
  const movedBack = swapped;
  const unmapped = 2 * pages;
  return lives * (written + copied + movedBack + unmapped);
}

/** Writes the trace into memory. */
export function scaleTrace({pages, swapped, lives}: ScaleRun): LoadedTrace {
  const bytes = pages * PAGE_BYTES;
  const addr = TOP - bytes;
  return traceFrom(`scale run of ${pages} pages`, (sink) => {
    const writer = new TraceWriter(sink, {
      source: 'generated',
      clock: 'nominal',
      machine: {cpus: 1},
    });
    let ns = 0;
    const op = (kind: number, tid: number, ...args: (number | bigint)[]): void => {
      writer.append(kind, ns, tid, 0, ...args);
      ns += 1000;
    };
    writer.task(MAIN, MAIN, 1, 'scale');
    op(KIND.swapon, MAIN, writer.intern('/swapfile'), 4 * swapped + 1024);
    if (swapped > 0) op(KIND.memcg_limit, MAIN, (pages - swapped + SLACK) * PAGE_BYTES);
    for (let life = 0; life < lives; life++) {
      const server = MAIN + 1 + 2 * life;
      const child = server + 1;
      writer.task(server, server, MAIN, 'scale');
      writer.task(child, child, server, 'scale');
      op(KIND.fork, MAIN, server, CLONE_FORK, server);
      op(KIND.mmap, server, 0, bytes, RW, ANON, NO_FD, 0, addr);
      op(KIND.touch, server, addr, pages, 1, 1);
      op(KIND.fork, server, child, CLONE_FORK, child);
      if (swapped > 0) op(KIND.touch, child, addr, swapped, 1, 0);
      op(KIND.exit, child, 1);
      op(KIND.wait4, server, child, 0);
      op(KIND.exit, server, 1);
      op(KIND.wait4, MAIN, server, 0);
    }
    op(KIND.exit, MAIN, 1);
    writer.finish();
  });
}
