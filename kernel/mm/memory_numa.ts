// mm/memory.c and mm/huge_memory.c: NUMA hinting faults (do_numa_page, do_huge_pmd_numa_page),
// 6.18.
//
// The page was made inaccessible by the scan; the fault says who uses it. It moves to the CPU's
// node when should_numa_migrate_memory says so, and the mapping becomes accessible again, writable
// at once where a write fault would do nothing else (6.2+). A page that has moved is mapped by
// remove_migration_pte and so without write access: the write faults once more.
//
// Up to 6.1 a hinting entry kept its write bit (preserve_write); here the fault gives it back to
// private pages that were written and are mapped once.

import type {Code} from '../../machine/process.ts';
import {
  PTE_DIRTY,
  PTE_KIND,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SPECIAL,
  PTE_UFFD_WP,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import {NUMA_NO_NODE, NumaBalancing} from '../sched/numa.ts';
import {pidBit, task_numa_work, task_tick_numa} from '../sched/numa_scan.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {folio_mapcount} from './folio_counts.ts';
import {VM_FAULT_AGAIN} from './memory.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import type {Mm} from './mm_state.ts';
import {
  migrate_misplaced_folio,
  migrate_misplaced_folio_prepare,
  migrate_misplaced_transhuge_page,
} from './migrate_misplaced.ts';
import {compound_head, folio_nr_pages, folio_test_anon} from './page.ts';
import {PG_anon_exclusive, PG_device} from './page_flags.ts';
import {FAULT_NUMA, type VmFault} from './vm_fault.ts';
import type {VmArea} from './vma.ts';
import {VM_SHARED, VM_UFFD_WP, VM_WRITE} from './vma_flags.ts';

/** Moving a running task (stop_one_cpu). Assumption. */
const MOVE_TASK_TICKS = nsToTicks(1_000);

/** do_numa_page and do_huge_pmd_numa_page: f.slot is the entry, f.word what the fault saw. */
export function* do_numa_page(numa: NumaBalancing, t: Task, f: VmFault): Code<number> {
  const {k} = numa;
  const {mm} = k;
  const {migration, pt, pages} = mm;
  const fn = migration.fns.do_numa_page;
  const {slot} = f;
  t.cpu.charge(migration.costs.numaFaultTicks, fn);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
  if (pt.flags[slot] !== f.word || (pt.entries[slot] & 0x7fff_ffff) !== f.value) {
    pte_unlock(mm, t, slot);
    return VM_FAULT_AGAIN;
  }
  f.faultClass = FAULT_NUMA;
  const pfn = f.value;
  const head = compound_head(pages, pfn);
  if ((f.word & PTE_SPECIAL) !== 0 || (pages.flags[head] & PG_device) !== 0) {
    rebuild(k, f, slot, head);
    pte_unlock(mm, t, slot);
    return 0;
  }
  const check = numa_migrate_check(numa, t, f, head);
  const n = folio_nr_pages(pages, head);
  let {node} = check;
  let migrated = false;
  let failed = false;
  if (check.target !== NUMA_NO_NODE) {
    failed = !migrate_misplaced_folio_prepare(k, t, head, f.vma, check.target);
    if (!failed) {
      const small = slot !== f.pmdSlot;
      if (small && keepsWrite(k) && wasWritten(k, f, head)) pt.flags[slot] |= PTE_WRITE;
      pte_unlock(mm, t, slot);
      migrated =
        slot === f.pmdSlot && isBefore(k.facts.version, '5.14')
          ? yield* migrate_misplaced_transhuge_page(k, t, f, head, check.target)
          : yield* migrate_misplaced_folio(k, t, head, check.target);
      failed = !migrated;
      if (migrated) node = check.target;
      else while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
    }
  }
  if (!migrated) {
    if (isHint(k, f, slot, pfn)) rebuild(k, f, slot, head);
    pte_unlock(mm, t, slot);
  }
  const {last, local} = check;
  const wants = numa.fault(t, {node, pages: n, last, migrated, failed, local});
  if (wants) yield* task_numa_migrate(numa, t);
  return 0;
}

/** The entry is still the hinting entry of this page. */
function isHint(k: Kernel, f: VmFault, slot: number, pfn: number): boolean {
  const {pt} = k.mm;
  const same = (pt.entries[slot] & 0x7fff_ffff) === pfn;
  return same && (pt.flags[slot] & ~PTE_WRITE) === (f.word & ~PTE_WRITE);
}

interface Checked {
  readonly target: number;
  readonly node: number;
  readonly last: number;
  readonly local: boolean;
}

/** numa_migrate_check and mpol_misplaced: where the page should go, NUMA_NO_NODE to stay. */
function numa_migrate_check(numa: NumaBalancing, t: Task, f: VmFault, head: number): Checked {
  const {k} = numa;
  const {migration, pages} = k.mm;
  const here = k.machine.topology.nodeOf[t.cpu.id];
  const node = pages.nodeOf(head);
  const local = node === here;
  const state = numa.vma(f.vma);
  if (state !== null) state.pidsActive |= pidBit(t);
  migration.count('numa_hint_faults');
  if (local) migration.count('numa_hint_faults_local');
  const {move, last} = numa.shouldMigrate(t, head, node);
  return {target: move && f.vma.policy === 0 ? here : NUMA_NO_NODE, node, last, local};
}

function keepsWrite(k: Kernel): boolean {
  return isBefore(k.facts.version, '6.2');
}

function wasWritten(k: Kernel, f: VmFault, head: number): boolean {
  const {pages} = k.mm;
  if ((f.word & PTE_DIRTY) === 0 || (f.vma.flags & VM_WRITE) === 0) return false;
  return folio_test_anon(pages, head) && folio_mapcount(pages, head) === 1;
}

/** can_change_pte_writable. */
function writable(k: Kernel, vma: VmArea, word: number, pfn: number): boolean {
  const {pages} = k.mm;
  if ((vma.flags & VM_WRITE) === 0 || (word & PTE_SPECIAL) !== 0) return false;
  if ((word & PTE_UFFD_WP) !== 0 && (vma.flags & VM_UFFD_WP) !== 0) return false;
  if ((vma.flags & VM_SHARED) !== 0) return (word & PTE_DIRTY) !== 0;
  if (!folio_test_anon(pages, compound_head(pages, pfn))) return false;
  return (pages.flags[pfn] & PG_anon_exclusive) !== 0;
}

/**
 * numa_rebuild_single_mapping, numa_rebuild_large_mapping: accessible again; of a large folio that
 * PTEs map, all hinting entries of the same table.
 */
function rebuild(k: Kernel, f: VmFault, slot: number, head: number): void {
  const {pt, pages} = k.mm;
  const n = folio_nr_pages(pages, head);
  const special = (f.word & PTE_SPECIAL) !== 0;
  if (n === 1 || special || slot === f.pmdSlot) {
    rebuildOne(k, f, slot, head);
    return;
  }
  const own = slot & 511;
  const pfn = pt.entries[slot];
  const first = Math.max(0, own - (pfn - head));
  const last = Math.min(511, own + (head + n - 1 - pfn));
  for (let i = first; i <= last; i++) {
    const at = slot - own + i;
    const mapped = pt.entries[at] === pfn + (i - own);
    if (mapped && (pt.flags[at] & PTE_KIND) === PTE_PROTNONE) rebuildOne(k, f, at, head);
  }
}

function rebuildOne(k: Kernel, f: VmFault, slot: number, head: number): void {
  const {pt} = k.mm;
  const word = pt.flags[slot];
  const pfn = pt.entries[slot] & 0x7fff_ffff;
  const write = keepsWrite(k) ? wasWritten(k, f, head) : writable(k, f.vma, word, pfn);
  pt.flags[slot] = (word & ~(PTE_KIND | PTE_WRITE)) | PTE_PRESENT | PTE_YOUNG;
  if (write) pt.flags[slot] |= PTE_WRITE;
}

/**
 * task_numa_migrate, as far as an idle CPU of the preferred node is to be had; tasks are not
 * swapped.
 */
function* task_numa_migrate(numa: NumaBalancing, t: Task): Code {
  const {k} = numa;
  if (t.pinnedCpu >= 0) return;
  const {topology} = k.machine;
  const {preferredNode} = numa.of(t);
  const {rqs} = k.sched.dispatcher;
  const idle = rqs.findIndex((rq, cpu) => {
    return topology.nodeOf[cpu] === preferredNode && rq.current === null && rq.tasks.length === 0;
  });
  if (idle < 0) return;
  t.pinnedCpu = idle;
  yield* k.sched.sleep(t, MOVE_TASK_TICKS);
  t.pinnedCpu = -1;
  k.checks.count('numa_tasks_moved');
}

/**
 * Makes NUMA balancing part of a kernel: hinting faults everywhere, the scan where there are nodes.
 */
export function install_numa_balancing(k: Kernel, mm: Mm): NumaBalancing {
  const numa = new NumaBalancing(k);
  mm.hooks.do_numa_page = (t, f) => do_numa_page(numa, t, f);
  mm.hooks.do_huge_pmd_numa_page = (t, f) => do_numa_page(numa, t, f);
  if (numa.settings.enabled) {
    k.sched.taskWork = {
      due: (t) => task_tick_numa(numa, t),
      run: (t) => task_numa_work(numa, t),
    };
  }
  return numa;
}
