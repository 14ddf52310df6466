// PGD pages. The kernel half of every PGD is a row of 32-bit cells; rows live in chunks, 64 PGDs to
// an array, so that 60,000 live processes cost 1 KB each (2 KB with private PAE) and no array
// object of their own.
//
// A row has one cell more than the kernel half has entries. It stands for entry 0 of the user half,
// which only the first two lockless postings write, by mistake; nothing else of the user half is
// kept here. Rows are reused, KernelPgd objects are not: whoever still holds the object of a freed
// PGD can be told so.

import type {Kernel} from '../../../kernel.ts';
import type {BulkLock} from '../../../locking/bulk_lock.ts';
import type {MmStruct, Pgd} from '../../../mm_types.ts';
import type {PagingLayout} from './layout.ts';

const PER_CHUNK = 64;

/** A page-global directory of one mm (or the reference one, or a special one of EFI). */
export class KernelPgd implements Pgd {
  next: KernelPgd | null = null;
  prev: KernelPgd | null = null;
  listed = false;
  freed = false;
  pinned = false;
  /** Xen: pinned by xen_mm_pin_all only for the time of a suspend (PageSavePinned). */
  savePinned = false;
  kernelCount = 0;
  allocated = false;
  /**
   * Tick at which the creator had done all it does to the kernel half, -1 before: then a missing
   * entry is missed.
   */
  completedAt = -1;
  /**
   * Entries counted as missed, and the index of the entry last reported as stale (pgd/check.ts).
   */
  missed = 0;
  stale = -1;
  /** Number of the newest walk that came here (pgd/walk.ts), 0 for none. */
  lastWalk = 0;
  /** Row in the pool, -1 when the cells are not a row. */
  row = -1;
  /** page_table_lock of `mm`, here so that a walk has one object less to look at. */
  readonly page_table_lock: BulkLock | null;

  constructor(
    readonly cells: Uint32Array,
    /** Index of kernel entry 0 in `cells`. */
    readonly base: number,
    readonly entryLine: number,
    readonly pageLine: number,
    public mm: MmStruct | null,
    /** Order of creation, from 1. */
    readonly sequence: number,
    /** Name of a PGD that belongs to no process. */
    readonly special: string | null,
  ) {
    this.page_table_lock = mm?.pageTableLock ?? null;
  }
}

/** All PGDs that are not freed. */
export class PgdPool {
  /** Live PGDs of processes, in no particular order that matters: iterate through `forEach`. */
  private readonly live = new Set<KernelPgd>();
  private readonly specials: KernelPgd[] = [];
  private readonly freeRows: number[] = [];
  private readonly chunks: Uint32Array[] = [];
  private readonly rowCells: number;
  private rows = 0;
  private created = 0;

  constructor(
    readonly kernel: Kernel,
    readonly layout: PagingLayout,
    private readonly reference: Uint32Array,
  ) {
    this.rowCells = layout.entries + 1;
  }

  get size(): number {
    return this.live.size;
  }

  /** Sequence number of the newest PGD. */
  get newest(): number {
    return this.created;
  }

  /** init_mm's PGD: swapper_pg_dir itself. */
  referencePgd(mm: MmStruct): KernelPgd {
    const {lines} = this.kernel.machine;
    const pgd = new KernelPgd(
      this.reference,
      0,
      lines.allocate(0),
      lines.allocate(0),
      mm,
      0,
      'swapper_pg_dir',
    );
    pgd.completedAt = 0;
    return pgd;
  }

  /** A zeroed PGD page on `node`. With SHARED_KERNEL_PMD its kernel half is the shared page. */
  allocate(mm: MmStruct, node: number): KernelPgd {
    const {lines} = this.kernel.machine;
    const sequence = ++this.created;
    const entryLine = lines.allocate(node);
    const pageLine = lines.allocate(node);
    if (this.layout.sharedKernelPmd) {
      const shared = new KernelPgd(this.reference, 0, entryLine, pageLine, mm, sequence, null);
      this.live.add(shared);
      return shared;
    }
    const row = this.freeRows.pop() ?? this.rows++;
    const cells = this.chunkOf(row);
    const base = (row % PER_CHUNK) * this.rowCells;
    cells.fill(0, base, base + this.rowCells);
    const pgd = new KernelPgd(cells, base, entryLine, pageLine, mm, sequence, null);
    pgd.row = row;
    this.live.add(pgd);
    return pgd;
  }

  /** The PGD named `name` that belongs to no mm and is on no list; made when first asked for. */
  special(name: string): KernelPgd {
    const known = this.specials.find((pgd) => pgd.special === name);
    if (known !== undefined) return known;
    const {lines} = this.kernel.machine;
    const pgd = new KernelPgd(
      new Uint32Array(this.rowCells),
      0,
      lines.allocate(0),
      lines.allocate(0),
      null,
      ++this.created,
      name,
    );
    pgd.completedAt = 0;
    this.specials.push(pgd);
    return pgd;
  }

  free(pgd: KernelPgd): void {
    const {lines} = this.kernel.machine;
    pgd.freed = true;
    pgd.mm = null;
    this.live.delete(pgd);
    lines.release(pgd.entryLine);
    lines.release(pgd.pageLine);
    if (pgd.row >= 0) this.freeRows.push(pgd.row);
  }

  /** Visits every live PGD of a process, oldest first. */
  forEach(visit: (pgd: KernelPgd) => void): void {
    for (const pgd of this.live) visit(pgd);
  }

  private chunkOf(row: number): Uint32Array {
    const chunk = Math.floor(row / PER_CHUNK);
    this.chunks[chunk] ??= new Uint32Array(PER_CHUNK * this.rowCells);
    return this.chunks[chunk];
  }
}
