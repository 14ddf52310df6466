// arch/x86/mm/fault.c: faults on user addresses.
import {bug} from '../../../../machine/assert.ts';
import type {Code} from '../../../../machine/engine.ts';
import type {Kernel} from '../../../kernel.ts';
import type {Task} from '../../../task.ts';

/**
 * A user (or, without X86_PF_USER, kernel) access to page `vpn` of t's mm as the hardware does it: a present entry with enough
 * rights is used (accessed, dirty), else a fault is taken. `errorCode`: X86_PF_ bits of the access that matter: WRITE, USER,
 * INSTR. Returns a FAULT_ class, FAULT_NONE without a fault. Negative: go on with userAccessSlow.
 */
export function userAccess(k: Kernel, t: Task, vpn: number, errorCode: number): number {
  return bug(`not there yet ${k} ${t} ${vpn} ${errorCode}`);
}

/** After userAccess returned a negative value. */
export function* userAccessSlow(k: Kernel, t: Task, vpn: number, errorCode: number): Code<number> {
  return bug(`not there yet ${k} ${t} ${vpn} ${errorCode}`);
}

/** exc_page_fault for user addresses, taken whatever the page table says. Negative: go on with faultSlow. */
export function faultFast(k: Kernel, t: Task, vpn: number, errorCode: number): number {
  return bug(`not there yet ${k} ${t} ${vpn} ${errorCode}`);
}

/** do_user_addr_fault in full: per-VMA lock, else mmap_lock, stack growth, handle_mm_fault with retries. Returns a FAULT_ class. */
export function* faultSlow(k: Kernel, t: Task, vpn: number, errorCode: number): Code<number> {
  return bug(`not there yet ${k} ${t} ${vpn} ${errorCode}`);
}
