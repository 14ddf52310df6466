// The pending events: a binary heap in typed arrays, keyed (time, key), and a FIFO ring for events
// at the present instant.
//
// `key` is priority * 2^44 + sequence number, so one double comparison orders equal times by
// priority first and by order of arrival second: FIFO among equals, always. The ring holds
// default-priority events for "now" in key order and is consulted beside the heap's top, so
// zero-delay events never pay for a sift. A pop leaves the top vacant, because what fired mostly
// queues its next event at once: then one pass serves both. The hold benchmark is in
// engine.bench.ts.

const INITIAL = 1024;

/** Min-queue of (time, key, id) triples. Times and keys are integers below 2^53, ids int32. */
export class EventQueue {
  /** Places used in the heap, a vacant top included. */
  private heapSize = 0;
  /** The top was popped and nothing has taken its place yet. */
  private vacant = false;
  private times = new Float64Array(INITIAL);
  private keys = new Float64Array(INITIAL);
  private ids = new Int32Array(INITIAL);
  private ringKeys = new Float64Array(INITIAL);
  private ringIds = new Int32Array(INITIAL);
  private ringHead = 0;
  private ringCount = 0;
  /** The instant of the ring's events. */
  private ringTime = 0;
  /** Key of the event that `pop` returned last. */
  poppedKey = 0;
  /** Time of the event that `pop` returned last. */
  poppedTime = 0;

  get size(): number {
    return this.heapSize + this.ringCount - (this.vacant ? 1 : 0);
  }

  /**
   * Time of the first event, Infinity when there is none: whoever runs now may run on until before
   * it.
   */
  firstTime(): number {
    return this.ringCount > 0 ? this.ringTime : this.heapTime();
  }

  /** Time of the heap's first event: one of the top's children while the top is vacant. */
  private heapTime(): number {
    const {heapSize, times} = this;
    if (!this.vacant) return heapSize > 0 ? times[0] : Infinity;
    if (heapSize > 2) return Math.min(times[1], times[2]);
    return heapSize > 1 ? times[1] : Infinity;
  }

  /** Adds an event for the present instant, `now`. Keys must come in increasing order. */
  pushNow(now: number, key: number, id: number): void {
    this.ringTime = now;
    if (this.ringCount === this.ringKeys.length) this.growRing();
    const at = (this.ringHead + this.ringCount) & (this.ringKeys.length - 1);
    this.ringKeys[at] = key;
    this.ringIds[at] = id;
    this.ringCount++;
  }

  push(time: number, key: number, id: number): void {
    if (this.vacant) {
      this.vacant = false;
      this.sink(this.heapSize, time, key, id);
      return;
    }
    if (this.heapSize === this.times.length) this.growHeap();
    this.rise(this.heapSize++, time, key, id);
  }

  /** Removes the first event and returns its id, -1 when empty; see poppedTime and poppedKey. */
  pop(): number {
    if (this.ringCount > 0 && !this.heapGoesFirst()) {
      const at = this.ringHead;
      this.ringHead = (at + 1) & (this.ringKeys.length - 1);
      this.ringCount--;
      this.poppedTime = this.ringTime;
      this.poppedKey = this.ringKeys[at];
      return this.ringIds[at];
    }
    if (this.vacant) this.fillTop();
    if (this.heapSize === 0) return -1;
    this.poppedTime = this.times[0];
    this.poppedKey = this.keys[0];
    this.vacant = true;
    return this.ids[0];
  }

  /** Keeps only the events that `isLive` accepts. The order of the others does not change. */
  sweep(isLive: (id: number, key: number) => boolean): void {
    if (this.vacant) this.fillTop();
    const {times, keys, ids} = this;
    const last = this.heapSize;
    this.heapSize = 0;
    for (let i = 0; i < last; i++) {
      if (isLive(ids[i], keys[i])) this.push(times[i], keys[i], ids[i]);
    }
    const mask = this.ringKeys.length - 1;
    let kept = 0;
    for (let i = 0; i < this.ringCount; i++) {
      const from = (this.ringHead + i) & mask;
      if (!isLive(this.ringIds[from], this.ringKeys[from])) continue;
      const to = (this.ringHead + kept++) & mask;
      this.ringKeys[to] = this.ringKeys[from];
      this.ringIds[to] = this.ringIds[from];
    }
    this.ringCount = kept;
  }

  private heapGoesFirst(): boolean {
    const now = this.ringTime;
    if (this.vacant) this.fillTop();
    if (this.heapSize === 0 || this.times[0] > now) return false;
    return this.times[0] < now || this.keys[0] < this.ringKeys[this.ringHead];
  }

  /** Closes the hole that the last pop left, with the heap's last event. */
  private fillTop(): void {
    this.vacant = false;
    const last = --this.heapSize;
    if (last === 0) return;
    this.sink(last, this.times[last], this.keys[last], this.ids[last]);
  }

  /** Puts an event into the vacant top of a heap of `size` places, or below it. */
  private sink(size: number, time: number, key: number, id: number): void {
    const {times, keys, ids} = this;
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= size) break;
      let first = times[child];
      const right = child + 1;
      if (right < size) {
        const other = times[right];
        if (other < first || (other === first && keys[right] < keys[child])) {
          child = right;
          first = other;
        }
      }
      if (time < first || (time === first && key < keys[child])) break;
      times[hole] = first;
      keys[hole] = keys[child];
      ids[hole] = ids[child];
      hole = child;
    }
    times[hole] = time;
    keys[hole] = key;
    ids[hole] = id;
  }

  /** Puts an event into a hole at the bottom, or above it. */
  private rise(hole: number, time: number, key: number, id: number): void {
    const {times, keys, ids} = this;
    while (hole > 0) {
      const parent = (hole - 1) >>> 1;
      const parentTime = times[parent];
      if (parentTime < time || (parentTime === time && keys[parent] < key)) break;
      times[hole] = parentTime;
      keys[hole] = keys[parent];
      ids[hole] = ids[parent];
      hole = parent;
    }
    times[hole] = time;
    keys[hole] = key;
    ids[hole] = id;
  }

  private growHeap(): void {
    this.times = grown(this.times, new Float64Array(this.times.length * 2));
    this.keys = grown(this.keys, new Float64Array(this.keys.length * 2));
    this.ids = grown(this.ids, new Int32Array(this.ids.length * 2));
  }

  private growRing(): void {
    const capacity = this.ringKeys.length;
    const keys = new Float64Array(capacity * 2);
    const ids = new Int32Array(capacity * 2);
    for (let i = 0; i < this.ringCount; i++) {
      const at = (this.ringHead + i) & (capacity - 1);
      keys[i] = this.ringKeys[at];
      ids[i] = this.ringIds[at];
    }
    this.ringKeys = keys;
    this.ringIds = ids;
    this.ringHead = 0;
  }
}

function grown<T extends Float64Array | Int32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
