// Where the mm says what it does: calls in exactly the places where Linux has the tracepoints
// rss_stat, page_fault_user and page_fault_kernel, tlb_flush, exit_mmap, and the invalidations of
// mmu_notifier. kernel.mm.probe is null by default and then costs a comparison.

import type {Cpu} from '../../machine/cpu.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';

/** Reasons of a TLB flush, Linux's numbers (enum tlb_flush_reason). */
export const TLB_FLUSH_ON_TASK_SWITCH = 0;
export const TLB_REMOTE_SHOOTDOWN = 1;
export const TLB_LOCAL_SHOOTDOWN = 2;
export const TLB_LOCAL_MM_SHOOTDOWN = 3;
export const TLB_REMOTE_SEND_IPI = 4;
export const TLB_REMOTE_WRONG_CPU = 5;

/** Listener. Every call is made at the simulated time of the event; none may change anything. */
export interface MmProbe {
  /** trace_rss_stat: counter `member` (MM_FILEPAGES...) of `mm` is now `pages`. */
  rssStat(mm: MmStruct, member: number, pages: number, currentIsMine: boolean): void;
  /**
   * A page fault was taken and handled; `faultClass` is a FAULT_ number of
   * arch/x86/mm/user_fault.ts.
   */
  fault(t: Task, vpn: number, errorCode: number, faultClass: number): void;
  /** trace_tlb_flush on `cpu`; `pages` is -1 for everything. */
  tlbFlush(cpu: Cpu, pages: number, reason: number): void;
  /** exit_mmap has destroyed the VMA tree. */
  exitMmap(mm: MmStruct): void;
  /**
   * A notifier call: which function ('start', 'end', ...), event and call site, pages [start, end).
   */
  notifier(
    mm: MmStruct,
    name: string,
    event: number,
    site: string,
    start: number,
    end: number,
  ): void;
}
