// The sleeping locks of hugetlb in their order: fault mutex (a table, hashed by file and page), vma
// lock (6.1+), i_mmap_rwsem. The vma lock keeps shared page tables in place: read by whoever uses
// an entry, written by whoever may unshare its table. A shared mapping has one of its own, the
// owner of a private one uses its reserve map's. Before 6.1 there is none.

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import {Mutex} from '../locking/mutex.ts';
import {RwSemaphore} from '../locking/rwsem.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {AddressSpace} from './address_space.ts';
import {vma_resv_map} from './hugetlb_resv.ts';
import type {VmArea} from './vma.ts';
import {VM_MAYSHARE} from './vma_flags.ts';

/** The locks of one kernel. */
export class HugetlbLocks {
  private readonly mutexes: (Mutex | undefined)[] = [];
  private readonly mask: number;
  private readonly byVma = new WeakMap<VmArea, RwSemaphore>();
  private readonly unmapped = new WeakSet<VmArea>();
  private readonly hasVmaLocks: boolean;

  constructor(readonly k: Kernel) {
    this.mask = 2 ** Math.ceil(Math.log2(8 * k.machine.topology.cpuCount)) - 1;
    this.hasVmaLocks = !isBefore(k.facts.version, '6.1');
  }

  /** hugetlb_fault_mutex_table[hash] of a file's huge page. */
  faultMutex(mapping: AddressSpace, index: number): Mutex {
    const hash = (Math.imul(mapping.id, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b)) >>> 7;
    const at = hash & this.mask;
    this.mutexes[at] ??= new Mutex(this.k, 'hugetlb_fault_mutex_table', {
      class: 'hugetlb_fault_mutex_table',
    });
    return this.mutexes[at];
  }

  /** The VMA's lock, null where it has none. */
  vmaLock(vma: VmArea): RwSemaphore | null {
    if (!this.hasVmaLocks || this.unmapped.has(vma)) return null;
    if ((vma.flags & VM_MAYSHARE) === 0) {
      const map = vma_resv_map(vma);
      if (map === null) return null;
      map.rwSema ??= new RwSemaphore(this.k, 'resv_map->rw_sema', {class: 'resv_map->rw_sema'});
      return map.rwSema;
    }
    let lock = this.byVma.get(vma);
    if (lock === undefined) {
      lock = new RwSemaphore(this.k, 'hugetlb_vma_lock', {class: 'hugetlb_vma_lock'});
      this.byVma.set(vma, lock);
    }
    return lock;
  }

  /** May this VMA take part in sharing page tables? Not any more once it is unmapped for good. */
  mayShare(vma: VmArea): boolean {
    return !this.unmapped.has(vma);
  }

  /** hugetlb_vma_lock_read: what was locked, for unlock_read. */
  *lock_read(t: Task, vma: VmArea, fn: number): Code<RwSemaphore | null> {
    const lock = this.vmaLock(vma);
    if (lock !== null && !lock.readAcquire(t, fn)) yield* lock.readAcquireSlow(t, fn);
    return lock;
  }

  *unlock_read(t: Task, lock: RwSemaphore | null): Code {
    if (lock !== null && !lock.readRelease(t)) yield* lock.readReleaseSlow(t);
  }

  /** hugetlb_vma_lock_write and i_mmap_lock_write. */
  *lock_write(t: Task, vma: VmArea, fn: number): Code<RwSemaphore[]> {
    const own = this.vmaLock(vma);
    const file = this.k.mm.iMmapLock(vma.mapping!);
    const locks = own === null ? [file] : [own, file];
    for (const lock of locks) if (!lock.writeAcquire(t, fn)) yield* lock.writeAcquireSlow(t, fn);
    return locks;
  }

  /**
   * Undoes lock_write. `final`: the mapping is gone, and with it its lock (before the file's is
   * dropped).
   */
  *unlock_write(t: Task, vma: VmArea, locks: readonly RwSemaphore[], final: boolean): Code {
    if (final) this.unmapped.add(vma);
    for (const lock of locks) if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
  }
}
