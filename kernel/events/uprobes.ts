// kernel/events/uprobes.c: breakpoints in files. Registering one writes it into every process that
// maps that page of the file privately and executable, and from then on into every new such
// mapping; each process gets a page of its own. Unregistering puts the instruction back.
//
// The list of mappings is taken under i_mmap_rwsem for read, then each mm is visited under its
// mmap_lock for write. How one page is written is in uprobes_write.ts. Not modelled: the trap
// itself, return probes, reference counters (ref_ctr), that forks wait meanwhile (dup_mmap_sem; its
// grace period is there), and that a forked child whose parent had a private page there before
// keeps it.

import {assert} from '../../machine/assert.ts';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {ENOENT, ENOSYS} from '../errno.ts';
import {mmget, mmput} from '../fork_mm.ts';
import type {Kernel} from '../kernel.ts';
import type {AddressSpace} from '../mm/address_space.ts';
import type {Mm} from '../mm/mm_state.ts';
import {mmap_write_lock, mmap_write_unlock} from '../mm/mmap_lock.ts';
import {MMF_HAS_UPROBES, MMF_RECALC_UPROBES, type UserMm} from '../mm/user_mm.ts';
import type {VmArea} from '../mm/vma.ts';
import {vma_address} from '../mm/vma.ts';
import {VM_HUGETLB, VM_MAYEXEC, VM_MAYSHARE, VM_WRITE} from '../mm/vma_flags.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {uprobe_write_opcode} from './uprobes_write.ts';

const PAGE_BYTES = 4096;
/**
 * Allocation, tree and consumer of one probe; one mapping looked at. Assumptions: registering takes
 * 5.9 ms (a grace period, 8.0 here) and unregistering 55 to 90, with 1 process or 32 that map the
 * page (measured: perf_event_open and close, Linux 6.18 in a 2-vCPU EPYC guest).
 */
const REGISTER_TICKS = nsToTicks(3_000);
const MAP_INFO_TICKS = nsToTicks(300);
/**
 * uprobe_unregister_sync (6.13+): a grace period of tasks-trace RCU and one of SRCU. Measured: what
 * unregistering takes (median 72 ms) without the grace period before it.
 */
const UNREGISTER_SYNC_TICKS = nsToTicks(64e6);

/** Breakpoints of one kernel. */
export class Uprobes {
  /** Breakpoints written and taken back, over all mms. */
  installed = 0;
  removed = 0;
  /** By file: byte offsets with their registrations. */
  private readonly byFile = new Map<number, Map<number, number>>();
  /** Mappings whose page was private before a breakpoint came: mm and page. */
  private readonly own = new Set<string>();
  private readonly fn: number;

  constructor(readonly k: Kernel) {
    this.fn = k.fn('register_for_each_vma');
  }

  /** Breakpoints in page `index` of a file. */
  inPage(mapping: AddressSpace, index: number): number {
    let count = 0;
    for (const offset of this.byFile.get(mapping.id)?.keys() ?? []) {
      if (Math.floor(offset / PAGE_BYTES) === index) count++;
    }
    return count;
  }

  /** uprobe_register at a byte offset of a file. 0, or -ENOSYS before 3.5. */
  *register(t: Task, mapping: AddressSpace, offset: number): Code<number> {
    const {k} = this;
    if (isBefore(k.facts.version, '3.5')) return -ENOSYS;
    t.cpu.charge(REGISTER_TICKS, this.fn);
    if (t.cpu.settle()) yield;
    let probes = this.byFile.get(mapping.id);
    if (probes === undefined) {
      probes = new Map();
      this.byFile.set(mapping.id, probes);
    }
    const count = probes.get(offset) ?? 0;
    probes.set(offset, count + 1);
    k.mm.hooks.uprobe_mmap = (task, vma, start, end) => this.uprobe_mmap(task, vma, start, end);
    if (count === 0) yield* this.register_for_each_vma(t, mapping, offset, true);
    return 0;
  }

  /** uprobe_unregister. 0, or -ENOENT. */
  *unregister(t: Task, mapping: AddressSpace, offset: number): Code<number> {
    const {k} = this;
    t.cpu.charge(REGISTER_TICKS, this.fn);
    if (t.cpu.settle()) yield;
    const probes = this.byFile.get(mapping.id);
    const count = probes?.get(offset) ?? 0;
    if (probes === undefined || count === 0) return -ENOENT;
    if (count > 1) {
      probes.set(offset, count - 1);
      return 0;
    }
    probes.delete(offset);
    if (probes.size === 0) this.byFile.delete(mapping.id);
    if (this.byFile.size === 0) this.k.mm.hooks.uprobe_mmap = null;
    yield* this.register_for_each_vma(t, mapping, offset, false);
    if (this.byFile.size === 0) this.own.clear();
    if (!isBefore(k.facts.version, '6.13')) yield* k.sched.sleep(t, UNREGISTER_SYNC_TICKS);
    return 0;
  }

  /** Visits every mm that maps the page. */
  private *register_for_each_vma(
    t: Task,
    mapping: AddressSpace,
    offset: number,
    install: boolean,
  ): Code {
    const {k} = this;
    const index = Math.floor(offset / PAGE_BYTES);
    // percpu_down_write(&dup_mmap_sem).
    yield* k.rcu.synchronize(t);
    for (const {user, vpn} of yield* this.build_map_info(t, mapping, index, install)) {
      yield* mmap_write_lock(t, user, this.fn);
      const vma = user.space.tree.lookup(vpn);
      if (vma !== null && vma.mapping === mapping && valid_vma(vma, install)) {
        if (vma_address(vma, index) === vpn) yield* this.change(t, user, vma, vpn, install);
      }
      yield* mmap_write_unlock(t, user);
      yield* mmput(k, t, user.mm);
    }
  }

  /** The mms and pages that map page `index`, each mm with a reference. */
  private *build_map_info(
    t: Task,
    mapping: AddressSpace,
    index: number,
    install: boolean,
  ): Code<{readonly user: UserMm; readonly vpn: number}[]> {
    const {mm} = this.k;
    const lock = mm.iMmapLock(mapping);
    if (!lock.readAcquire(t, this.fn)) yield* lock.readAcquireSlow(t, this.fn);
    const found: {user: UserMm; vpn: number}[] = [];
    const {forest} = mm.files;
    for (let node = forest.iterFirst(mapping, index, index); node !== 0; ) {
      const vma = forest.item[node]!;
      node = forest.iterNext(node, index, index);
      t.cpu.charge(MAP_INFO_TICKS, this.fn);
      const user = mm.byId(vma.space.mmId);
      const vpn = vma_address(vma, index);
      if (user === null || user.mm.users === 0 || vpn < 0 || !valid_vma(vma, install)) continue;
      found.push({user, vpn});
    }
    for (const {user} of found) yield* mmget(this.k, t, user.mm);
    if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
    return found;
  }

  /** install_breakpoint, remove_breakpoint; mmap_lock is held for write. */
  private *change(t: Task, user: UserMm, vma: VmArea, vpn: number, install: boolean): Code {
    const {k} = this;
    const key = `${user.mm.id} ${vpn}`;
    const index = vma.pgoff + (vpn - vma.start);
    const mapping = vma.mapping;
    assert(mapping !== null, 'uprobe in an anonymous mapping');
    if (install) user.flags |= MMF_HAS_UPROBES;
    else user.flags |= MMF_RECALC_UPROBES;
    // The page is as it is in the file once no breakpoint is left, unless it was private before.
    const identical = !install && this.inPage(mapping, index) === 0 && !this.own.has(key);
    const done = yield* uprobe_write_opcode(k, t, user, vma, vpn, install, identical);
    // Private, and not by an earlier breakpoint.
    if (install && done === 'private' && this.inPage(mapping, index) === 1) this.own.add(key);
    if (done === 'failed' || done === 'nothing') return;
    if (install) this.installed++;
    else this.removed++;
    if (!install && this.inPage(mapping, index) === 0) this.own.delete(key);
  }

  /** uprobe_mmap: what is newly mapped gets its file's breakpoints. mmap_lock is held for write. */
  private *uprobe_mmap(t: Task, vma: VmArea, start: number, end: number): Code {
    const {mapping} = vma;
    if (mapping === null || !valid_vma(vma, true)) return;
    const user = this.k.mm.byId(vma.space.mmId)!;
    const indices = new Set<number>();
    for (const offset of this.byFile.get(mapping.id)?.keys() ?? []) {
      indices.add(Math.floor(offset / PAGE_BYTES));
    }
    for (const index of indices) {
      const vpn = vma_address(vma, index);
      if (vpn >= start && vpn < end) yield* this.change(t, user, vma, vpn, true);
    }
  }
}

/** valid_vma: private, executable, of a file; nothing is installed where the process may write. */
function valid_vma(vma: VmArea, register: boolean): boolean {
  const mask = VM_HUGETLB | VM_MAYEXEC | VM_MAYSHARE | (register ? VM_WRITE : 0);
  return vma.mapping !== null && (vma.flags & mask) === VM_MAYEXEC;
}

/** The breakpoints of a kernel, made with the first one. */
export function uprobesOf(k: Kernel, mm: Mm = k.mm): Uprobes {
  mm.uprobes ??= new Uprobes(k);
  return mm.uprobes;
}
