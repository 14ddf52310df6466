// The vocabulary of selftests: each function makes a move (selftest.ts). Places and lengths are in
// pages from BASE on; what a call must return comes last and is success where it is left out.

import {KIND} from '../../formats/kinds.ts';
import {
  ADVICE,
  type Advice,
  ANY_RESULT,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MAP_SHARED,
  RW,
  SIGSEGV,
} from './numbers.ts';
import {addr, type Move, PAGE} from './selftest.ts';

export * from './numbers.ts';

const SYS = {
  mmap: 9,
  mprotect: 10,
  munmap: 11,
  brk: 12,
  mremap: 25,
  madvise: 28,
  mlock: 149,
  munlock: 150,
  mlockall: 151,
  munlockall: 152,
  move_pages: 279,
  process_madvise: 440,
  mseal: 462,
} as const;

/** A system call with raw arguments (bytes). */
export function call(name: keyof typeof SYS, args: readonly number[], ret: number): Move {
  return (p) => {
    const six = Array.from({length: 6}, (_, k) => args[k] ?? 0);
    p.op(KIND.expect_call, p.step(name), SYS[name], ...six, ret);
  };
}

/** mmap(MAP_FIXED) of private anonymous memory. */
export function map(at: number, pages: number, prot = RW, flags = 0): Move {
  const all = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | flags;
  return call('mmap', [addr(at), pages * PAGE, prot, all, -1, 0], addr(at));
}

/** mmap(MAP_FIXED) of shared anonymous memory. */
export function mapShared(at: number, pages: number, prot = RW): Move {
  const all = MAP_SHARED | MAP_FIXED | MAP_ANONYMOUS;
  return call('mmap', [addr(at), pages * PAGE, prot, all, -1, 0], addr(at));
}

/** mmap(MAP_FIXED) of file `fd` from page `offset` on. */
export function mapFile(
  at: number,
  pages: number,
  fd: number,
  flags = MAP_SHARED,
  prot = RW,
  offset = 0,
): Move {
  const args = [addr(at), pages * PAGE, prot, flags | MAP_FIXED, fd, offset * PAGE];
  return call('mmap', args, addr(at));
}

/** open: `name` is a path; /dev/shm/... and /memfd:... are tmpfs. */
export function open(fd: number, name: string, pages: number): Move {
  return (p) => p.op(KIND.open_file, fd, p.self.intern(name), pages * PAGE);
}

/** ftruncate to `size` pages, or with `pages` a hole of so many from there on. */
export function truncate(name: string, size: number, pages = 0): Move {
  return (p) => p.op(KIND.truncate, p.self.intern(name), size * PAGE, pages * PAGE);
}

export function unmap(at: number, pages: number): Move {
  return call('munmap', [addr(at), pages * PAGE], 0);
}

export function protect(at: number, pages: number, prot: number, ret = 0): Move {
  return call('mprotect', [addr(at), pages * PAGE, prot], ret);
}

/** mremap; `to` counts with FIXED or DONTUNMAP. A result that is no errno is a page. */
export function remap(
  at: number,
  pages: number,
  newPages: number,
  flags: number,
  to = at,
  ret = to,
): Move {
  const args = [addr(at), pages * PAGE, newPages * PAGE, flags, flags > 1 ? addr(to) : 0];
  return call('mremap', args, ret < 0 ? ret : addr(ret));
}

export function advise(at: number, pages: number, advice: Advice, ret = 0): Move {
  return (p) => {
    const step = p.step(`madvise ${advice}`);
    p.op(KIND.expect_call, step, SYS.madvise, addr(at), pages * PAGE, ADVICE[advice], 0, 0, 0, ret);
  };
}

export function lock(at: number, pages: number, ret = 0): Move {
  return call('mlock', [addr(at), pages * PAGE], ret);
}

export function unlock(at: number, pages: number, ret = 0): Move {
  return call('munlock', [addr(at), pages * PAGE], ret);
}

export function seal(at: number, pages: number, ret = 0, flags = 0): Move {
  return call('mseal', [addr(at), pages * PAGE, flags], ret);
}

/** Which process a vector is about: oneself, a child of this case, one that is gone, or none. */
export type Whose = 'self' | 'bad' | 'gone' | `child ${string}`;

/** process_madvise over ranges of pages. */
export function adviseVector(
  whose: Whose,
  ranges: readonly (readonly [at: number, pages: number])[],
  advice: Advice,
  ret: number,
  more: {readonly vlen?: number; readonly flags?: number} = {},
): Move {
  return function* (p) {
    for (const [at, pages] of ranges) {
      p.op(KIND.iovec, addr(at), pages * PAGE);
      yield;
    }
    const vlen = more.vlen ?? ranges.length;
    const pid = pidOf(whose, p.self.tid, (name) => p.children.get(name)!.tid);
    const args = [pid, 0, vlen, ADVICE[advice], more.flags ?? 0, 0];
    p.op(KIND.expect_call, p.step(`process_madvise ${advice}`), SYS.process_madvise, ...args, ret);
    yield;
  };
}

/** A tid that no task of a generated trace has. */
const NOBODY = 999_999;

function pidOf(whose: Whose, self: number, child: (name: string) => number): number {
  if (whose === 'self') return self;
  if (whose === 'bad') return -1;
  return whose === 'gone' ? NOBODY : child(whose.slice('child '.length));
}

/** How a run of accesses goes on: pages apart, content of page n, the signal it gets. */
export interface Run {
  readonly stride?: number;
  /** Page n holds content + n * each; 0: all the same. */
  readonly each?: number;
  readonly signal?: number;
}

function access(kind: number, verb: string) {
  return (at: number, pages: number, content: number, run: Run = {}): Move =>
    (p) => {
      const {stride = 1, each = 0, signal = 0} = run;
      const step = p.step(`${verb} at ${at}`);
      p.op(kind, step, addr(at), pages, stride, content, each, signal);
    };
}

/** Stores to `pages` pages: they hold `content` then. */
export const store = access(KIND.expect_store, 'store');
/** Loads from `pages` pages: they hold `content`. */
export const load = access(KIND.expect_load, 'load');

/** A store that must get a signal. */
export function storeDies(at: number, pages = 1, signal = SIGSEGV): Move {
  return store(at, pages, 0, {signal});
}

/** A load that must get a signal. */
export function loadDies(at: number, pages = 1, signal = SIGSEGV): Move {
  return load(at, pages, 0, {signal});
}

/** What pagemap, smaps or maps say of a range (replay/bind/page_state.ts has the words). */
export function state(what: string, at: number, pages: number, value: number): Move {
  return (p) => {
    const words = [p.step(what), p.self.intern(what)];
    p.op(KIND.expect_state, words[0], words[1], addr(at), pages, value);
  };
}

/** A counter of the process or the machine. */
export function counter(what: string, value: number): Move {
  return state(what, 0, 1, value);
}

/** ptrace writes `content` to pages of oneself or of a child. `ret`: pages written, or an error. */
export function poke(
  at: number,
  pages: number,
  content: number,
  whose = 'self',
  ret = pages,
): Move {
  return (p) => {
    const {tid} = whose === 'self' ? p.self : p.children.get(whose)!;
    p.op(KIND.expect_remote, p.step('ptrace write'), tid, addr(at), pages, content, ret);
  };
}

const FOLL_WRITE = 1;
const FOLL_PIN = 2;
const FOLL_LONGTERM = 4;
/**
 * Kinds of pin: vmsplice takes a plain reference for reading, the others are FOLL_PIN |
 * FOLL_LONGTERM.
 */
export const PIN = Object.freeze({
  vmsplice: 0,
  read: FOLL_PIN | FOLL_LONGTERM,
  write: FOLL_PIN | FOLL_LONGTERM | FOLL_WRITE,
});

/** Pins pages as `id`. */
export function pin(id: number, at: number, pages: number, how: number, ret = pages): Move {
  return (p) => p.op(KIND.expect_pin, p.step('pin'), id, addr(at), pages, how, ret);
}

/** What is read through pin `id`. */
export function pinned(id: number, content: number, each = 0): Move {
  return (p) => p.op(KIND.expect_pinned, p.step(`read pin ${id}`), id, content, each, 0);
}

/** Writes through pin `id`, as a device does. */
export function writePinned(id: number, content: number, each = 0): Move {
  return (p) => p.op(KIND.expect_pinned, p.step(`write pin ${id}`), id, content, each, 1);
}

export function unpin(id: number): Move {
  return (p) => p.op(KIND.unpin, id);
}

/** A child that makes `moves` beside its parent. */
export function fork(name: string, ...moves: readonly Move[]): Move {
  return (p) => p.spawn(name, moves);
}

/** Waits until the child is gone. */
export function reap(name: string): Move {
  return function* (p) {
    yield p.self.wait(p.children.get(name)!);
  };
}

/** A child that makes `moves` while its parent waits. */
export function inChild(name: string, ...moves: readonly Move[]): Move {
  return function* (p) {
    p.spawn(name, moves);
    yield;
    yield p.self.wait(p.children.get(name)!);
  };
}

/** All processes of the case that say the same name wait for each other here. */
export function meet(name: string, parties = 2): Move {
  return function* (p) {
    yield p.self.arrive(p.gate(name, parties));
  };
}

/** echo 4 > /proc/self/clear_refs: soft-dirty bits. */
export const clearSoftDirty: Move = (p) => p.op(KIND.clear_refs, 4);

const MPOL_MF_MOVE_ALL = 4;

/**
 * move_pages(2) of a range to a node, whoever else maps it. `ret`: pages that could not be moved.
 */
export function movePages(at: number, pages: number, node: number, ret = 0): Move {
  return function* (p) {
    p.op(KIND.iovec, addr(at), pages * PAGE);
    yield;
    const args = [0, pages, 0, node, 0, MPOL_MF_MOVE_ALL];
    p.op(KIND.expect_call, p.step(`move_pages to ${node}`), SYS.move_pages, ...args, ret);
    yield;
  };
}

/**
 * As movePages while others use the pages: best effort, so that only the last of some attempts must
 * succeed.
 */
export function movePagesInUse(at: number, pages: number, node: number): Move {
  const attempt = movePages(at, pages, node, ANY_RESULT);
  return all(attempt, attempt, attempt, movePages(at, pages, node));
}

/** Writes to a file below /sys/kernel/mm. */
export function sysfs(path: string, value: number | string): Move {
  return (p) => p.op(KIND.sysfs_write, p.self.intern(path), p.self.intern(`${value}`));
}

/** Off the CPU, so that daemons can do their work. */
export function sleepMs(ms: number): Move {
  return (p) => p.self.sleep(ms * 1e6);
}

/** prctl(PR_SET_MEMORY_MERGE): all that the process maps is mergeable, or nothing any more. */
export function mergeAny(on: boolean): Move {
  return (p) => p.op(on ? KIND.ksm_enter : KIND.ksm_exit, 0);
}

/** A breakpoint in the file that is mapped at a page. */
export function uprobe(at: number): Move {
  return (p) => p.op(KIND.uprobe, addr(at), 1);
}

/** swapoff of the area that the scenario has. */
export const swapoff: Move = (p) => p.op(KIND.swapoff, p.self.intern('/swap'));

/** Several moves as one. */
export function all(...moves: readonly Move[]): Move {
  return function* (p) {
    for (const move of moves) {
      const more = move(p);
      if (more === undefined) yield;
      else yield* more;
    }
  };
}
