// The translation state of one CPU, as far as Linux keeps it in cpu_tlbstate: which address space
// is loaded, whether it is kept only lazily (a kernel thread runs on it), and up to which
// generation of that mm's changes it has flushed.

/** What was flushed, counted for the reports. */
export interface TlbCounts {
  full: number;
  pages: number;
  switches: number;
}

/** TLB of one CPU. `contextId` names an mm; 0 is none. */
export class Tlb {
  contextId = 0;
  lazy = false;
  generation = 0;
  readonly counts: TlbCounts = {full: 0, pages: 0, switches: 0};

  load(contextId: number, generation: number): void {
    if (contextId !== this.contextId) this.counts.switches++;
    this.contextId = contextId;
    this.generation = generation;
    this.lazy = false;
  }

  /** Catches up with `generation` by throwing out everything. */
  flushAll(generation: number): void {
    this.generation = Math.max(this.generation, generation);
    this.counts.full++;
  }

  flushPages(pages: number, generation: number): void {
    this.generation = Math.max(this.generation, generation);
    this.counts.pages += pages;
  }
}
