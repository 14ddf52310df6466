// Nominal durations: what an operation takes when nothing else runs. They only place events on a
// generated trace's time axis, so that timed replay and viewers have something sensible; no
// simulated cost comes from here.
//
// Sources: lmbench on Linux 6.14, 4.95 GHz (null syscall 0.130 us, context switch 3.4 us, fork+exit
// 178 us, fork+execve 549 us); 76 ns per page-table entry copied by fork is 10 ms for 512 MB in a
// VM (COW-PTE RFC v2, 2022). The split of fork+exit, the cost of a VMA, of a minor fault and
// of unmapping a page are assumptions.

/** Nominal ns by operation. */
export const NOMINAL_NS = Object.freeze({
  syscall: 130,
  wait4: 3_400,
  exit: 60_000,
  exec: 371_000, // fork+execve less fork+exit
  mapVma: 1_000,
  minorFault: 500,
  zapPage: 100,
  vmallocPage: 250,
  vmallocCall: 2_000,
  vmallocFault: 1_000,
  hotplugCall: 200_000,
  setMemory: 10_000,
  syncAll: 100_000,
  stopMachine: 50_000,
});

/** fork(2) of an address space with so many VMAs and present anonymous pages. */
export function forkNs(vmas: number, ptes: number): number {
  return 60_000 + 300 * vmas + 76 * ptes;
}

/** So many files opened, each by a call of its own. */
export function openFilesNs(files: number): number {
  return 1_000 * files;
}

/** A new thread of the same address space. */
export const THREAD_NS = 20_000;

/** vmalloc of so many bytes. */
export function vmallocNs(bytes: number): number {
  return NOMINAL_NS.vmallocCall + NOMINAL_NS.vmallocPage * Math.ceil(bytes / 4096);
}
