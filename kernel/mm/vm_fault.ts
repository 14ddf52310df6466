// struct vm_fault and the numbers around it: flags of a fault, its result bits, and the classes
// that replays compare.

import type {Code} from '../../machine/process.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';

/** enum fault_flag (6.18). */
export const FAULT_FLAG_WRITE = 1 << 0;
export const FAULT_FLAG_MKWRITE = 1 << 1;
export const FAULT_FLAG_ALLOW_RETRY = 1 << 2;
export const FAULT_FLAG_RETRY_NOWAIT = 1 << 3;
export const FAULT_FLAG_KILLABLE = 1 << 4;
export const FAULT_FLAG_TRIED = 1 << 5;
export const FAULT_FLAG_USER = 1 << 6;
export const FAULT_FLAG_REMOTE = 1 << 7;
export const FAULT_FLAG_INSTRUCTION = 1 << 8;
export const FAULT_FLAG_INTERRUPTIBLE = 1 << 9;
export const FAULT_FLAG_UNSHARE = 1 << 10;
export const FAULT_FLAG_ORIG_PTE_VALID = 1 << 11;
export const FAULT_FLAG_VMA_LOCK = 1 << 12;

/** enum vm_fault_reason (6.18). */
export const VM_FAULT_OOM = 0x1;
export const VM_FAULT_SIGBUS = 0x2;
export const VM_FAULT_MAJOR = 0x4;
export const VM_FAULT_HWPOISON = 0x10;
export const VM_FAULT_SIGSEGV = 0x40;
export const VM_FAULT_NOPAGE = 0x100;
export const VM_FAULT_LOCKED = 0x200;
export const VM_FAULT_RETRY = 0x400;
export const VM_FAULT_FALLBACK = 0x800;
export const VM_FAULT_DONE_COW = 0x1000;
export const VM_FAULT_COMPLETED = 0x4000;
export const VM_FAULT_ERROR = 0x1 | 0x2 | 0x10 | 0x40;
/** Not a bit of Linux's: handle_userfault has given up the lock under which the fault ran. */
export const VM_FAULT_UNLOCKED = 1 << 21;

/**
 * Reason of handle_userfault beside VM_UFFD_MISSING and VM_UFFD_WP: VM_UFFD_MINOR, whose bit is in
 * the second word of a VMA's flags.
 */
export const UFFD_REASON_MINOR = 1 << 30;

/** Page-fault error code of x86. */
export const X86_PF_PROT = 1;
export const X86_PF_WRITE = 2;
export const X86_PF_USER = 4;
export const X86_PF_RSVD = 8;
export const X86_PF_INSTR = 16;
export const X86_PF_PK = 32;
export const X86_PF_SHSTK = 64;

/** What a fault turned out to be; FAULT_NONE: the hardware needed none. */
export const FAULT_NONE = 0;
export const FAULT_MINOR_ANON = 1;
export const FAULT_MINOR_FILE = 2;
export const FAULT_COW = 3;
export const FAULT_MAJOR = 4;
export const FAULT_SIGSEGV = 5;
export const FAULT_SPURIOUS = 6;
export const FAULT_SIGBUS = 7;
export const FAULT_OOM = 8;
export const FAULT_HUGE = 9;
export const FAULT_NUMA = 10;
export const FAULT_ZERO_PAGE = 11;
/** Write permission gained in place: the page was nobody else's. */
export const FAULT_REUSE = 12;
/** A fatal signal came while the fault waited: the task goes back and dies. */
export const FAULT_KILLED = 13;
/** Names by number, as reports have them. */
export const FAULT_CLASS_NAMES = [
  'none',
  'minor anon',
  'minor file',
  'cow',
  'major',
  'sigsegv',
  'spurious',
  'sigbus',
  'oom',
  'huge',
  'numa',
  'zero page',
  'reuse',
  'killed',
] as const;

/** One fault on its way. The fast path reuses one object; whoever sleeps has his own. */
export class VmFault {
  mm: MmStruct;
  user: UserMm;
  vma: VmArea;
  vpn: number;
  /** FAULT_FLAG_ bits. */
  flags: number;
  /** Slot of the PMD entry (walks that end above the PTEs) and of the PTE; -1 when not known. */
  pmdSlot = -1;
  slot = -1;
  /** orig_pte: flags and value when the fault looked, without the PTL. */
  word = 0;
  value = 0;
  /** Set by the handlers: a FAULT_ number. */
  faultClass: number = FAULT_SPURIOUS;
  /** A page (order 0) that was allocated by reclaiming for this fault, 0 for none. */
  prealloc = 0;
  /** create_huge_pmd has said VM_FAULT_FALLBACK. */
  noHuge = false;
  /** What must be waited for: the hook to call, or the reason given to handle_userfault. */
  hook: ((t: Task, vmf: VmFault) => Code<number>) | null = null;
  uffdReason = 0;

  constructor(mm: MmStruct, user: UserMm, vma: VmArea, vpn: number, flags: number) {
    this.mm = mm;
    this.user = user;
    this.vma = vma;
    this.vpn = vpn;
    this.flags = flags;
  }

  /** Begins another fault with the same object. */
  reset(mm: MmStruct, user: UserMm, vma: VmArea, vpn: number, flags: number): void {
    this.mm = mm;
    this.user = user;
    this.vma = vma;
    this.vpn = vpn;
    this.flags = flags;
    this.pmdSlot = -1;
    this.slot = -1;
    this.faultClass = FAULT_SPURIOUS;
    this.noHuge = false;
  }
}
