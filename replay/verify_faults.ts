// What a page fault was, told by what the kernel said while it handled it.
//
// The same function looks at the recorded answers and at the simulated ones, so two faults are of
// one class exactly when both kernels did the same: which counters moved, whether a translation was
// flushed, whether the entry was present (bit 0 of the error code). How far FILE moved is not part
// of the class: the rss samples check that.

import {MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS} from '../kernel/mm/rss.ts';

export const FAULT_CLASSES = [
  'anon',
  'huge',
  'file',
  'shmem',
  'cow_file',
  'cow_zero',
  'cow_anon',
  'reuse',
  'swap',
  'empty',
] as const;
export type FaultClass = (typeof FAULT_CLASSES)[number];

const HUGE_PAGES = 512;

/** Collects what happens during one fault to the counters of the faulting mm. */
export class FaultEvidence {
  private readonly change = new Int32Array(4);
  private lastAnon = 0;
  private flushed = false;
  /** A record that repeats the value: fault-around that found nothing. */
  private sawFile = false;

  clear(): void {
    this.change.fill(0);
    this.lastAnon = 0;
    this.flushed = false;
    this.sawFile = false;
  }

  /**
   * Counter `member` changed by `pages`. Reclaim inside a fault takes pages of the same mm away,
   * always ANON -1 and SWAP +1 in this order: such pairs say nothing about the fault.
   */
  rss(member: number, pages: number): void {
    if (member === MM_SWAPENTS && pages > 0 && this.lastAnon < 0) {
      this.change[MM_ANONPAGES] -= this.lastAnon;
      this.lastAnon = 0;
      return;
    }
    this.lastAnon = member === MM_ANONPAGES ? pages : 0;
    if (member === MM_FILEPAGES) this.sawFile = true;
    this.change[member] += pages;
  }

  /** A flush of one page of this mm by the faulting task. */
  flush(pages: number, reason: number): void {
    if (pages === 1 && (reason === 3 || reason === 4)) this.flushed = true;
  }

  /** `present`: the entry was, as bit 0 of the error code says. */
  classOf(present: boolean): FaultClass {
    const {change} = this;
    const anon = change[MM_ANONPAGES];
    if (anon >= HUGE_PAGES) return 'huge';
    if (anon > 0 && change[MM_SWAPENTS] < 0) return 'swap';
    if (anon > 0 && change[MM_FILEPAGES] < 0) return 'cow_file';
    if (anon > 0) return present ? 'cow_zero' : 'anon';
    if (change[MM_SHMEMPAGES] > 0) return 'shmem';
    if (change[MM_FILEPAGES] > 0 || this.sawFile) return 'file';
    if (!present) return 'empty';
    return this.flushed ? 'cow_anon' : 'reuse';
  }
}
