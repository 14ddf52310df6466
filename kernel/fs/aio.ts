// fs/aio.c and the block layer under it: io_submit of direct I/O, 6.18, as far as the submitting
// task's time goes.
//
// Each request is looked up, its buffer's pages are pinned (get_user_pages_fast), a bio and a
// request are made of it and put on the device's queue, under the queue's lock (virtio-blk has one
// virtqueue for all CPUs unless it was given more). The device is told when it asked to be, which
// makes a virtual machine exit: in one call of three in the recording of fio (15 us instead of 6);
// it is not charged here. What the device then does is not modelled: a trace has think time for it.
// Buffers have no addresses in any recording (they are in the iocb), so the pins are in the cost,
// and not made.

import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';
import type {SpinLock} from '../locking/spinlock.ts';
import type {Task} from '../task.ts';

/**
 * Calibrated: fio's io_submit of one request, median 6 us with one tracepoint, over the machine's
 * kernelWork.
 */
const LOOKUP_NS = 150;
const REQUEST_NS = 1_050;
const QUEUE_NS = 350;

/** What io_submit shares. */
class Aio {
  readonly queueLock: SpinLock;
  readonly io_submit: number;
  readonly queue_rq: number;
  readonly lookupTicks: number;
  readonly requestTicks: number;
  readonly queueTicks: number;

  constructor(k: Kernel) {
    this.queueLock = k.locks.spinlock('vq->lock');
    this.io_submit = k.fn('io_submit');
    this.queue_rq = k.fn('virtio_queue_rq');
    const {kernelWork} = k.machine.topology;
    this.lookupTicks = nsToTicks(LOOKUP_NS * kernelWork);
    this.requestTicks = nsToTicks(REQUEST_NS * kernelWork);
    this.queueTicks = nsToTicks(QUEUE_NS * kernelWork);
  }
}

const OF_KERNEL = new WeakMap<Kernel, Aio>();

function aioOf(k: Kernel): Aio {
  let aio = OF_KERNEL.get(k);
  if (aio === undefined) {
    aio = new Aio(k);
    OF_KERNEL.set(k, aio);
  }
  return aio;
}

/** What a call waits for where it stops: the two low bits of the stop; the rest counts requests. */
const STOP_MASK = 3;
const SETTLED = 1;
const LOCKED = 2;
const UNLOCKED = 3;
/** Stops per request. */
const REQUEST = 4;

/** The call is over, or has not begun. */
export const NO_STOP = 0;

/**
 * io_submit of `requests` requests of direct I/O, as far as it goes without waiting: on from
 * `stop`, where it stopped before. Returns where it stops now, NO_STOP at the end. Before it goes
 * on, whatever `waitsForTime` says is to be done.
 */
export function io_submit(k: Kernel, t: Task, requests: number, stop = NO_STOP): number {
  const aio = aioOf(k);
  const {cpu} = t;
  const lock = aio.queueLock;
  let reached = stop & STOP_MASK;
  if (stop === NO_STOP) {
    cpu.charge(k.machine.topology.syscallEntryTicks, k.fns.syscall_entry);
    cpu.charge(aio.lookupTicks, aio.io_submit);
  }
  const end = requests * REQUEST;
  for (let request = stop - reached; request < end; request += REQUEST) {
    if (reached === NO_STOP) {
      cpu.charge(aio.requestTicks, aio.io_submit);
      if (cpu.settle()) return request + SETTLED;
      reached = SETTLED;
    }
    if (reached === SETTLED && !lock.acquire(t, aio.queue_rq)) return request + LOCKED;
    if (reached === UNLOCKED) lock.releaseSettled(t);
    else {
      cpu.charge(aio.queueTicks, aio.queue_rq);
      if (!lock.release(t)) return request + UNLOCKED;
    }
    reached = NO_STOP;
  }
  return NO_STOP;
}

/**
 * True when `io_submit` has stopped because the simulated clock must catch up: a yield, and it can
 * go on.
 */
export function waitsForTime(stop: number): boolean {
  const reached = stop & STOP_MASK;
  return reached === SETTLED || reached === UNLOCKED;
}

/** io_submit with its waiting, on from `stop`. Returns how many requests were submitted: all. */
export function* sys_io_submit(k: Kernel, t: Task, requests: number, stop = NO_STOP): Code<number> {
  if (stop === NO_STOP) stop = io_submit(k, t, requests);
  const {queueLock, queue_rq} = aioOf(k);
  while (stop !== NO_STOP) {
    if (waitsForTime(stop)) yield;
    else yield* queueLock.acquireSlow(t, queue_rq);
    stop = io_submit(k, t, requests, stop);
  }
  return requests;
}
