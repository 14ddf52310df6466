// Interval trees of VMAs by page offset, as mm/interval_tree.c: which VMAs map offset `first` to `last` of a file or of an
// anon_vma. Visited in order of their start, equal starts in order of insertion (but those of equal extent together), which is the
// order in which Linux sends notifications during an rmap walk.
//
// A treap with parent links whose nodes are numbers in one arena for many trees (52 bytes a node): a fork storm has a node per
// VMA and ancestor, so objects would dominate the heap. Priorities are a hash of a counter: deterministic, O(log n) expected.
// Nodes of equal extent, as all processes have that map the same library, share one place in the treap: a ring of twins in order
// of insertion, of which the first is the treap's node. So fork and exit link and unlink a VMA in O(1).

/** Whoever has a tree keeps its root here; 0 for an empty one. */
export interface IntervalRoot {
  root: number;
}

const FIRST_CAPACITY = 1024;
/** `parent` of a node that is in a ring behind the treap's node. */
const TWIN = -1;

/** All trees of one kind. `T` is the VMA; `owner` an id of the tree's owner. */
export class IntervalForest<T> {
  /** Node to VMA, null when the node is free. */
  readonly item: (T | null)[] = [null];
  owner = new Int32Array(FIRST_CAPACITY);
  private start = new Float64Array(FIRST_CAPACITY);
  private last = new Float64Array(FIRST_CAPACITY);
  /** Largest `last` of the subtree. */
  private most = new Float64Array(FIRST_CAPACITY);
  private left = new Int32Array(FIRST_CAPACITY);
  private right = new Int32Array(FIRST_CAPACITY);
  private parent = new Int32Array(FIRST_CAPACITY);
  private priority = new Int32Array(FIRST_CAPACITY);
  /** Ring of nodes of equal extent. */
  private after = new Int32Array(FIRST_CAPACITY);
  private before = new Int32Array(FIRST_CAPACITY);
  private readonly free: number[] = [];
  private made = 0;

  /** Nodes in use. */
  get used(): number {
    return this.item.length - 1 - this.free.length;
  }

  /** A node outside any tree. */
  allocate(item: T, owner: number): number {
    const node = this.free.pop() ?? this.item.length;
    if (node >= this.owner.length) this.grow();
    this.item[node] = item;
    this.owner[node] = owner;
    return node;
  }

  /** Gives back a node that is in no tree. */
  release(node: number): void {
    this.item[node] = null;
    this.free.push(node);
  }

  /** Inserts a node for the offsets [start, last]. */
  insert(tree: IntervalRoot, node: number, start: number, last: number): void {
    let above = 0;
    let at = tree.root;
    let goLeft = false;
    while (at !== 0) {
      above = at;
      const begin = this.start[at];
      if (begin === start && this.last[at] === last) {
        this.joinRing(node, this.before[at], start, last);
        return;
      }
      goLeft = start < begin;
      at = goLeft ? this.left[at] : this.right[at];
    }
    this.attach(tree, node, start, last, above, goLeft);
  }

  /** Inserts a node right after `before`, which begins at the same offset (fork's child next to its parent). */
  insertAfter(tree: IntervalRoot, node: number, before: number, start: number, last: number): void {
    if (this.start[before] === start && this.last[before] === last) {
      this.joinRing(node, before, start, last);
      return;
    }
    let above = this.headOf(before);
    let goLeft = false;
    for (let at = this.right[above]; at !== 0; at = this.left[at]) {
      above = at;
      goLeft = true;
    }
    this.attach(tree, node, start, last, above, goLeft);
  }

  /** Takes a node out of its tree; it can be inserted again or released. */
  remove(tree: IntervalRoot, node: number): void {
    const next = this.after[node];
    if (next !== node) {
      this.after[this.before[node]] = next;
      this.before[next] = this.before[node];
      if (this.parent[node] !== TWIN) this.promote(tree, node, next);
      return;
    }
    for (;;) {
      const l = this.left[node];
      const r = this.right[node];
      if (l === 0 || r === 0) break;
      this.rotateUp(tree, this.priority[l] > this.priority[r] ? l : r);
    }
    const child = this.left[node] + this.right[node];
    const above = this.parent[node];
    if (child !== 0) this.parent[child] = above;
    this.replaceChild(tree, above, node, child);
    this.updateUp(above);
  }

  /** First node of the tree that overlaps [start, last], 0 when none does. */
  iterFirst(tree: IntervalRoot, start: number, last: number): number {
    return tree.root === 0 || this.most[tree.root] < start
      ? 0
      : this.leftmostIn(tree.root, start, last);
  }

  /** Next one after `node`, 0 at the end. */
  iterNext(node: number, start: number, last: number): number {
    let at = this.after[node];
    if (this.parent[at] === TWIN) return at;
    for (;;) {
      const r = this.right[at];
      if (r !== 0 && this.most[r] >= start) {
        const found = this.leftmostIn(r, start, last);
        if (found !== 0) return found;
      }
      let below = at;
      at = this.parent[at];
      while (at !== 0 && this.left[at] !== below) {
        below = at;
        at = this.parent[at];
      }
      if (at === 0) return 0;
      if (this.start[at] > last) return 0;
      if (this.last[at] >= start) return at;
    }
  }

  /** Leftmost overlapping node of a subtree whose `most` is at least `start`; 0 when all of it begins too late. */
  private leftmostIn(at: number, start: number, last: number): number {
    for (;;) {
      const l = this.left[at];
      if (l !== 0 && this.most[l] >= start) {
        at = l;
        continue;
      }
      if (this.start[at] > last) return 0;
      if (this.last[at] >= start) return at;
      at = this.right[at];
      if (at === 0 || this.most[at] < start) return 0;
    }
  }

  /** The node of the treap whose ring `node` is in. */
  private headOf(node: number): number {
    let head = node;
    while (this.parent[head] === TWIN) head = this.before[head];
    return head;
  }

  /** Puts a node of equal extent behind `before` in its ring. */
  private joinRing(node: number, before: number, start: number, last: number): void {
    const next = this.after[before];
    this.start[node] = start;
    this.last[node] = last;
    this.parent[node] = TWIN;
    this.after[before] = node;
    this.before[node] = before;
    this.after[node] = next;
    this.before[next] = node;
  }

  /** `twin` takes the place of `node` in the treap. */
  private promote(tree: IntervalRoot, node: number, twin: number): void {
    const l = this.left[node];
    const r = this.right[node];
    const above = this.parent[node];
    this.left[twin] = l;
    this.right[twin] = r;
    this.parent[twin] = above;
    this.priority[twin] = this.priority[node];
    this.most[twin] = this.most[node];
    if (l !== 0) this.parent[l] = twin;
    if (r !== 0) this.parent[r] = twin;
    this.replaceChild(tree, above, node, twin);
  }

  private attach(
    tree: IntervalRoot,
    node: number,
    start: number,
    last: number,
    above: number,
    goLeft: boolean,
  ): void {
    this.start[node] = start;
    this.last[node] = last;
    this.most[node] = last;
    this.left[node] = 0;
    this.right[node] = 0;
    this.parent[node] = above;
    this.priority[node] = mix(++this.made);
    this.after[node] = node;
    this.before[node] = node;
    if (above === 0) tree.root = node;
    else if (goLeft) this.left[above] = node;
    else this.right[above] = node;
    for (let at = above; at !== 0 && this.most[at] < last; at = this.parent[at])
      this.most[at] = last;
    while (this.parent[node] !== 0 && this.priority[this.parent[node]] < this.priority[node]) {
      this.rotateUp(tree, node);
    }
  }

  /** Rotates a node over its parent. */
  private rotateUp(tree: IntervalRoot, node: number): void {
    const above = this.parent[node];
    const top = this.parent[above];
    let child: number;
    if (this.left[above] === node) {
      child = this.right[node];
      this.left[above] = child;
      this.right[node] = above;
    } else {
      child = this.left[node];
      this.right[above] = child;
      this.left[node] = above;
    }
    if (child !== 0) this.parent[child] = above;
    this.parent[above] = node;
    this.parent[node] = top;
    this.replaceChild(tree, top, above, node);
    this.update(above);
    this.update(node);
  }

  private replaceChild(tree: IntervalRoot, above: number, old: number, child: number): void {
    if (above === 0) tree.root = child;
    else if (this.left[above] === old) this.left[above] = child;
    else this.right[above] = child;
  }

  private update(node: number): void {
    const l = this.left[node];
    const r = this.right[node];
    let most = this.last[node];
    if (l !== 0 && this.most[l] > most) most = this.most[l];
    if (r !== 0 && this.most[r] > most) most = this.most[r];
    this.most[node] = most;
  }

  private updateUp(node: number): void {
    for (let at = node; at !== 0; at = this.parent[at]) {
      const old = this.most[at];
      this.update(at);
      if (this.most[at] === old) return;
    }
  }

  private grow(): void {
    for (const name of ['start', 'last', 'most'] as const) {
      const larger = new Float64Array(this[name].length * 2);
      larger.set(this[name]);
      this[name] = larger;
    }
    for (const name of [
      'owner',
      'left',
      'right',
      'parent',
      'priority',
      'after',
      'before',
    ] as const) {
      const larger = new Int32Array(this[name].length * 2);
      larger.set(this[name]);
      this[name] = larger;
    }
  }
}

/** Scatters consecutive numbers over 32 bits (the finaliser of MurmurHash3). */
function mix(count: number): number {
  let h = count | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
