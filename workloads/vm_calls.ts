// System calls on address spaces as generated traces make them, with their nominal durations, and
// where areas of generated processes lie. An area goes where the trace says (`ret` of mmap), as in
// a recording; workloads that want the kernel's own layout put areas side by side.

import {KIND} from '../formats/kinds.ts';
import {PAGE_BYTES} from './address_space.ts';
import {NOMINAL_NS} from './nominal.ts';
import type {Actor} from './stage.ts';

export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_RW = PROT_READ | PROT_WRITE;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_LOCKED = 0x2000;
export const MAP_POPULATE = 0x8000;
/** Private anonymous memory. */
export const ANON = MAP_PRIVATE | MAP_ANONYMOUS;

/** First byte after the areas that workloads map; they are given out downwards from here. */
export const AREAS_TOP = 0x0000_7f00_0000_0000;

const NO_FD = 2n ** 64n - 1n;
const FD = 3;

/** mmap(2) of whole pages at `addr`. `file`: its path, empty for anonymous memory. */
export function mmap(
  self: Actor,
  addr: number,
  bytes: number,
  flags: number = ANON,
  file = '',
): undefined {
  const fd = file === '' ? NO_FD : FD;
  const populated = (flags & MAP_POPULATE) === 0 ? 0 : bytes / PAGE_BYTES;
  const durationNs = NOMINAL_NS.mapVma + populated * NOMINAL_NS.minorFault;
  const prot = PROT_RW;
  self.op(KIND.mmap, file === '' ? durationNs : 0, 0, bytes, prot, flags, fd, 0, addr);
  if (file === '') return;
  self.op(KIND.mapped, durationNs, addr, bytes, 0, prot, flags, self.intern(file));
}

/** munmap(2) of an area of which `present` pages are mapped. */
export function munmap(self: Actor, addr: number, bytes: number, present: number): undefined {
  self.op(KIND.munmap, NOMINAL_NS.mapVma + present * NOMINAL_NS.zapPage, addr, bytes);
}

/** brk(2). */
export function brk(self: Actor, end: number): undefined {
  self.op(KIND.brk, NOMINAL_NS.mapVma, end, end);
}

/** madvise(2). */
export function madvise(self: Actor, addr: number, bytes: number, advice: number): undefined {
  self.op(KIND.madvise, NOMINAL_NS.syscall, addr, bytes, advice);
}

/** Accesses to `pages` pages, every `stride`th from `addr`. `faultNs`: what one takes. */
export function touch(
  self: Actor,
  addr: number,
  pages: number,
  write: boolean,
  faultNs: number = NOMINAL_NS.minorFault,
  stride = 1,
): undefined {
  self.op(KIND.touch, Math.round(pages * faultNs), addr, pages, stride, write ? 1 : 0);
}
