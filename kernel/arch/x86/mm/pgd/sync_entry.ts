// The body of sync_global_pgds' loop over PGDs, and of vmalloc_sync_one on 32 bits: copy a
// reference entry into a PGD that lacks it, BUG when the PGD has another one, clear it when the
// reference is gone (kernels 3.19 to 4.7).

import type {Cpu} from '../../../../../machine/cpu.ts';
import type {StoreBuffers} from '../../../../../machine/store_buffer.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {PgdVisitor} from '../../../../pgd_design.ts';
import type {KernelPageTables} from '../page_tables.ts';
import type {KernelPgd} from '../pgd_pool.ts';

/**
 * One walk's worth of synchronising entry `index`. Reused from walk to walk by `begin`. Ends at an
 * absent reference.
 */
export class EntrySync implements PgdVisitor {
  readonly locksPageTable = true;
  /** What the kernel would print at the BUG it hit, null without. */
  bug: string | null = null;
  private index = 0;
  private walk = 0;
  private clears = false;
  private readonly reference: Uint32Array;
  private readonly buffers: StoreBuffers;

  constructor(readonly tables: KernelPageTables) {
    this.reference = tables.swapper_pg_dir;
    this.buffers = tables.kernel.machine.storeBuffers;
  }

  /** Prepares for a walk; `clears`: the `removed` argument. */
  begin(index: number, walk: number, clears: boolean): this {
    this.index = index;
    this.walk = walk;
    this.clears = clears;
    this.bug = null;
    return this;
  }

  visit(cpu: Cpu, pgd: KernelPgd): boolean {
    const {tables, index, reference} = this;
    pgd.lastWalk = this.walk;
    if (this.buffers.pending === 0) {
      const present = reference[index];
      if (present !== 0 && present === pgd.cells[pgd.base + index]) return true;
    }
    const ref = tables.reference(cpu, index);
    if (ref === 0 && !this.clears) return false;
    const own = tables.entry(cpu, pgd, index);
    if (ref === own) return true;
    if (ref !== 0 && own !== 0) {
      this.bug = `BUG: entry ${index} of the PGD of mm ${pgd.mm?.id ?? 0} differs from the reference`;
      return false;
    }
    if (own === 0) tables.set_pgd(cpu, pgd, index, ref);
    else if (this.clears) tables.set_pgd(cpu, pgd, index, 0);
    return true;
  }
}

/**
 * The same for a walk that never indexes the PGD by address (pgd = mm->pgd, first two lockless
 * postings): it reads, checks and writes entry 0 of the user half instead, and the kernel entry
 * stays as it is.
 */
export class UnindexedSync implements PgdVisitor {
  readonly locksPageTable = true;
  bug: string | null = null;
  /** PGDs whose user entry 0 was written in this walk. */
  written = 0;
  private index = 0;
  private walk = 0;

  constructor(readonly tables: KernelPageTables) {}

  begin(index: number, walk: number, _clears: boolean): this {
    this.index = index;
    this.walk = walk;
    this.bug = null;
    this.written = 0;
    return this;
  }

  /** Reports what the walk did, if it wrote where it should not have. */
  report(kernel: Kernel, index: number): void {
    if (this.written === 0) return;
    kernel.checks.count('pgd_user_entry_written', this.written);
    kernel.checks.finding(
      `sync_global_pgds wrote kernel entry ${index} to user entry 0 of ${this.written} PGDs`,
    );
    this.written = 0;
  }

  visit(cpu: Cpu, pgd: KernelPgd): boolean {
    const {tables, index} = this;
    const userEntry = tables.layout.entries;
    pgd.lastWalk = this.walk;
    const ref = tables.reference(cpu, index);
    const own = tables.entry(cpu, pgd, userEntry);
    if (ref !== 0 && own !== 0 && ref !== own) {
      this.bug = `BUG: user entry 0 of the PGD of mm ${pgd.mm?.id ?? 0} differs from kernel entry ${index}`;
      return false;
    }
    if (own === 0 && ref !== 0) {
      this.written++;
      tables.set_pgd(cpu, pgd, userEntry, ref);
    }
    return true;
  }
}
