// Recorded counters as samples and steps of operations, collected while a recording is read.

import {MM_SWAPENTS} from '../kernel/mm/rss.ts';
import type {MmLife} from './verify_lives.ts';
import type {Reading} from './verify_reading.ts';
import type {Recorded, RssSample} from './verify_record.ts';

/** Samples and steps of one recording. */
export class RecordedSamples {
  /** Last operation that began. */
  latestOp = -1;
  /** Operation, life x 4 + member, change, written by swapoff. */
  readonly steps: number[] = [];
  private readonly samples: RssSample[] = [];
  private readonly sampleOf = new Map<string, RssSample>();
  /**
   * A swapoff lasts while others go on, page by page: what it changes belongs to the next operation
   * that begins, as if each page were a step of its own.
   */
  readonly unusing: {life: MmLife; member: number; change: number; event: number}[] = [];
  readonly unused: number[] = [];

  /** What swapoff did since the last operation comes before this one. */
  unuseBefore(op: number): void {
    const {unusing} = this;
    // SWAP comes first: a page of which only that is recorded yet belongs to the next operation as
    // a whole.
    const left = unusing.at(-1)?.member === MM_SWAPENTS ? unusing.splice(-1) : [];
    for (const {life, member, change, event} of unusing) {
      if (life.known) this.steps.push(op, life.index * 4 + member, change, 1);
      this.addSample({op, ended: false}, life, member, change, event);
      for (let n = 0; member === MM_SWAPENTS && n < -change; n++) this.unused.push(op);
    }
    unusing.length = 0;
    unusing.push(...left);
  }

  /** A record of `life` that belongs to the operation of `task`. */
  addSample(
    task: Pick<Reading, 'op' | 'ended'>,
    life: MmLife,
    member: number,
    change: number,
    i: number,
  ): void {
    const background = task.op < 0;
    const op = background ? this.latestOp : task.op;
    if (op < 0) return;
    const outside = !background && task.ended;
    const key = `${op} ${life.index} ${member} ${background} ${outside}`;
    let sample = this.sampleOf.get(key);
    if (sample === undefined) {
      sample = {op, life, member, pages: 0, change: 0, background, outside, event: i};
      this.sampleOf.set(key, sample);
      this.samples.push(sample);
    }
    sample.change += change;
    sample.event = i;
  }

  /** Steps in order of operations, as columns. */
  sortedSteps(): Pick<Recorded, 'stepOp' | 'stepKey' | 'stepChange' | 'stepUnused'> {
    const {steps} = this;
    const count = steps.length / 4;
    const order = Int32Array.from({length: count}, (_, n) => n);
    order.sort((a, b) => steps[a * 4] - steps[b * 4] || a - b);
    const column = (k: number): Int32Array => order.map((n) => steps[n * 4 + k]);
    const stepUnused = Uint8Array.from(column(3));
    return {stepOp: column(0), stepKey: column(1), stepChange: column(2), stepUnused};
  }

  /** Samples in order of operations, with what the counter was after each. */
  serialised(): RssSample[] {
    const sorted = this.samples.sort((a, b) => a.op - b.op);
    const values = new Map<number, number>();
    for (const sample of sorted) {
      const key = sample.life.index * 4 + sample.member;
      const value = (values.get(key) ?? 0) + sample.change;
      values.set(key, value);
      sample.pages = value;
    }
    return sorted;
  }
}
