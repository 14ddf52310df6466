// pgd_list: the doubly linked list of PGD pages, through the struct page of each (page->lru),
// newest first. Guarded by pgd_lock. Linking and unlinking write the neighbours' struct pages too,
// which other CPUs touched last: that is the part of pgd_alloc and pgd_free that moves lines even
// when nobody waits for the lock.

import type {CacheLine} from '../../../../../machine/cache_line.ts';
import type {Cpu} from '../../../../../machine/cpu.ts';
import type {Machine} from '../../../../../machine/machine.ts';
import type {KernelPgd} from '../pgd_pool.ts';

/** The list head and what hangs on it. */
export class PgdList {
  first: KernelPgd | null = null;
  count = 0;

  constructor(
    readonly machine: Machine,
    /** Line of the list head. */
    readonly headLine: CacheLine,
  ) {}

  /** list_add(&page->lru, &pgd_list): the caller holds pgd_lock. */
  add(cpu: Cpu, pgd: KernelPgd, fn: number): void {
    const {lines, engine} = this.machine;
    const {first} = this;
    cpu.stall(this.headLine.write(cpu, engine.now), fn);
    cpu.stall(lines.touch(pgd.pageLine, cpu), fn);
    if (first !== null) {
      cpu.stall(lines.touch(first.pageLine, cpu), fn);
      first.prev = pgd;
    }
    pgd.next = first;
    pgd.prev = null;
    pgd.listed = true;
    this.first = pgd;
    this.count++;
  }

  /** list_del(&page->lru): the caller holds pgd_lock. */
  del(cpu: Cpu, pgd: KernelPgd, fn: number): void {
    const {lines, engine} = this.machine;
    const {next, prev} = pgd;
    cpu.stall(lines.touch(pgd.pageLine, cpu), fn);
    if (next !== null) {
      cpu.stall(lines.touch(next.pageLine, cpu), fn);
      next.prev = prev;
    }
    if (prev !== null) {
      cpu.stall(lines.touch(prev.pageLine, cpu), fn);
      prev.next = next;
    } else {
      cpu.stall(this.headLine.write(cpu, engine.now), fn);
      this.first = next;
    }
    pgd.next = null;
    pgd.prev = null;
    pgd.listed = false;
    this.count--;
  }
}
