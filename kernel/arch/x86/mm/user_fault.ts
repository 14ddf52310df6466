// arch/x86/mm/fault.c: faults on user addresses (exc_page_fault, do_user_addr_fault), 6.18.
//
// Two halves, as in mm/memory.c. faultFast is plain: it works when the VMA can be had without
// waiting (its lock since 6.4, mmap_lock before) and the fault needs nothing that sleeps; all of it
// then happens at one simulated time, and what it cost is charged after. faultSlow is the whole
// function: VMA lock, then mmap_lock, growth of stacks, retries. userAccess is the hardware in
// front: it looks at the page table, and only what the MMU refuses becomes a fault.

import type {Code} from '../../../../machine/process.ts';
import type {Kernel} from '../../../kernel.ts';
import {finish_mm_fault, is_fault_error, try_handle_mm_fault} from '../../../mm/memory.ts';
import {anon_vma_prepare} from '../../../mm/memory_anon.ts';
import type {UserMm} from '../../../mm/user_mm.ts';
import {
  FAULT_FLAG_ALLOW_RETRY,
  FAULT_FLAG_INSTRUCTION,
  FAULT_FLAG_INTERRUPTIBLE,
  FAULT_FLAG_KILLABLE,
  FAULT_FLAG_TRIED,
  FAULT_FLAG_USER,
  FAULT_FLAG_VMA_LOCK,
  FAULT_FLAG_WRITE,
  FAULT_KILLED,
  FAULT_NONE,
  FAULT_OOM,
  FAULT_SIGBUS,
  FAULT_SIGSEGV,
  VM_FAULT_OOM,
  VM_FAULT_RETRY,
  VM_FAULT_SIGSEGV,
  VM_FAULT_UNLOCKED,
  VmFault,
  X86_PF_INSTR,
  X86_PF_PROT,
  X86_PF_USER,
  X86_PF_WRITE,
} from '../../../mm/vm_fault.ts';
import type {VmArea} from '../../../mm/vma.ts';
import {VM_ACCESS, VM_EXEC, VM_GROWSDOWN, VM_WRITE} from '../../../mm/vma_flags.ts';
import {
  vma_end_read,
  vma_end_write_all,
  vma_start_read,
  vma_start_write,
} from '../../../mm/vma_lock.ts';
import {expandDownwards} from '../../../mm/vma_ops.ts';
import type {MmStruct} from '../../../mm_types.ts';
import type {Task} from '../../../task.ts';
import {isBefore} from '../../../version.ts';
import {hardwareWalk, pteSlot, walkSlot} from './pgtable.ts';
import {PTE_HUGE, PTE_KIND, PTE_PRESENT, PTE_PROTNONE} from './pgtable_bits.ts';

/** faultFast cannot: go on with faultSlow. */
const SLOW = -1;
/** As SLOW, and the exception and the way to the VMA are paid for. */
const SLOW_CHARGED = -2;
/** The fault is done, but giving mmap_lock back must wake somebody; the class is added. */
const RELEASE = -100;

/**
 * A user (or, without X86_PF_USER, kernel) access to page `vpn` of t's mm as the hardware does it:
 * a present entry with enough rights is used (accessed, dirty), else a fault is taken. `errorCode`:
 * the X86_PF_ bits of the access: WRITE, USER, INSTR. Returns a FAULT_ class, FAULT_NONE without a
 * fault. Negative: go on with userAccessSlow, giving it the value.
 */
export function userAccess(k: Kernel, t: Task, vpn: number, errorCode: number): number {
  const {cpu} = t;
  if (cpu.settle()) return SLOW;
  const user = t.mm!.user;
  if (user !== null && hardwareWalk(user.pgd, vpn, (errorCode & X86_PF_WRITE) !== 0) >= 0) {
    cpu.stall(k.machine.topology.l1HitTicks, k.mm.fns.user_access);
    return FAULT_NONE;
  }
  return faultSettled(k, t, vpn, errorCode);
}

/**
 * After userAccess returned the negative `code`: others come first, then the access can be made
 * again.
 */
export function mustYield(t: Task, code: number): boolean {
  return code > RELEASE && t.process!.pendingKey !== 0;
}

/** After userAccess returned `code`. */
export function* userAccessSlow(
  k: Kernel,
  t: Task,
  vpn: number,
  errorCode: number,
  code: number,
): Code<number> {
  if (mustYield(t, code)) {
    yield;
    const again = userAccess(k, t, vpn, errorCode);
    if (again >= 0) return again;
    if (!mustYield(t, again)) code = again;
  }
  return yield* faultSlow(k, t, vpn, errorCode, code);
}

/**
 * exc_page_fault for user addresses, taken whatever the page table says. Negative: go on with
 * faultSlow, giving it the value.
 */
export function faultFast(k: Kernel, t: Task, vpn: number, errorCode: number): number {
  if (t.cpu.settle()) return SLOW;
  return faultSettled(k, t, vpn, errorCode);
}

function faultSettled(k: Kernel, t: Task, vpn: number, errorCode: number): number {
  const mm = t.mm!;
  const {user} = mm;
  if (user === null) return SLOW;
  const vma = user.space.tree.lookup(vpn);
  if (vma === null || access_error(k, user, vma, vpn, errorCode)) return SLOW;
  const state = k.mm;
  const {cpu} = t;
  const locked = vma_start_read(k, user, vma, false);
  if (!locked && !user.mmapLock.tryReadAcquire(t, state.fns.do_user_addr_fault)) return SLOW;
  const f = state.fastFault;
  f.reset(mm, user, vma, vpn, faultFlags(errorCode) | (locked ? FAULT_FLAG_VMA_LOCK : 0));
  const {topology} = k.machine;
  cpu.charge(topology.pageFaultEntryTicks, state.fns.asm_exc_page_fault);
  cpu.charge(state.costs.faultBaseTicks, state.fns.do_user_addr_fault);
  cpu.stall(k.layout.faultLine.read(cpu, k.machine.engine.now), state.fns.do_user_addr_fault);
  if (locked) cpu.stall(vmaLockTicks(k, t, vma), state.fns.lock_vma_under_rcu);
  const result = try_handle_mm_fault(k, t, f);
  const done = result === 0;
  if (done) {
    const {faultClass} = f;
    if (state.probe !== null) state.probe.fault(t, vpn, errorCode, faultClass);
    if (locked || user.mmapLock.readRelease(t)) return faultClass;
    return RELEASE - faultClass;
  }
  if (locked || user.mmapLock.readRelease(t)) return SLOW_CHARGED;
  return RELEASE - RETRY_AFTER_RELEASE;
}
const RETRY_AFTER_RELEASE = 99;
/** Not a class: userfaultfd has given the lock up, the fault is taken again under mmap_lock. */
const TAKE_AGAIN = -1;

/**
 * vm_refcnt goes up and, after the fault, down: two locked operations on the VMA's line. Where
 * other CPUs fault in the same VMA they have taken the line in between, so it comes twice, and they
 * get it one after the other.
 */
function vmaLockTicks(k: Kernel, t: Task, vma: VmArea): number {
  const {topology, engine} = k.machine;
  const {id} = t.cpu;
  vma.lockLine ??= {cpu: id, tick: 0};
  const line = vma.lockLine;
  const last = line.cpu;
  line.cpu = id;
  if (last === id) return 2 * topology.atomicLocalTicks;
  const transfers = 2 * topology.transferTicks(last, id, topology.nodeOf[last]);
  const now = engine.now + t.cpu.pendingTicks;
  const from = Math.max(now, line.tick);
  line.tick = from + transfers;
  return from - now + transfers;
}

function faultFlags(errorCode: number): number {
  let flags = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE | FAULT_FLAG_INTERRUPTIBLE;
  if ((errorCode & X86_PF_WRITE) !== 0) flags |= FAULT_FLAG_WRITE;
  if ((errorCode & X86_PF_INSTR) !== 0) flags |= FAULT_FLAG_INSTRUCTION;
  if ((errorCode & X86_PF_USER) !== 0) flags |= FAULT_FLAG_USER;
  return flags;
}

/**
 * access_error: the VMA does not allow what was tried. X86_PF_PROT is derived from the page table,
 * not taken from the caller.
 */
function access_error(
  k: Kernel,
  user: UserMm,
  vma: VmArea,
  vpn: number,
  errorCode: number,
): boolean {
  if ((errorCode & X86_PF_WRITE) !== 0) return (vma.flags & VM_WRITE) === 0;
  if ((vma.flags & VM_ACCESS) === 0) return true;
  if ((errorCode & X86_PF_INSTR) !== 0) return (vma.flags & VM_EXEC) === 0;
  return (errorCode & X86_PF_PROT) !== 0 && isPresent(k, user, vpn) && !isNumaHint(k, user, vpn);
}

function wordOf(k: Kernel, user: UserMm, vpn: number): number {
  const {flags} = k.mm.pt;
  const slot = pteSlot(user.pgd, vpn);
  if (slot >= 0) return flags[slot];
  const word = flags[walkSlot(user.pgd, vpn)];
  return (word & PTE_HUGE) === 0 ? 0 : word;
}

function isPresent(k: Kernel, user: UserMm, vpn: number): boolean {
  return (wordOf(k, user, vpn) & PTE_KIND) === PTE_PRESENT;
}

function isNumaHint(k: Kernel, user: UserMm, vpn: number): boolean {
  return (wordOf(k, user, vpn) & PTE_KIND) === PTE_PROTNONE;
}

/**
 * do_user_addr_fault in full: per-VMA lock, else mmap_lock, stack growth, handle_mm_fault. `code`
 * is what faultFast returned. Returns a FAULT_ class; a signal for a bad access is the caller's to
 * deliver.
 */
export function* faultSlow(
  k: Kernel,
  t: Task,
  vpn: number,
  errorCode: number,
  code = SLOW,
): Code<number> {
  const {mm: state} = k;
  const mm = t.mm!;
  if (code <= RELEASE) {
    yield* mm.user!.mmapLock.readReleaseSlow(t);
    if (code > RELEASE - RETRY_AFTER_RELEASE) return RELEASE - code;
  } else if (t.process!.pendingKey !== 0) {
    yield;
  }
  if (code === SLOW) {
    t.cpu.charge(k.machine.topology.pageFaultEntryTicks, state.fns.asm_exc_page_fault);
    t.cpu.charge(state.costs.faultBaseTicks, state.fns.do_user_addr_fault);
  }
  if (t.cpu.settle()) yield;
  const read = k.layout.faultLine.read(t.cpu, k.machine.engine.now);
  t.cpu.stall(read, state.fns.do_user_addr_fault);
  let faultClass = yield* do_user_addr_fault(k, t, mm, vpn, errorCode);
  while (faultClass === TAKE_AGAIN) {
    faultClass = yield* do_user_addr_fault(k, t, mm, vpn, errorCode, FAULT_FLAG_TRIED);
  }
  const {pagefault_out_of_memory} = state.hooks;
  while (faultClass === FAULT_OOM && pagefault_out_of_memory !== null) {
    if (!(yield* pagefault_out_of_memory(t))) break;
    faultClass = yield* do_user_addr_fault(k, t, mm, vpn, errorCode);
  }
  state.probe?.fault(t, vpn, errorCode, faultClass);
  return faultClass;
}

function* do_user_addr_fault(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  vpn: number,
  errorCode: number,
  tried = 0,
): Code<number> {
  const {mm: state} = k;
  const user = state.userOf(mm);
  const flags = faultFlags(errorCode) | tried;
  const near = tried === 0 ? user.space.tree.lookup(vpn) : null;
  if (near !== null && vma_start_read(k, user, near, true)) {
    t.cpu.stall(vmaLockTicks(k, t, near), state.fns.lock_vma_under_rcu);
    if (access_error(k, user, near, vpn, errorCode)) {
      vma_end_read(k, user, near);
      return badAccess(k, t);
    }
    const f = new VmFault(mm, user, near, vpn, flags | FAULT_FLAG_VMA_LOCK);
    const result = yield* finish_mm_fault(k, t, f);
    if ((result & VM_FAULT_UNLOCKED) !== 0) return t.sigkill ? FAULT_KILLED : TAKE_AGAIN;
    vma_end_read(k, user, near);
    return outcome(f, result);
  }
  const {mmapLock} = user;
  t.cpu.charge(state.costs.faultMmapLockTicks, state.fns.do_user_addr_fault);
  if (!mmapLock.readAcquire(t, state.fns.do_user_addr_fault)) {
    const taken = yield* mmapLock.readAcquireSlow(t, state.fns.do_user_addr_fault, isKillable(k));
    if (!taken) return FAULT_KILLED;
  }
  let vma = user.space.tree.find(vpn);
  if (vma === null || (vma.start > vpn && (vma.flags & VM_GROWSDOWN) === 0)) {
    if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
    return badAccess(k, t);
  }
  if (vma.start > vpn) {
    vma = yield* growStack(k, t, user, vpn);
    if (vma === null) return t.sigkill ? FAULT_KILLED : badAccess(k, t);
  }
  let faultClass: number = FAULT_SIGSEGV;
  if (!access_error(k, user, vma, vpn, errorCode)) {
    const f = new VmFault(mm, user, vma, vpn, flags);
    const result = yield* finish_mm_fault(k, t, f);
    if ((result & VM_FAULT_UNLOCKED) !== 0) return t.sigkill ? FAULT_KILLED : TAKE_AGAIN;
    faultClass = outcome(f, result);
  }
  if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
  return faultClass === FAULT_SIGSEGV ? badAccess(k, t) : faultClass;
}

/** lock_mm_and_find_vma: a fatal signal ends the wait for mmap_lock (6.5+). */
function isKillable(k: Kernel): boolean {
  return !isBefore(k.facts.version, '6.5');
}

/** bad_area: what the signal costs; delivering it is the caller's business. */
function badAccess(k: Kernel, t: Task): number {
  t.cpu.charge(k.mm.costs.sigsegvTicks, k.mm.fns.do_user_addr_fault);
  return FAULT_SIGSEGV;
}

function outcome(f: VmFault, result: number): number {
  if ((result & VM_FAULT_RETRY) !== 0) return FAULT_KILLED;
  if (!is_fault_error(result)) return f.faultClass;
  if ((result & VM_FAULT_OOM) !== 0) return FAULT_OOM;
  return (result & VM_FAULT_SIGSEGV) !== 0 ? FAULT_SIGSEGV : FAULT_SIGBUS;
}

/**
 * lock_mm_and_find_vma's second half: mmap_lock (held for read) is taken for write, the stack
 * grows, and it is read-locked again. Null: no stack there, or it may not grow; the lock is dropped
 * then.
 */
function* growStack(k: Kernel, t: Task, user: UserMm, vpn: number): Code<VmArea | null> {
  const {mmapLock} = user;
  const {fns, costs} = k.mm;
  if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
  if (!mmapLock.writeAcquire(t, fns.expand_stack)) {
    if (!(yield* mmapLock.writeAcquireSlow(t, fns.expand_stack, isKillable(k)))) return null;
  }
  let vma = user.space.tree.find(vpn);
  if (vma !== null && vma.start > vpn) {
    yield* vma_start_write(k, t, user, vma);
    const fits = vma.end - vpn <= STACK_RLIMIT_PAGES;
    const grows = (vma.flags & VM_GROWSDOWN) !== 0 && fits;
    if (grows) anon_vma_prepare(k, t, vma, 0);
    t.cpu.charge(costs.expandStackTicks, fns.expand_stack);
    if (!grows || !expandDownwards(vma, vpn)) vma = null;
  }
  vma_end_write_all(user);
  if (vma === null) {
    if (!mmapLock.writeRelease(t)) yield* mmapLock.writeReleaseSlow(t);
    return null;
  }
  yield* mmapLock.downgrade(t);
  return vma;
}
/** RLIMIT_STACK, 8 MB. */
const STACK_RLIMIT_PAGES = 2048;
