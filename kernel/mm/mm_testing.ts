// For tests of mm: a process on a whole kernel, mappings without the system calls around them, what
// the probe hears.

import type {Code} from '../../machine/process.ts';
import {userAccess, userAccessSlow} from '../arch/x86/mm/user_fault.ts';
import {testKernel} from '../fork_testing.ts';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {CopyWalk, copy_page_range, vma_needs_copy} from './memory_copy.ts';
import {free_pgtables} from './memory_free.ts';
import {unmap_vmas} from './memory_zap.ts';
import {tlb_finish_mmu, tlb_gather_mmu, tlb_gather_mmu_fullmm} from './mmu_gather.ts';
import type {MmProbe} from './probe.ts';
import {FAULT_CLASS_NAMES, X86_PF_USER, X86_PF_WRITE} from './vm_fault.ts';
import {anonProps, type VmArea} from './vma.ts';
import {VM_EXEC, VM_MAYREAD, VM_MAYWRITE, VM_READ, VM_SOFTDIRTY, VM_WRITE} from './vma_flags.ts';
import {detachRange, detachVma, dupVma, insertVma} from './vma_ops.ts';

const COUNTERS = ['FILE', 'ANON', 'SWAP', 'SHMEM'];
export const ANON_RW = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_SOFTDIRTY;
export const FILE_RX = VM_READ | VM_EXEC | VM_MAYREAD | VM_MAYWRITE;

/** Writes down what the probe hears, as short lines. */
export class ProbeLog implements MmProbe {
  readonly lines: string[] = [];

  rssStat(_mm: MmStruct, member: number, pages: number, currentIsMine: boolean): void {
    this.lines.push(`${COUNTERS[member]} ${pages}${currentIsMine ? '' : ' not mine'}`);
  }

  fault(_t: Task, _vpn: number, _errorCode: number, faultClass: number): void {
    this.lines.push(`fault ${FAULT_CLASS_NAMES[faultClass]}`);
  }

  tlbFlush(_cpu: unknown, pages: number, reason: number): void {
    this.lines.push(`flush ${pages} (${reason})`);
  }

  exitMmap(): void {
    this.lines.push('exit_mmap');
  }

  notifier(_mm: MmStruct, name: string, _event: number, site: string): void {
    this.lines.push(`${name} ${site}`);
  }

  /** What was heard since the last call. */
  take(): string[] {
    return this.lines.splice(0);
  }
}

/** What the one process of a test does. */
export type Program = (k: Kernel, t: Task, log: ProbeLog) => Code<unknown>;

/** A kernel with one process that runs `program`, to the end. */
export function runProcess(
  program: Program,
  version = '6.18',
  machine = '2s4c1t',
  overrides: readonly string[] = [],
): Kernel {
  const k = testKernel(machine, version, overrides);
  const log = new ProbeLog();
  k.mm.probe = log;
  k.tlb.traced = log;
  let done = false;
  startProcess(k, {
    tid: 100,
    comm: 'mm',
    pinnedCpu: 0,
    *program(t) {
      yield* program(k, t, log);
      done = true;
    },
  });
  k.machine.engine.run();
  if (!done) throw new Error('the program did not come to its end');
  return k;
}

/** A private anonymous mapping. */
export function mapAnon(k: Kernel, mm: MmStruct, start: number, pages: number): VmArea {
  const {space} = k.mm.userOf(mm);
  return insertVma(space, start, start + pages, start, anonProps(ANON_RW));
}

/** A private (or, with VM_SHARED in the flags, shared) mapping of a file. */
export function mapFile(
  k: Kernel,
  mm: MmStruct,
  start: number,
  pages: number,
  mapping: AddressSpace,
  pgoff = 0,
  flags = FILE_RX,
): VmArea {
  const {space} = k.mm.userOf(mm);
  const ops = mapping.host === 'shmem' ? 'shmem' : 'file';
  const props = {...anonProps(flags), file: mapping.id, mapping, ops} as const;
  return insertVma(space, start, start + pages, pgoff, props);
}

/** One access; returns the name of the fault's class. */
export function* access(k: Kernel, t: Task, vpn: number, write: boolean): Code<string> {
  const code = X86_PF_USER | (write ? X86_PF_WRITE : 0);
  let result = userAccess(k, t, vpn, code);
  if (result < 0) result = yield* userAccessSlow(k, t, vpn, code, result);
  return FAULT_CLASS_NAMES[result];
}

/** dup_mmap without its locks: a copy of all of `src`. */
export function* duplicate(k: Kernel, t: Task, src: MmStruct): Code<MmStruct> {
  const dst = k.newMm(0);
  dst.line = k.machine.lines.allocate(0);
  const {space} = k.mm.userOf(dst);
  const all: VmArea[] = [];
  for (let vma = src.user!.space.tree.first; vma !== null; vma = vma.next) all.push(vma);
  const walk = new CopyWalk(k, t, dst, src);
  for (const vma of all) {
    const copy = dupVma(vma, space, false);
    if (copy !== null && vma_needs_copy(copy, vma)) yield* copy_page_range(walk, copy, vma);
  }
  yield* k.tlb.flush_tlb_mm(t, src);
  return dst;
}

/** munmap without its locks. */
export function* unmap(k: Kernel, t: Task, mm: MmStruct, start: number, end: number): Code {
  const {space} = mm.user!;
  const vmas = detachRange(space, start, end);
  const tlb = tlb_gather_mmu(mm);
  const before = space.tree.before(start);
  const after = space.tree.find(end);
  yield* unmap_vmas(k, t, tlb, vmas, start, end);
  const floor = before === null ? 0 : before.end;
  yield* free_pgtables(k, t, tlb, mm, vmas, floor, after === null ? 2 ** 35 : after.start);
  yield* tlb_finish_mmu(k, t, tlb);
}

/** exit_mmap without its locks. */
export function* tearDown(k: Kernel, t: Task, mm: MmStruct): Code {
  const {space} = mm.user!;
  const all: VmArea[] = [];
  for (let vma = space.tree.first; vma !== null; vma = vma.next) all.push(vma);
  const tlb = tlb_gather_mmu_fullmm(mm);
  yield* unmap_vmas(k, t, tlb, all, 0, 2 ** 45);
  for (const vma of all) detachVma(vma);
  yield* free_pgtables(k, t, tlb, mm, all, 0, 2 ** 45);
  yield* tlb_finish_mmu(k, t, tlb);
}
