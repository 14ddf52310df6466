// The vocabulary of the userfaultfd selftests: descriptors, ioctls, reads, and the kinds of memory
// that uffd-unit-tests.c runs over. Places and lengths are in pages from BASE on.

import {KIND} from '../../formats/kinds.ts';
import {CLONE} from '../stage.ts';
import {
  ANY_RESULT,
  all,
  MAP_HUGETLB,
  MAP_PRIVATE,
  MAP_SHARED,
  map,
  mapFile,
  open,
  RW,
  store,
  sysfs,
} from './moves.ts';
import {addr, type Move, PAGE} from './selftest.ts';

/** UFFDIO_ numbers. */
export const IOCTL = Object.freeze({
  register: 0,
  unregister: 1,
  wake: 2,
  copy: 3,
  zeropage: 4,
  move: 5,
  writeprotect: 6,
  continue: 7,
  poison: 8,
  api: 0x3f,
});

export const MISSING = 1;
export const WP = 2;
export const MINOR = 4;

/** UFFD_FEATURE_ bits. */
export const FEATURE = Object.freeze({
  eventFork: 1 << 1,
  eventRemap: 1 << 2,
  eventRemove: 1 << 3,
  eventUnmap: 1 << 6,
  sigbus: 1 << 7,
  wpUnpopulated: 1 << 13,
  wpAsync: 1 << 15,
});

export const EVENT = Object.freeze({
  fault: 0x12,
  fork: 0x13,
  remap: 0x14,
  remove: 0x15,
  unmap: 0x16,
});

export const EAGAIN = -11;
export const EBUSY = -16;
export const EEXIST = -17;
export const ENOENT = -2;

export const O_NONBLOCK = 0o4000;

/** The descriptor that most cases use. */
export const FD = 5;

/** userfaultfd() and UFFDIO_API. */
export function uffd(features = 0, fd = FD, flags = 0, ret = 0): Move {
  return (p) => p.op(KIND.expect_userfaultfd, p.step('userfaultfd'), fd, flags, features, ret);
}

/** What may differ from the usual in an ioctl. */
export interface More {
  readonly fd?: number;
  readonly mode?: number;
  readonly src?: number;
  /** Pages done, or another number that the structure then has; left out: whatever. */
  readonly out?: number;
  readonly ret?: number;
}

/** An ioctl on [at, at + pages). */
export function io(name: keyof typeof IOCTL, at: number, pages: number, more: More = {}): Move {
  const {fd = FD, mode = 0, src = 0, out = ANY_RESULT, ret = 0} = more;
  return (p) => {
    const step = p.step(`UFFDIO_${name.toUpperCase()}`);
    const places = [addr(at), pages * PAGE, addr(src)] as const;
    p.op(KIND.expect_uffd_ioctl, step, fd, IOCTL[name], ...places, mode, out, ret);
  };
}

export function register(at: number, pages: number, mode: number, more: More = {}): Move {
  return io('register', at, pages, {...more, mode});
}

/** UFFDIO_WRITEPROTECT on or off. */
export function writeProtect(at: number, pages: number, on: boolean, more: More = {}): Move {
  return io('writeprotect', at, pages, {...more, mode: on ? 1 : 0});
}

/** One message of a fault. `flags`: 1 write, 2 write-protected, 4 minor. */
export function readFault(at: number, flags: number, fd = FD): Move {
  return readEvent(EVENT.fault, at, {flags, fd});
}

/** One message. */
export function readEvent(
  event: number,
  at: number,
  more: {
    readonly flags?: number;
    readonly to?: number;
    readonly pages?: number;
    readonly fd?: number;
    readonly childFd?: number;
  } = {},
): Move {
  const {flags = 0, to, pages = 0, fd = FD, childFd = 0} = more;
  return (p) => {
    const step = p.step(`read event 0x${event.toString(16)}`);
    const from = event === EVENT.fork ? 0 : addr(at);
    const end = to === undefined ? 0 : addr(to);
    p.op(KIND.expect_uffd_read, step, fd, event, flags, from, end, pages * PAGE, childFd, 0);
  };
}

/** A read that must fail. */
export function readFails(ret: number, fd = FD): Move {
  return (p) => p.op(KIND.expect_uffd_read, p.step('read'), fd, 0, 0, 0, 0, 0, 0, ret);
}

/** How a reader answers missing pages; with `protects` write-protected. */
export type Answer = 'copy' | 'zeropage' | 'move';
const ANSWERS: readonly Answer[] = ['copy', 'zeropage', 'move'];

/** Answers so many faults, page n of [0, ...) with page n from SRC on. */
export function serve(
  counts: {readonly missing?: number; readonly wp?: number; readonly minor?: number},
  answer: Answer = 'copy',
  more: {readonly protects?: boolean; readonly fd?: number; readonly at?: number} = {},
): Move {
  const {missing = 0, wp = 0, minor = 0} = counts;
  const {protects = false, fd = FD, at = 0} = more;
  const how = ANSWERS.indexOf(answer) + (protects ? 4 : 0);
  return (p) => {
    const step = p.step('serve');
    p.op(KIND.expect_uffd_serve, step, fd, addr(at), addr(SRC), how, missing, wp, minor);
  };
}

export function close(fd = FD): Move {
  return (p) => p.op(KIND.uffd_close, fd);
}

/** A thread of the process that makes `moves`. */
export function thread(name: string, ...moves: readonly Move[]): Move {
  return (p) => p.spawn(name, moves, CLONE.thread);
}

/** Where copies come from, and another mapping of the same file. */
export const SRC = 0x40_000;
export const ALIAS = 0x80_000;
/** Areas are so many units long. */
export const UNITS = 4;
const HUGE = 512;

/**
 * A kind of memory: `setup` maps `pages` pages at 0, and its file again at ALIAS where there is
 * one.
 */
export interface UffdMemory {
  readonly unit: number;
  readonly pages: number;
  readonly anon: boolean;
  readonly shared: boolean;
  setup(name: string): Move;
}

function memory(
  unit: number,
  anon: boolean,
  shared: boolean,
  setup: (name: string, pages: number) => Move,
): UffdMemory {
  const pages = UNITS * unit;
  return {unit, pages, anon, shared, setup: (name) => setup(name.replace(/\W/g, '-'), pages)};
}

const pool = sysfs('/proc/sys/vm/nr_hugepages', 256);

export const KINDS: Readonly<Record<string, UffdMemory>> = {
  anon: memory(1, true, false, (_name, pages) => map(0, pages)),
  shmem: memory(1, false, true, (name, pages) =>
    all(
      open(3, `/memfd:${name}`, pages),
      mapFile(0, pages, 3, MAP_SHARED),
      mapFile(ALIAS, pages, 3),
    ),
  ),
  'shmem-private': memory(1, false, false, (name, pages) =>
    all(
      open(3, `/memfd:${name}`, pages),
      mapFile(0, pages, 3, MAP_PRIVATE),
      mapFile(ALIAS, pages, 3),
    ),
  ),
  hugetlb: memory(HUGE, false, true, (name, pages) =>
    all(
      pool,
      open(3, `/memfd:hugetlb-${name}`, pages),
      mapFile(0, pages, 3, MAP_SHARED),
      mapFile(ALIAS, pages, 3),
    ),
  ),
  'hugetlb-private': memory(HUGE, false, false, (_name, pages) =>
    all(pool, map(0, pages, RW, MAP_HUGETLB | MAP_PRIVATE)),
  ),
};

/** The source: unit n begins with content 100 + n. */
export function source(m: UffdMemory): Move {
  return all(map(SRC, m.pages), store(SRC, UNITS, 100, {stride: m.unit, each: 1}));
}

/** A case for each kind that `wanted` admits. */
export function casesFor(
  title: string,
  moves: (m: UffdMemory) => readonly Move[],
  wanted: (m: UffdMemory, kind: string) => boolean = () => true,
): Readonly<Record<string, readonly Move[]>> {
  return Object.fromEntries(
    Object.entries(KINDS)
      .filter(([kind, m]) => wanted(m, kind))
      .map(([kind, m]) => [`${title} ${kind}`, [m.setup(`${title}-${kind}`), ...moves(m)]]),
  );
}
