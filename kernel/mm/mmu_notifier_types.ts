// mmu_notifier: what a range, a notifier and its operations are. Callbacks
// are code of the consumer.

import type {Code} from '../../machine/process.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {VmArea} from './vma.ts';

/** enum mmu_notifier_event; sent since 5.2, counted here for every generation. */
export const MMU_NOTIFY_UNMAP = 0;
export const MMU_NOTIFY_CLEAR = 1;
export const MMU_NOTIFY_PROTECTION_VMA = 2;
export const MMU_NOTIFY_PROTECTION_PAGE = 3;
export const MMU_NOTIFY_SOFT_DIRTY = 4;
export const MMU_NOTIFY_RELEASE = 5;
export const MMU_NOTIFY_MIGRATE = 6;
export const MMU_NOTIFY_EXCLUSIVE = 7;
export const MMU_NOTIFY_NAMES = [
  'UNMAP',
  'CLEAR',
  'PROTECTION_VMA',
  'PROTECTION_PAGE',
  'SOFT_DIRTY',
  'RELEASE',
  'MIGRATE',
  'EXCLUSIVE',
] as const;

/** struct mmu_notifier_range. */
export class MmuNotifierRange {
  blockable = true;
  /** Lets a driver recognise an invalidation that it caused itself. */
  owner: object | null = null;
  /** Tick at which notifiers were first told of it. */
  beganTick = 0;

  constructor(
    /** MMU_NOTIFY_ number. */
    readonly event: number,
    readonly mm: MmStruct,
    /** Null when the range is not about one VMA. */
    public vma: VmArea | null,
    /** Virtual pages [start, end). */
    public start: number,
    public end: number,
    /** Linux function that invalidates: how counts are grouped. */
    readonly site: string,
  ) {}

  /** The same for another range: whoever has the struct may use it again after the end. */
  moveTo(vma: VmArea, start: number, end: number): void {
    this.vma = vma;
    this.start = start;
    this.end = end;
    this.beganTick = 0;
  }
}

/**
 * struct mmu_notifier_ops. What is missing is not called. Which of them a kernel has, its
 * generation says.
 */
export interface MmuNotifierOps {
  readonly name: string;
  release?(n: MmuNotifier, t: Task): Code;
  /** Returns 0, or -EAGAIN when the range is not blockable and it would have to wait. */
  invalidate_range_start?(n: MmuNotifier, t: Task, range: MmuNotifierRange): Code<number>;
  invalidate_range_end?(n: MmuNotifier, t: Task, range: MmuNotifierRange): Code;
  /** Up to 4.12. */
  invalidate_page?(n: MmuNotifier, t: Task, vpn: number): Code;
  /**
   * invalidate_range (3.19 to 6.5), arch_invalidate_secondary_tlbs (6.6+): may be under a PTL, so
   * it must not wait.
   */
  invalidate_range?(n: MmuNotifier, t: Task, start: number, end: number): void;
  /**
   * Up to 6.9, under the PTL. `pfn` is what the page will be (or, before 3.7, is already) mapped
   * to.
   */
  change_pte?(n: MmuNotifier, t: Task, vpn: number, pfn: number): void;
  /** Under the PTL. True: the secondary MMU has used a page of the range. */
  clear_flush_young?(n: MmuNotifier, t: Task, start: number, end: number): boolean;
  clear_young?(n: MmuNotifier, t: Task, start: number, end: number): boolean;
  test_young?(n: MmuNotifier, t: Task, vpn: number): boolean;
}

/** struct mmu_notifier: one registration. */
export class MmuNotifier {
  mm: MmStruct | null = null;
  /** mmu_notifier_get's users. */
  users = 1;

  constructor(
    readonly ops: MmuNotifierOps,
    /** The consumer's own object. */
    readonly context: object,
  ) {}
}
