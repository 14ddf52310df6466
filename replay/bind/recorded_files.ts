// The files that a recording names, as files of the simulated machine: one AddressSpace for each
// name, made when it is first mapped, with what is known of its page cache. All copies of a trace
// share them, as processes share libraries.

import type {Kernel} from '../../kernel/kernel.ts';
import type {AddressSpace} from '../../kernel/mm/address_space.ts';
import {PG_readahead} from '../../kernel/mm/page_flags.ts';
import {hugeFile, mayGrow} from './huge_files.ts';
import type {CacheMarks, LockedPages} from '../page_cache_marks.ts';

/**
 * Files of tmpfs without a disk behind them: System V shared memory, POSIX shared memory, memfd.
 */
const SHMEM_NAMES = /^\/(SYSV[0-9a-f]{8}|dev\/shm\/|memfd:)/;

/** Files by recorded name. */
export class RecordedFiles {
  private readonly byName = new Map<string, AddressSpace>();
  private readonly names = new Map<number, string>();
  /** Files whose length is stated. */
  private readonly known = new Set<string>();
  /** Marks that end, by operation. */
  private readonly ends: {readonly op: number; readonly file: string; readonly page: number}[] = [];
  private nextEnd = 0;
  private readonly hasLocked: boolean;
  /** What the operation under way passes over. */
  private passed: LockedPages | null = null;

  constructor(
    private readonly kernel: Kernel,
    /** Pages that fault-around passes over (page_cache.ts). */
    private readonly marks: CacheMarks,
  ) {
    for (const [file, pages] of marks.pages) {
      for (const [page, op] of pages)
        if (op < Number.POSITIVE_INFINITY) this.ends.push({op, file, page});
    }
    this.hasLocked = marks.locked.size > 0;
    this.ends.sort((a, b) => a.op - b.op);
  }

  /** The operation by which the next page will have been read. */
  private firstEnd(): number {
    return this.nextEnd < this.ends.length ? this.ends[this.nextEnd].op : Number.POSITIVE_INFINITY;
  }

  /**
   * The file called `name`, at least `sizePages` long: a recording does not state sizes, so a file
   * is as long as the longest mapping of it that was seen.
   */
  named(name: string, sizePages: number): AddressSpace {
    let mapping = this.byName.get(name);
    if (mapping === undefined) {
      const huge = hugeFile(this.kernel, name, sizePages);
      const host = SHMEM_NAMES.test(name) ? 'shmem' : 'file';
      mapping = huge ?? this.kernel.mm.files.create(host, sizePages);
      this.byName.set(name, mapping);
      this.names.set(mapping.id, name);
      for (const page of this.marks.pages.get(name)?.keys() ?? []) {
        this.kernel.mm.readahead.mark(mapping, page);
      }
      for (const [page, order] of this.marks.folios.get(name) ?? []) {
        this.kernel.mm.largeFolios.mark(mapping, page, order);
      }
    }
    const grows = mapping.sizePages < sizePages && mayGrow(mapping) && !this.known.has(name);
    if (grows) mapping.sizePages = sizePages;
    return mapping;
  }

  /** The file called `name`, whose length the trace states from here on. */
  sized(name: string): AddressSpace {
    const mapping = this.named(name, 0);
    this.known.add(name);
    return mapping;
  }

  /** Operation `op` begins: pages that were read in by then are there. */
  reached(op: number): void {
    if (op >= this.firstEnd() || this.hasLocked) this.catchUp(op);
  }

  private catchUp(op: number): void {
    const {ends, passed} = this;
    if (passed !== null) {
      for (const page of passed.pages) this.wasRead(passed.file, page);
      this.passed = null;
    }
    while (op >= this.firstEnd()) {
      const {file, page} = ends[this.nextEnd++];
      this.wasRead(file, page);
    }
    const locked = this.marks.locked.get(op);
    if (locked !== undefined) this.passOver(locked);
  }

  private passOver(locked: LockedPages): void {
    const mapping = this.byName.get(locked.file);
    if (mapping === undefined) return;
    const {mm} = this.kernel;
    for (const page of locked.pages) {
      mm.readahead.mark(mapping, page);
      const pfn = mm.files.page(mapping, page);
      if (pfn > 0) mm.pages.flags[pfn] |= PG_readahead;
    }
    this.passed = locked;
  }

  private wasRead(name: string, page: number): void {
    const mapping = this.byName.get(name);
    if (mapping === undefined) return;
    const {mm} = this.kernel;
    mm.readahead.clear(mapping, page);
    const pfn = mm.files.page(mapping, page);
    if (pfn > 0) mm.pages.flags[pfn] &= ~PG_readahead;
  }

  /** Name of a file by the id of its AddressSpace. */
  nameOf(mappingId: number): string {
    return this.names.get(mappingId) ?? `file ${mappingId}`;
  }
}
