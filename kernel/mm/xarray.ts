// The XArray: an index from page offsets to words, for the page cache. Nodes of 64 slots in one
// arena for all files. A word is 0 for nothing, a positive pfn, or a negative value entry (a swap
// entry in shmem, a shadow entry elsewhere).

import {assert} from '../../machine/assert.ts';

const SLOTS = 64;
const SHIFT = 6;
const PER_2_30 = 2 ** -30;

/** One index. */
export interface XArrayRoot {
  /** Top node, 0 when empty. */
  node: number;
  /** Levels of nodes; 0 when empty. Level 1 covers 64 indices. */
  height: number;
}

/** xa_mk_value: a number below 2^31 as a value entry. */
export function xa_mk_value(value: number): number {
  return ~value;
}

/** xa_to_value. */
export function xa_to_value(entry: number): number {
  return ~entry;
}

/** xa_is_value. */
export function xa_is_value(entry: number): boolean {
  return entry < 0;
}

/** All nodes. */
export class XArrays {
  private slots = new Int32Array(1024 * SLOTS);
  private counts = new Uint8Array(1024);
  private readonly free: number[] = [];
  private next = 1;

  /** Nodes in use. */
  get used(): number {
    return this.next - 1 - this.free.length;
  }

  /** xa_load: the entry at an index below 2^36, 0 when there is none. */
  load(root: XArrayRoot, index: number): number {
    const {slots} = this;
    let {node} = root;
    let level = root.height;
    if (index >= COVERED[level]) return 0;
    while (level > 1) {
      level--;
      node = slots[node * SLOTS + digit(index, level)];
      if (node === 0) return 0;
    }
    return node === 0 ? 0 : slots[node * SLOTS + (index & 63)];
  }

  /** xa_store: sets the entry (0 erases) and returns what was there. */
  store(root: XArrayRoot, index: number, entry: number): number {
    if (entry === 0) return this.erase(root, index);
    this.raise(root, index);
    let {node} = root;
    for (let level = root.height - 1; level > 0; level--) {
      const slot = node * SLOTS + digit(index, level);
      let below = this.slots[slot];
      if (below === 0) {
        below = this.allocate();
        this.slots[slot] = below;
        this.counts[node]++;
      }
      node = below;
    }
    const slot = node * SLOTS + (index & 63);
    const old = this.slots[slot];
    if (old === 0) this.counts[node]++;
    this.slots[slot] = entry;
    return old;
  }

  /** xa_erase: removes the entry at an index and returns it; empty nodes go. */
  erase(root: XArrayRoot, index: number): number {
    if (index >= COVERED[root.height] || root.node === 0) return 0;
    return this.eraseBelow(root, root.node, root.height, index);
  }

  /** xa_find: the first index in [index, last] that has an entry, -1 when none has. */
  find(root: XArrayRoot, index: number, last: number): number {
    const end = Math.min(last, COVERED[root.height] - 1);
    let at = index;
    while (at <= end && root.node !== 0) {
      let {node} = root;
      let level = root.height;
      while (level > 1) {
        const below = this.slots[node * SLOTS + digit(at, level - 1)];
        if (below === 0) break;
        node = below;
        level--;
      }
      if (level === 1) {
        const base = node * SLOTS;
        let slot = at & 63;
        while (slot < SLOTS && this.slots[base + slot] === 0) slot++;
        const found = at - (at & 63) + slot;
        if (slot < SLOTS) return found <= end ? found : -1;
        at = found;
      } else {
        const span = COVERED[level - 1];
        at = (Math.floor(at / span) + 1) * span;
      }
    }
    return -1;
  }

  private eraseBelow(root: XArrayRoot, node: number, level: number, index: number): number {
    const slot = node * SLOTS + digit(index, level - 1);
    let old = this.slots[slot];
    if (old === 0) return 0;
    if (level > 1) {
      const below = old;
      old = this.eraseBelow(root, below, level - 1, index);
      if (this.counts[below] > 0) return old;
      this.free.push(below);
    }
    this.slots[slot] = 0;
    this.counts[node]--;
    if (node === root.node && this.counts[node] === 0) {
      this.free.push(node);
      root.node = 0;
      root.height = 0;
    }
    return old;
  }

  /** Adds levels on top until the index is covered. */
  private raise(root: XArrayRoot, index: number): void {
    assert(index < COVERED[6], 'page index of 2^36 or more');
    if (root.node === 0) {
      root.height = 1;
      while (index >= COVERED[root.height]) root.height++;
      root.node = this.allocate();
    }
    while (index >= COVERED[root.height]) {
      const top = this.allocate();
      this.slots[top * SLOTS] = root.node;
      this.counts[top] = 1;
      root.node = top;
      root.height++;
    }
  }

  private allocate(): number {
    const node = this.free.pop() ?? this.next++;
    if (node >= this.counts.length) {
      const slots = new Int32Array(this.slots.length * 2);
      slots.set(this.slots);
      this.slots = slots;
      const counts = new Uint8Array(this.counts.length * 2);
      counts.set(this.counts);
      this.counts = counts;
    }
    return node;
  }
}

/** Indices that so many levels cover. */
const COVERED: readonly number[] = [0, 2 ** 6, 2 ** 12, 2 ** 18, 2 ** 24, 2 ** 30, 2 ** 36];

/** Slot of an index in a node whose slots each span 64^level indices. */
function digit(index: number, level: number): number {
  if (level < 5) return ((index | 0) >>> (SHIFT * level)) & 63;
  return (index * PER_2_30) & 63;
}
