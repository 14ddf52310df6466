// include/uapi/linux/userfaultfd.h: the numbers of userfaultfd, 6.18, and since when each feature
// is there. What no kernel before had is refused by UFFDIO_API, so that a program learns what it
// may ask.

import type {SpinLock} from '../locking/spinlock.ts';
import type {RwSemaphore} from '../locking/rwsem.ts';
import type {UserMm} from '../mm/user_mm.ts';
import type {WaitQueue} from '../sched/wait_queue.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {OpenFile} from './file.ts';

export const UFFD_EVENT_PAGEFAULT = 0x12;
export const UFFD_EVENT_FORK = 0x13;
export const UFFD_EVENT_REMAP = 0x14;
export const UFFD_EVENT_REMOVE = 0x15;
export const UFFD_EVENT_UNMAP = 0x16;

export const UFFD_PAGEFAULT_FLAG_WRITE = 1;
export const UFFD_PAGEFAULT_FLAG_WP = 2;
export const UFFD_PAGEFAULT_FLAG_MINOR = 4;

export const UFFD_FEATURE_PAGEFAULT_FLAG_WP = 1 << 0;
export const UFFD_FEATURE_EVENT_FORK = 1 << 1;
export const UFFD_FEATURE_EVENT_REMAP = 1 << 2;
export const UFFD_FEATURE_EVENT_REMOVE = 1 << 3;
export const UFFD_FEATURE_MISSING_HUGETLBFS = 1 << 4;
export const UFFD_FEATURE_MISSING_SHMEM = 1 << 5;
export const UFFD_FEATURE_EVENT_UNMAP = 1 << 6;
export const UFFD_FEATURE_SIGBUS = 1 << 7;
export const UFFD_FEATURE_THREAD_ID = 1 << 8;
export const UFFD_FEATURE_MINOR_HUGETLBFS = 1 << 9;
export const UFFD_FEATURE_MINOR_SHMEM = 1 << 10;
export const UFFD_FEATURE_EXACT_ADDRESS = 1 << 11;
export const UFFD_FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12;
export const UFFD_FEATURE_WP_UNPOPULATED = 1 << 13;
export const UFFD_FEATURE_POISON = 1 << 14;
export const UFFD_FEATURE_WP_ASYNC = 1 << 15;
export const UFFD_FEATURE_MOVE = 1 << 16;

/** Release in which each feature came. */
const FEATURES_SINCE: readonly (readonly [feature: number, since: string])[] = [
  [UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE, '4.11'],
  [UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_EVENT_UNMAP, '4.11'],
  [UFFD_FEATURE_SIGBUS | UFFD_FEATURE_THREAD_ID, '4.14'],
  [UFFD_FEATURE_PAGEFAULT_FLAG_WP, '5.7'],
  [UFFD_FEATURE_MINOR_HUGETLBFS, '5.13'],
  [UFFD_FEATURE_MINOR_SHMEM, '5.14'],
  [UFFD_FEATURE_EXACT_ADDRESS, '5.18'],
  [UFFD_FEATURE_WP_HUGETLBFS_SHMEM, '5.19'],
  [UFFD_FEATURE_WP_UNPOPULATED, '6.4'],
  [UFFD_FEATURE_POISON, '6.6'],
  [UFFD_FEATURE_WP_ASYNC, '6.7'],
  [UFFD_FEATURE_MOVE, '6.8'],
];

/** UFFD_API_FEATURES of a kernel: 0 before 4.11; userfaultfd itself came with 4.3. */
export function featuresOf(version: string): number {
  let features = 0;
  for (const [bits, since] of FEATURES_SINCE) if (!isBefore(version, since)) features |= bits;
  return features;
}

export const UFFDIO_REGISTER = 0x00;
export const UFFDIO_UNREGISTER = 0x01;
export const UFFDIO_WAKE = 0x02;
export const UFFDIO_COPY = 0x03;
export const UFFDIO_ZEROPAGE = 0x04;
export const UFFDIO_MOVE = 0x05;
export const UFFDIO_WRITEPROTECT = 0x06;
export const UFFDIO_CONTINUE = 0x07;
export const UFFDIO_POISON = 0x08;
export const UFFDIO_API = 0x3f;
/** UFFD_API, the only version of the protocol. */
export const UFFD_API = 0xaa;

export const UFFDIO_REGISTER_MODE_MISSING = 1;
export const UFFDIO_REGISTER_MODE_WP = 2;
export const UFFDIO_REGISTER_MODE_MINOR = 4;
/** UFFDIO_COPY, _ZEROPAGE, _CONTINUE, _POISON and _MOVE: do not wake who waits. */
export const UFFDIO_MODE_DONTWAKE = 1;
/** UFFDIO_COPY and (6.4+) _CONTINUE: the page comes write-protected. */
export const UFFDIO_MODE_WP = 2;
export const UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES = 2;
export const UFFDIO_WRITEPROTECT_MODE_WP = 1;
export const UFFDIO_WRITEPROTECT_MODE_DONTWAKE = 2;

/** Flags of the system call; O_NONBLOCK is the file's. */
export const UFFD_USER_MODE_ONLY = 1;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;

/** struct uffd_msg. Places are page numbers. */
export interface UffdMsg {
  readonly event: number;
  /** UFFD_PAGEFAULT_FLAG_ bits. */
  readonly flags: number;
  /** The page of a fault; start of the range of REMOVE and UNMAP; where REMAP came from. */
  readonly vpn: number;
  /** REMOVE and UNMAP: end; REMAP: where to. */
  readonly to: number;
  /** REMAP: length in pages. */
  readonly pages: number;
  /** FORK: the child's context, which the reader gets a descriptor for. */
  readonly child: UserfaultfdCtx | null;
  /** feat.ptid (UFFD_FEATURE_THREAD_ID), else 0. */
  readonly tid: number;
}

/** struct userfault_wait_queue of a fault: on a queue until somebody wakes it. */
export interface FaultWait {
  readonly task: Task;
  readonly msg: UffdMsg;
  queued: boolean;
}

/** The same of an event: its task goes on when the message has been read. */
export interface EventWait {
  readonly task: Task;
  readonly msg: UffdMsg;
  read: boolean;
}

/** struct userfaultfd_ctx. */
export interface UserfaultfdCtx {
  readonly id: number;
  /** The struct file; closing it for the last time releases the context. */
  readonly file: OpenFile;
  readonly user: UserMm;
  /** Flags of the system call. */
  readonly flags: number;
  features: number;
  /** UFFD_FEATURE_INITIALIZED: UFFDIO_API has been called. */
  initialized: boolean;
  released: boolean;
  /** mmap_changing: events under way; fills are refused meanwhile. */
  mmapChanging: number;
  /** fault_pending_wqh: not yet read; fault_wqh: read. */
  readonly pending: FaultWait[];
  readonly faults: FaultWait[];
  /** event_wqh. */
  readonly events: EventWait[];
  /** Lock of all three queues; readers sleep in fdWait. */
  readonly lock: SpinLock;
  readonly fdWait: WaitQueue;
  /** map_changing_lock (6.8+), before that mmap_lock did. */
  readonly mapChangingLock: RwSemaphore;
}
