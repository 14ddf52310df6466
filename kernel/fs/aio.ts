// fs/aio.c and the block layer under it: io_submit of direct I/O, 6.18, as far as the submitting
// task's time goes.
//
// Each request is looked up, its buffer's pages are pinned (get_user_pages_fast), a bio and a request
// are made of it and put on the device's queue, under the queue's lock (virtio-blk has one virtqueue
// for all CPUs unless it was given more). The device is told when it asked to be, which makes a
// virtual machine exit: in one call of three in the recording of fio (15 us instead of 6); it is not
// charged here. What the device then does is not modelled: a trace has think time for it. Buffers
// have no addresses in any recording (they are in the iocb), so the pins are in the cost, and not
// made.

import type {Code} from '../../machine/engine.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';
import type {SpinLock} from '../locking/spinlock.ts';
import type {Task} from '../task.ts';

/** Calibrated: fio's io_submit of one request, median 6 us with one tracepoint, over the machine's kernelWork. */
const LOOKUP_NS = 150;
const REQUEST_NS = 1_050;
const QUEUE_NS = 350;

/** What io_submit shares. */
class Aio {
  readonly queueLock: SpinLock;
  readonly io_submit: number;
  readonly queue_rq: number;
  private readonly work: number;

  constructor(k: Kernel) {
    this.queueLock = k.locks.spinlock('vq->lock');
    this.io_submit = k.fn('io_submit');
    this.queue_rq = k.fn('virtio_queue_rq');
    this.work = k.machine.topology.kernelWork;
  }

  ticks(ns: number): number {
    return nsToTicks(ns * this.work);
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

/** io_submit of `requests` requests of direct I/O. Returns how many were submitted: all. */
export function* sys_io_submit(k: Kernel, t: Task, requests: number): Code<number> {
  const aio = aioOf(k);
  t.cpu.charge(k.machine.topology.syscallEntryTicks, k.fns.syscall_entry);
  t.cpu.charge(aio.ticks(LOOKUP_NS), aio.io_submit);
  for (let n = 0; n < requests; n++) {
    t.cpu.charge(aio.ticks(REQUEST_NS), aio.io_submit);
    if (t.cpu.settle()) yield;
    const lock = aio.queueLock;
    if (!lock.acquire(t, aio.queue_rq)) yield* lock.acquireSlow(t, aio.queue_rq);
    t.cpu.charge(aio.ticks(QUEUE_NS), aio.queue_rq);
    if (!lock.release(t)) yield* lock.releaseSlow(t);
  }
  return requests;
}
