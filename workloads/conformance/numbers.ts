// Numbers of the ABI that selftests use: protection, flags, advice, signals, and errors as calls
// return them.

export const NONE = 0;
export const R = 1;
export const W = 2;
export const RW = 3;

export const EPERM = -1;
export const ESRCH = -3;
export const EBADF = -9;
export const ENOMEM = -12;
export const EACCES = -13;
export const EFAULT = -14;
export const EINVAL = -22;

export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_LOCKED = 0x2000;
export const MAP_NORESERVE = 0x4000;
export const MAP_POPULATE = 0x8000;
export const MAP_HUGETLB = 0x40000;

export const MAYMOVE = 1;
export const FIXED = 3;
export const DONTUNMAP = 5;
export const DONTUNMAP_FIXED = 7;

/** A result that does not matter. */
export const ANY_RESULT = Number.MAX_SAFE_INTEGER;

export const SIGBUS = 7;
export const SIGSEGV = 11;

/** MADV_ numbers. */
export const ADVICE = Object.freeze({
  dontneed: 4,
  free: 8,
  remove: 9,
  dontfork: 10,
  dofork: 11,
  mergeable: 12,
  unmergeable: 13,
  hugepage: 14,
  nohugepage: 15,
  wipeonfork: 18,
  cold: 20,
  pageout: 21,
  populate_read: 22,
  populate_write: 23,
  collapse: 25,
  guard_install: 102,
  guard_remove: 103,
});
export type Advice = keyof typeof ADVICE;
