// Interval trees of VMAs by page offset, as mm/interval_tree.c: which VMAs map offset `first` to
// `last` of a file or of an anon_vma. Visited in order of their start, then of their end, equal
// extents in order of insertion: the order in which notifications are sent during an rmap walk
// (Linux does not look at the end; it matters where areas of unequal length begin alike).
//
// A treap with parent links whose nodes are numbers in one arena for many trees (64 bytes a node,
// in two lines of the host's cache): a fork storm has a node per VMA and ancestor, so objects would
// dominate the heap. Priorities are a hash of a counter: deterministic, O(log n) expected. Nodes of
// equal extent, as all processes have that map the same library, share one place in the treap: a
// ring of twins in order of insertion, of which the first is the treap's node. So fork and exit
// link and unlink a VMA in O(1).

/** Whoever has a tree keeps its root here; 0 for an empty one. */
export interface IntervalRoot {
  root: number;
}

const FIRST_CAPACITY = 1024;
/** Numbers of a node, and which is what. */
const EXTENT = 4;
const START = 0;
const LAST = 1;
const MOST = 2;
const LINKS = 8;
const LEFT = 0;
const RIGHT = 1;
const PARENT = 2;
const PRIORITY = 3;
const AFTER = 4;
const BEFORE = 5;
const OWNER = 6;
const CHAIN = 7;
/** `parent` of a node that is in a ring behind the treap's node. */
const TWIN = -1;

/** All trees of one kind. `T` is the VMA; `owner` an id of the tree's owner. */
export class IntervalForest<T> {
  /** Node to VMA, null when the node is free. */
  readonly item: (T | null)[] = [null];
  /** Of each node: first and last offset, largest last offset of the subtree; one unused. */
  private ext = new Float64Array(FIRST_CAPACITY * EXTENT);
  /** Of each node: its places in treap and ring, its owner, the next of the same item (chain). */
  private link = new Int32Array(FIRST_CAPACITY * LINKS);
  private readonly free: number[] = [];
  private made = 0;

  /** Nodes in use. */
  get used(): number {
    return this.item.length - 1 - this.free.length;
  }

  /** A node outside any tree. */
  allocate(item: T, owner: number): number {
    const node = this.free.pop() ?? this.item.length;
    const at = node * LINKS;
    if (at >= this.link.length) this.grow();
    const {link} = this;
    this.item[node] = item;
    link[at + OWNER] = owner;
    link[at + CHAIN] = 0;
    return node;
  }

  /** The `owner` that the node was allocated with. */
  ownerOf(node: number): number {
    return this.link[node * LINKS + OWNER];
  }

  /** The node that `chain` put behind this one, 0 for none. */
  nextInChain(node: number): number {
    return this.link[node * LINKS + CHAIN];
  }

  /** Puts `next` behind `node` in a list that the caller keeps. */
  chain(node: number, next: number): void {
    this.link[node * LINKS + CHAIN] = next;
  }

  /** Gives back a node that is in no tree. */
  release(node: number): void {
    this.item[node] = null;
    this.free.push(node);
  }

  /**
   * The offsets [start, last] of a node that is in no tree. Apart, so that no call passes them on.
   */
  setExtent(node: number, start: number, last: number): void {
    const {ext} = this;
    ext[node * EXTENT + START] = start;
    ext[node * EXTENT + LAST] = last;
  }

  /** Inserts a node by its extent. */
  insert(tree: IntervalRoot, node: number): void {
    const start = this.ext[node * EXTENT + START];
    const last = this.ext[node * EXTENT + LAST];
    let above = 0;
    let at = tree.root;
    let goLeft = false;
    while (at !== 0) {
      above = at;
      const begin = this.ext[at * EXTENT + START];
      if (begin === start) {
        const end = this.ext[at * EXTENT + LAST];
        if (end === last) {
          this.joinRing(node, this.link[at * LINKS + BEFORE]);
          return;
        }
        goLeft = last < end;
      } else goLeft = start < begin;
      at = goLeft ? this.link[at * LINKS + LEFT] : this.link[at * LINKS + RIGHT];
    }
    this.attach(tree, node, above, goLeft);
  }

  /**
   * As insert, right behind `before` when that has the same extent (fork's child next to its
   * parent).
   */
  insertAfter(tree: IntervalRoot, node: number, before: number): void {
    const {ext} = this;
    const sameStart = ext[before * EXTENT + START] === ext[node * EXTENT + START];
    if (sameStart && ext[before * EXTENT + LAST] === ext[node * EXTENT + LAST]) {
      this.joinRing(node, before);
    } else this.insert(tree, node);
  }

  /** Takes a node out of its tree; it can be inserted again or released. */
  remove(tree: IntervalRoot, node: number): void {
    const next = this.link[node * LINKS + AFTER];
    if (next !== node) {
      const before = this.link[node * LINKS + BEFORE];
      this.link[before * LINKS + AFTER] = next;
      this.link[next * LINKS + BEFORE] = before;
      if (this.link[node * LINKS + PARENT] !== TWIN) this.promote(tree, node, next);
      return;
    }
    for (;;) {
      const l = this.link[node * LINKS + LEFT];
      const r = this.link[node * LINKS + RIGHT];
      if (l === 0 || r === 0) break;
      this.rotateUp(
        tree,
        this.link[l * LINKS + PRIORITY] > this.link[r * LINKS + PRIORITY] ? l : r,
      );
    }
    const child = this.link[node * LINKS + LEFT] + this.link[node * LINKS + RIGHT];
    const above = this.link[node * LINKS + PARENT];
    if (child !== 0) this.link[child * LINKS + PARENT] = above;
    this.replaceChild(tree, above, node, child);
    this.updateUp(above);
  }

  /** First node of the tree that overlaps [start, last], 0 when none does. */
  iterFirst(tree: IntervalRoot, start: number, last: number): number {
    return tree.root === 0 || this.ext[tree.root * EXTENT + MOST] < start
      ? 0
      : this.leftmostIn(tree.root, start, last);
  }

  /** Next one after `node`, 0 at the end. */
  iterNext(node: number, start: number, last: number): number {
    let at = this.link[node * LINKS + AFTER];
    if (this.link[at * LINKS + PARENT] === TWIN) return at;
    for (;;) {
      const r = this.link[at * LINKS + RIGHT];
      if (r !== 0 && this.ext[r * EXTENT + MOST] >= start) {
        const found = this.leftmostIn(r, start, last);
        if (found !== 0) return found;
      }
      let below = at;
      at = this.link[at * LINKS + PARENT];
      while (at !== 0 && this.link[at * LINKS + LEFT] !== below) {
        below = at;
        at = this.link[at * LINKS + PARENT];
      }
      if (at === 0) return 0;
      if (this.ext[at * EXTENT + START] > last) return 0;
      if (this.ext[at * EXTENT + LAST] >= start) return at;
    }
  }

  /**
   * Leftmost overlapping node of a subtree whose `most` is at least `start`; 0 when all of it
   * begins too late.
   */
  private leftmostIn(at: number, start: number, last: number): number {
    for (;;) {
      const l = this.link[at * LINKS + LEFT];
      if (l !== 0 && this.ext[l * EXTENT + MOST] >= start) {
        at = l;
        continue;
      }
      if (this.ext[at * EXTENT + START] > last) return 0;
      if (this.ext[at * EXTENT + LAST] >= start) return at;
      at = this.link[at * LINKS + RIGHT];
      if (at === 0 || this.ext[at * EXTENT + MOST] < start) return 0;
    }
  }

  /** Puts a node of equal extent behind `before` in its ring. */
  private joinRing(node: number, before: number): void {
    const next = this.link[before * LINKS + AFTER];
    this.link[node * LINKS + PARENT] = TWIN;
    this.link[before * LINKS + AFTER] = node;
    this.link[node * LINKS + BEFORE] = before;
    this.link[node * LINKS + AFTER] = next;
    this.link[next * LINKS + BEFORE] = node;
  }

  /** `twin` takes the place of `node` in the treap. */
  private promote(tree: IntervalRoot, node: number, twin: number): void {
    const l = this.link[node * LINKS + LEFT];
    const r = this.link[node * LINKS + RIGHT];
    const above = this.link[node * LINKS + PARENT];
    this.link[twin * LINKS + LEFT] = l;
    this.link[twin * LINKS + RIGHT] = r;
    this.link[twin * LINKS + PARENT] = above;
    this.link[twin * LINKS + PRIORITY] = this.link[node * LINKS + PRIORITY];
    this.ext[twin * EXTENT + MOST] = this.ext[node * EXTENT + MOST];
    if (l !== 0) this.link[l * LINKS + PARENT] = twin;
    if (r !== 0) this.link[r * LINKS + PARENT] = twin;
    this.replaceChild(tree, above, node, twin);
  }

  private attach(tree: IntervalRoot, node: number, above: number, goLeft: boolean): void {
    const last = this.ext[node * EXTENT + LAST];
    this.ext[node * EXTENT + MOST] = last;
    this.link[node * LINKS + LEFT] = 0;
    this.link[node * LINKS + RIGHT] = 0;
    this.link[node * LINKS + PARENT] = above;
    this.link[node * LINKS + PRIORITY] = mix(++this.made);
    this.link[node * LINKS + AFTER] = node;
    this.link[node * LINKS + BEFORE] = node;
    if (above === 0) tree.root = node;
    else if (goLeft) this.link[above * LINKS + LEFT] = node;
    else this.link[above * LINKS + RIGHT] = node;
    for (
      let at = above;
      at !== 0 && this.ext[at * EXTENT + MOST] < last;
      at = this.link[at * LINKS + PARENT]
    )
      this.ext[at * EXTENT + MOST] = last;
    const priority = this.link[node * LINKS + PRIORITY];
    for (let at = above; at !== 0 && this.link[at * LINKS + PRIORITY] < priority; ) {
      this.rotateUp(tree, node);
      at = this.link[node * LINKS + PARENT];
    }
  }

  /** Rotates a node over its parent. */
  private rotateUp(tree: IntervalRoot, node: number): void {
    const above = this.link[node * LINKS + PARENT];
    const top = this.link[above * LINKS + PARENT];
    let child: number;
    if (this.link[above * LINKS + LEFT] === node) {
      child = this.link[node * LINKS + RIGHT];
      this.link[above * LINKS + LEFT] = child;
      this.link[node * LINKS + RIGHT] = above;
    } else {
      child = this.link[node * LINKS + LEFT];
      this.link[above * LINKS + RIGHT] = child;
      this.link[node * LINKS + LEFT] = above;
    }
    if (child !== 0) this.link[child * LINKS + PARENT] = above;
    this.link[above * LINKS + PARENT] = node;
    this.link[node * LINKS + PARENT] = top;
    this.replaceChild(tree, top, above, node);
    this.update(above);
    this.update(node);
  }

  private replaceChild(tree: IntervalRoot, above: number, old: number, child: number): void {
    if (above === 0) tree.root = child;
    else if (this.link[above * LINKS + LEFT] === old) this.link[above * LINKS + LEFT] = child;
    else this.link[above * LINKS + RIGHT] = child;
  }

  private update(node: number): void {
    const l = this.link[node * LINKS + LEFT];
    const r = this.link[node * LINKS + RIGHT];
    let most = this.ext[node * EXTENT + LAST];
    if (l !== 0 && this.ext[l * EXTENT + MOST] > most) most = this.ext[l * EXTENT + MOST];
    if (r !== 0 && this.ext[r * EXTENT + MOST] > most) most = this.ext[r * EXTENT + MOST];
    this.ext[node * EXTENT + MOST] = most;
  }

  private updateUp(node: number): void {
    for (let at = node; at !== 0; at = this.link[at * LINKS + PARENT]) {
      const old = this.ext[at * EXTENT + MOST];
      this.update(at);
      if (this.ext[at * EXTENT + MOST] === old) return;
    }
  }

  private grow(): void {
    const ext = new Float64Array(this.ext.length * 2);
    ext.set(this.ext);
    this.ext = ext;
    const link = new Int32Array(this.link.length * 2);
    link.set(this.link);
    this.link = link;
  }
}

/** Scatters consecutive numbers over 32 bits (the finaliser of MurmurHash3). */
function mix(count: number): number {
  let h = count | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
