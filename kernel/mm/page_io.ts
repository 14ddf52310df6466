// mm/page_io.c and what reading and writing single folios needs: a block device that serves
// requests in order, the folio lock, and waiting for writeback.
//
// Nothing in a recording describes the disk behind a swap area, so the device has two numbers: the
// latency of one request and the bandwidth that all requests share. A request submitted while
// others are in flight ends when the data before it and its own are through, plus the latency; a
// write is done when the device says so, and nobody waits for it unless he must. Completion is an
// interrupt on the CPU that submitted.

import type {Cpu} from '../../machine/cpu.ts';
import {type Code, Timer} from '../../machine/engine.ts';
import {PRIORITY} from '../../machine/priorities.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';
import {WaitQueue} from '../sched/wait_queue.ts';
import type {Task} from '../task.ts';
import {PG_locked, PG_reclaim, PG_uptodate, PG_writeback} from './page_flags.ts';

/** A swap device as users describe it. */
export interface SwapDeviceOptions {
  readonly latencyNs?: number;
  readonly bytesPerSecond?: number;
}

/**
 * virtio-blk on a local SSD. Assumption; the sample recording's swap-ins of one page sleep for 55
 * to 75 us.
 */
const LATENCY_NS = 55_000;
const BYTES_PER_SECOND = 1.2e9;
/** Body of the completion interrupt: the request, and one folio of it. Assumption. */
const COMPLETION_TICKS = nsToTicks(900);
const PAGE_BYTES = 4096;

interface Request {
  readonly endTick: number;
  readonly cpu: Cpu;
  readonly done: () => void;
}

/** A block device with one queue. */
export class SwapDevice {
  /** Pages read and written. */
  readPages = 0;
  writtenPages = 0;
  private readonly latencyTicks: number;
  private readonly pageTicks: number;
  /** The transfers asked for so far end here. */
  private freeTick = 0;
  private readonly queue: Request[] = [];
  private readonly timer: Timer;
  private readonly kernel: Kernel;

  constructor(kernel: Kernel, options: SwapDeviceOptions = {}) {
    this.kernel = kernel;
    this.latencyTicks = nsToTicks(options.latencyNs ?? LATENCY_NS);
    const pageNs = (PAGE_BYTES / (options.bytesPerSecond ?? BYTES_PER_SECOND)) * 1e9;
    this.pageTicks = nsToTicks(pageNs);
    this.timer = new Timer(kernel.machine.engine, () => this.complete());
  }

  /** submit_bio: `done` runs in the completion interrupt. The submitter does not wait. */
  submit(cpu: Cpu, pages: number, write: boolean, done: () => void): void {
    const {engine} = this.kernel.machine;
    const now = engine.now + cpu.pendingTicks;
    this.freeTick = Math.max(now, this.freeTick) + pages * this.pageTicks;
    if (write) this.writtenPages += pages;
    else this.readPages += pages;
    const first = this.queue.length === 0;
    this.queue.push({endTick: this.freeTick + this.latencyTicks, cpu, done});
    if (first) engine.schedule(this.timer, this.queue[0].endTick, PRIORITY.timer);
  }

  private complete(): void {
    const {engine} = this.kernel.machine;
    const request = this.queue.shift()!;
    if (this.queue.length > 0) {
      engine.schedule(this.timer, Math.max(this.queue[0].endTick, engine.now), PRIORITY.timer);
    }
    this.kernel.sched.interrupt(request.cpu, () => {
      request.done();
      return COMPLETION_TICKS;
    });
  }
}

/** folio_wait_table: queues shared by hash; whoever is woken looks at his folio again. */
const WAIT_QUEUES = 64;

/** The queues of tasks that wait for a folio's lock or writeback. */
export class FolioWaits {
  private readonly queues: (WaitQueue | undefined)[] = new Array(WAIT_QUEUES);
  private readonly kernel: Kernel;

  constructor(kernel: Kernel) {
    this.kernel = kernel;
  }

  queue(head: number): WaitQueue {
    const at = head % WAIT_QUEUES;
    this.queues[at] ??= new WaitQueue(this.kernel, 'folio_wait_table');
    return this.queues[at];
  }

  wake(head: number): void {
    const queue = this.queues[head % WAIT_QUEUES];
    if (queue !== undefined && !queue.isEmpty) queue.wakeAll();
  }
}

/** Waits until a folio has none of `bits`; the caller holds a reference and has not settled. */
function* folio_wait_bits(k: Kernel, t: Task, head: number, bits: number): Code {
  const {pages, swap} = k.mm;
  if (t.cpu.settle()) yield;
  if ((pages.flags[head] & bits) === 0) return;
  const queue = swap.waits.queue(head);
  for (;;) {
    queue.prepare(t);
    if (t.cpu.settle()) yield;
    if ((pages.flags[head] & bits) === 0) break;
    yield* queue.sleep(t);
  }
  queue.finish(t);
}

/** folio_lock. */
export function* folio_lock(k: Kernel, t: Task, head: number): Code {
  yield* folio_wait_bits(k, t, head, PG_locked);
  k.mm.pages.flags[head] |= PG_locked;
}

/** folio_trylock: the caller has settled. */
export function folio_trylock(k: Kernel, head: number): boolean {
  const {flags} = k.mm.pages;
  if ((flags[head] & PG_locked) !== 0) return false;
  flags[head] |= PG_locked;
  return true;
}

/** folio_unlock. */
export function folio_unlock(k: Kernel, head: number): void {
  k.mm.pages.flags[head] &= ~PG_locked;
  k.mm.swap.waits.wake(head);
}

/** folio_wait_writeback. */
export function* folio_wait_writeback(k: Kernel, t: Task, head: number): Code {
  yield* folio_wait_bits(k, t, head, PG_writeback);
}

/** swap_read_folio: the folio is locked, and unlocked when its pages have arrived. */
export function swap_read_folio(
  k: Kernel,
  cpu: Cpu,
  device: SwapDevice,
  head: number,
  n: number,
): void {
  device.submit(cpu, n, false, () => {
    k.mm.pages.flags[head] |= PG_uptodate;
    folio_unlock(k, head);
  });
}

/**
 * __swap_writepage: writeback begins, the folio is unlocked. `rotate` is
 * folio_rotate_reclaimable, called when it ends for a folio that reclaim wants back soon.
 */
export function swap_writepage(
  k: Kernel,
  cpu: Cpu,
  device: SwapDevice,
  head: number,
  n: number,
  rotate: (head: number) => void,
): void {
  const {pages, swap} = k.mm;
  pages.flags[head] |= PG_writeback;
  swap.writebacks += n;
  folio_unlock(k, head);
  device.submit(cpu, n, true, () => {
    const wanted = (pages.flags[head] & PG_reclaim) !== 0;
    pages.flags[head] &= ~(PG_writeback | PG_reclaim);
    swap.writebacks -= n;
    if (wanted) rotate(head);
    swap.waits.wake(head);
    if (!swap.throttled.isEmpty) swap.throttled.wakeAll();
  });
}
