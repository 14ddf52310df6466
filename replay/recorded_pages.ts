// Which anonymous pages the processes of a recording have in memory at an operation, as far as
// faults tell, for the plan of what reclaim took (recorded_reclaim.ts).
//
// A page is mapped by one or, after a fork, several address spaces, until each writes to it: then
// the writer has a new one. Reclaim takes it away from all that map it at once; each gets it back
// by a fault of its own, and they share it again as long as nobody writes. When a page must go
// follows from the next fault of each that maps it: before the first that finds it out; not at all
// before one that finds it there.

/** What a later fault says of a page. */
export interface Later {
  readonly op: number;
  /** It was not in memory when the fault came. */
  readonly wasOut: boolean;
}

/** Deadlines of pages that no later fault tells of, and of those that a later fault finds there. */
const UNKNOWN = 2 ** 40;
const NEEDED = Number.POSITIVE_INFINITY;

/** A page, in memory or in swap. */
class Page {
  /** Lives that map it, each with the operation by which it must have gone. */
  readonly mappers = new Map<number, number>();
  /** Lives that have it, mapped or not. */
  owners = 0;
  /** Raised whenever the mappers change: older entries of heaps are void. */
  version = 0;

  constructor(readonly vpn: number) {}

  get deadline(): number {
    let first = UNKNOWN;
    for (const deadline of this.mappers.values()) {
      if (deadline === NEEDED) return NEEDED;
      first = Math.min(first, deadline);
    }
    return first;
  }
}

interface Entry {
  readonly page: Page;
  readonly version: number;
  readonly deadline: number;
  readonly seq: number;
}

/** One life: its pages, the heap of those mapped, and what faults will say of them. */
class Life {
  readonly pages = new Map<number, Page>();
  readonly heap: Entry[] = [];
  later: ReadonlyMap<number, readonly Later[]> = new Map();
  /** By page: how many of its faults are past. */
  readonly past = new Map<number, number>();
  /** Forks of this life, in order. */
  readonly forks: {readonly op: number; readonly child: number}[] = [];
}

/** How a fault got its page. */
export type Arrival = 'new' | 'same' | 'back';

/** The pages of all lives. */
export class PresentPages {
  private readonly lives = new Map<number, Life>();
  private swapoffs: readonly number[] = [];
  private seq = 0;

  /**
   * What faults will say of a life's pages; those that the first fault finds out were there from
   * the beginning.
   */
  expect(
    life: number,
    later: ReadonlyMap<number, readonly Later[]>,
    swapoffs: readonly number[],
  ): void {
    this.swapoffs = swapoffs;
    const one = this.life(life);
    one.later = later;
    for (const [vpn, faults] of later) if (faults[0].wasOut) this.map(life, new Page(vpn), -1);
  }

  /**
   * `parent` will fork `child` at `op`: what the child's faults say of pages that it inherits
   * counts before the fork, too.
   */
  expectFork(parent: number, child: number, op: number): void {
    this.life(parent).forks.push({op, child});
  }

  private life(index: number): Life {
    let life = this.lives.get(index);
    if (life === undefined) {
      life = new Life();
      this.lives.set(index, life);
    }
    return life;
  }

  /**
   * When a page that life `index` maps since `op` must have gone: before it comes back, and before
   * a swapoff.
   */
  private deadline(index: number, vpn: number, op: number): number {
    const life = this.life(index);
    const faults = life.later.get(vpn) ?? [];
    let at = life.past.get(vpn) ?? 0;
    while (at < faults.length && faults[at].op <= op) at++;
    life.past.set(vpn, at);
    const next = faults[at];
    let deadline = next === undefined ? UNKNOWN : this.deadlineOf(next, op);
    for (const fork of life.forks) {
      if (fork.op <= op) continue;
      if (deadline === NEEDED || (next !== undefined && next.op < fork.op)) break;
      const inherited = this.deadline(fork.child, vpn, fork.op);
      deadline = inherited === NEEDED ? NEEDED : Math.min(deadline, inherited);
    }
    return deadline;
  }

  private deadlineOf(next: Later, op: number): number {
    if (!next.wasOut) return NEEDED;
    const swapoff = this.swapoffs.findLast((one) => one < next.op) ?? -1;
    return swapoff > op ? swapoff : next.op;
  }

  private map(index: number, page: Page, op: number): void {
    this.life(index).pages.set(page.vpn, page);
    page.owners++;
    page.mappers.set(index, this.deadline(index, page.vpn, op));
    this.changed(page);
  }

  private leave(index: number, page: Page): void {
    page.owners--;
    if (page.mappers.delete(index)) this.changed(page);
  }

  private changed(page: Page): void {
    page.version++;
    const {version, deadline} = page;
    for (const index of page.mappers.keys()) {
      push(this.life(index).heap, {page, version, deadline, seq: this.seq++});
    }
  }

  /**
   * A fault of `life` at `vpn` is over. True when it brought in a page that was to have gone and
   * had not.
   */
  arrived(life: number, vpn: number, op: number, how: Arrival, write: boolean): boolean {
    const {pages} = this.life(life);
    const before = pages.get(vpn);
    const missed = how === 'back' && before?.mappers.has(life) === true;
    if (before === undefined) {
      this.map(life, new Page(vpn), op);
      return false;
    }
    const copied = how === 'new' || (how === 'back' && write && before.owners > 1);
    this.leave(life, before);
    this.map(life, copied ? new Page(vpn) : before, op);
    return missed;
  }

  /** `child` has everything that `parent` has. */
  fork(parent: number, child: number, op: number): void {
    const all = [...this.life(parent).pages];
    const {pages} = this.life(child);
    for (const [vpn, page] of all) {
      if (pages.has(vpn)) this.leave(child, pages.get(vpn)!);
      if (page.mappers.has(parent)) this.map(child, page, op);
      else {
        pages.set(vpn, page);
        page.owners++;
      }
    }
  }

  /** The life is over. */
  end(life: number): void {
    for (const page of this.life(life).pages.values()) this.leave(life, page);
    this.lives.delete(life);
  }

  /**
   * Takes pages that `life` maps, the most urgent first, while all who map them have some `left` to
   * lose. Returns their numbers; `left` is lowered for every mapper.
   */
  take(life: number, left: Map<number, number>, op: number): number[] {
    const {heap} = this.life(life);
    const vpns: number[] = [];
    const spared: Entry[] = [];
    while ((left.get(life) ?? 0) > 0) {
      const entry = pop(heap);
      if (entry === null) break;
      const {page, version} = entry;
      if (page.version !== version || entry.deadline <= op) continue;
      const mappers = [...page.mappers.keys()];
      if (mappers.some((one) => (left.get(one) ?? 0) === 0)) {
        spared.push(entry);
        continue;
      }
      for (const one of mappers) left.set(one, left.get(one)! - 1);
      page.mappers.clear();
      page.version++;
      vpns.push(page.vpn);
    }
    for (const entry of spared) push(heap, entry);
    return vpns;
  }
}

function push(heap: Entry[], entry: Entry): void {
  let at = heap.push(entry) - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!isBefore(entry, heap[parent])) break;
    heap[at] = heap[parent];
    at = parent;
  }
  heap[at] = entry;
}

function pop(heap: Entry[]): Entry | null {
  const top = heap[0];
  const last = heap.pop();
  if (last === undefined) return null;
  if (heap.length === 0) return top;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
    if (!isBefore(heap[child], last)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = last;
  return top;
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.deadline === b.deadline ? a.seq < b.seq : a.deadline < b.deadline;
}
