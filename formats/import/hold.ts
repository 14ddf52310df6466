// Keeps the order of the input while some events still wait for an argument: a fork for its child,
// an mmap for its address. What comes after an open event waits behind it. The queue is bounded;
// when it is full the oldest open event goes out as it is, and is counted. Without open events
// nothing is stored at all.

import type {TraceWriter} from '../writer.ts';
import type {Arg} from './fields.ts';

/**
 * An event that may still change. Call `close` of the queue's owner by setting `open` to false and
 * draining.
 */
export interface HeldEvent {
  kind: number;
  readonly timeNs: number;
  readonly tid: number;
  readonly cpu: number;
  args: Arg[];
  open: boolean;
}

/** Events that wait, in order. */
export class HoldQueue {
  /** Events that went out without what they waited for. */
  unresolved = 0;
  private readonly writer: TraceWriter;
  private readonly bound: number;
  private queue: HeldEvent[] = [];
  private head = 0;

  constructor(writer: TraceWriter, bound: number) {
    this.writer = writer;
    this.bound = bound;
  }

  /** Writes an event now, or behind those that wait. */
  emit(kind: number, timeNs: number, tid: number, cpu: number, args: Arg[]): void {
    if (this.queue.length === 0) this.writer.append(kind, timeNs, tid, cpu, ...args);
    else this.add({kind, timeNs, tid, cpu, args, open: false});
  }

  /** Holds an event back until it is closed. */
  hold(kind: number, timeNs: number, tid: number, cpu: number, args: Arg[]): HeldEvent {
    const event = {kind, timeNs, tid, cpu, args, open: true};
    this.add(event);
    return event;
  }

  /** The event is complete now. */
  close(event: HeldEvent): void {
    if (!event.open) return;
    event.open = false;
    if (this.queue[this.head] === event) this.drain();
  }

  /** Writes all that waits, complete or not. */
  finish(): void {
    while (this.head < this.queue.length) this.force();
  }

  private add(event: HeldEvent): void {
    this.queue.push(event);
    if (this.queue.length - this.head > this.bound) this.force();
  }

  /** The oldest event is open: gives up on it. */
  private force(): void {
    const oldest = this.queue[this.head];
    if (oldest.open) this.unresolved++;
    oldest.open = false;
    this.drain();
  }

  private drain(): void {
    const {queue} = this;
    while (this.head < queue.length && !queue[this.head].open) {
      const {kind, timeNs, tid, cpu, args} = queue[this.head++];
      this.writer.append(kind, timeNs, tid, cpu, ...args);
    }
    if (this.head === queue.length) {
      this.queue = [];
      this.head = 0;
    } else if (this.head > 65536) {
      this.queue = queue.slice(this.head);
      this.head = 0;
    }
  }
}
