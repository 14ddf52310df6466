// mm/ksm.c: the stable and the unstable tree, and who is in them.
//
// The trees are ordered by memcmp in Linux; what a page holds is a class number here
// (pages.content; 0 is all zeros), so a tree is a map from class to node, and its height gives the
// cost of a search. A stable node is one write-protected KSM page with the rmap_items that map it.
// With more than max_page_sharing items it takes a further page of the same content: a chain of
// nodes. The stable tree holds no reference: a page that everybody has left is freed, and its node
// is found stale later. The unstable tree is forgotten with every full scan.
//
// Counts are Linux's: pages_shared are nodes with items, pages_sharing the items beyond the first
// of each. For N equal pages and M = max_page_sharing that gives what the test's formula says.

import {assert} from '../../machine/assert.ts';
import type {AnonVma} from './anon_vma.ts';
import {MAPPING_KSM, mappingId, mappingKind, type Pages} from './page.ts';
import type {UserMm} from './user_mm.ts';

/** One page of a mergeable VMA that ksmd has seen. */
export class RmapItem {
  oldChecksum = -1;
  /** Scans survived, and scans still to be skipped (smart scan). */
  age = 0;
  remainingSkips = 0;
  /** Full scan in which it was seen last. */
  seen = 0;
  node: StableNode | null = null;
  anonVma: AnonVma | null = null;
  /** The unstable tree in which it is or was, -1 for none. */
  tree = -1;
  unstableKey = 0;

  constructor(
    readonly user: UserMm,
    readonly vpn: number,
    /** The next one of the mm, by address. */
    public next: RmapItem | null,
  ) {}
}

/** One KSM page. */
export class StableNode {
  readonly items = new Set<RmapItem>();

  constructor(
    readonly id: number,
    readonly key: number,
    /** Changes when the page migrates. */
    public pfn: number,
  ) {}
}

/** Both trees, of all nodes, and the counters. */
export class KsmTrees {
  pagesShared = 0;
  pagesSharing = 0;
  /** Items in the unstable tree, and those of the last one that were not visited again yet. */
  pagesUnshared = 0;
  /** merge_across_nodes = 0: a pair of trees for each memory node. */
  byNode = false;
  readonly nodes = new Map<number, StableNode>();
  private readonly stable = new Map<number, StableNode[]>();
  /** Items by what they hold. Those of earlier trees stay until others take their places. */
  private readonly unstable = new Map<number, RmapItem>();
  /** Number of the unstable tree, and how many items are in it. */
  private tree = 0;
  private unstableSize = 0;
  private nextId = 1;

  constructor(readonly pages: Pages) {}

  /** Where a page belongs in the trees: its content, and its node where that counts. */
  keyOf(pfn: number): number {
    const {pages, byNode} = this;
    return pages.content[pfn] + (byNode ? pages.nodeOf(pfn) * 2 ** 32 : 0);
  }

  /** Steps of a search in each tree: its height. */
  get stableHeight(): number {
    return 32 - Math.clz32(this.stable.size);
  }

  get unstableHeight(): number {
    return 32 - Math.clz32(this.unstableSize);
  }

  /** ksm_get_folio: true while the node's page is still its. */
  isAlive(node: StableNode): boolean {
    const {pages} = this;
    if (mappingKind(pages, node.pfn) !== MAPPING_KSM) return false;
    return mappingId(pages, node.pfn) === node.id && !pages.refcount.isZero(node.pfn);
  }

  /** page_stable_node: the node of a KSM page. */
  nodeOf(pfn: number): StableNode | null {
    if (mappingKind(this.pages, pfn) !== MAPPING_KSM) return null;
    return this.nodes.get(mappingId(this.pages, pfn)) ?? null;
  }

  /** True when the page is a KSM page and the item is one of its node's. */
  isOf(pfn: number, item: RmapItem): boolean {
    const {pages} = this;
    const {node} = item;
    if (node === null || mappingKind(pages, pfn) !== MAPPING_KSM) return false;
    return mappingId(pages, pfn) === node.id;
  }

  /**
   * stable_tree_search: the fullest node of the chain that has room, null when there is none. Stale
   * nodes met on the way go (stable_node_dup): removeNode leaves this array as it is.
   */
  search(key: number, limit: number): StableNode | null {
    let best: StableNode | null = null;
    const chain = this.stable.get(key);
    if (chain === undefined) return null;
    for (const node of chain) {
      if (!this.isAlive(node)) this.removeNode(node);
      else if (node.items.size < limit && node.items.size > (best?.items.size ?? -1)) best = node;
    }
    return best;
  }

  /** stable_tree_insert: the page becomes a node, of a chain if there are others like it. */
  insert(key: number, pfn: number): StableNode {
    const node = new StableNode(this.nextId++, key, pfn);
    const chain = this.stable.get(key);
    if (chain === undefined) this.stable.set(key, [node]);
    else chain.push(node);
    this.nodes.set(node.id, node);
    return node;
  }

  /** stable_tree_append. */
  append(item: RmapItem, node: StableNode): void {
    assert(item.node === null && item.tree < 0, 'rmap_item in two trees');
    if (node.items.size === 0) this.pagesShared++;
    else this.pagesSharing++;
    node.items.add(item);
    item.node = node;
    item.user.ksmMergingPages++;
  }

  /**
   * remove_rmap_item_from_tree for the stable tree. An empty node stays until it is found stale.
   */
  removeItem(item: RmapItem): void {
    const {node} = item;
    if (node === null) return;
    node.items.delete(item);
    if (node.items.size === 0) this.pagesShared--;
    else this.pagesSharing--;
    item.node = null;
    item.user.ksmMergingPages--;
    if (node.items.size === 0 && !this.isAlive(node)) this.removeNode(node);
  }

  /** remove_node_from_stable_tree: the items go with it. */
  removeNode(node: StableNode): void {
    for (const item of [...node.items]) {
      node.items.delete(item);
      if (node.items.size === 0) this.pagesShared--;
      else this.pagesSharing--;
      item.node = null;
      item.user.ksmMergingPages--;
    }
    this.nodes.delete(node.id);
    const chain = this.stable.get(node.key)!.filter((other) => other !== node);
    if (chain.length === 0) this.stable.delete(node.key);
    else this.stable.set(node.key, chain);
  }

  /** Nodes whose page is gone (stable_node_chains_prune). */
  prune(): void {
    for (const node of [...this.nodes.values()]) if (!this.isAlive(node)) this.removeNode(node);
  }

  /** unstable_tree_search_insert: the item with equal content, or null, and `item` is in. */
  searchUnstable(key: number, item: RmapItem): RmapItem | null {
    const found = this.unstable.get(key);
    if (found !== undefined && found.tree === this.tree && found.unstableKey === key) return found;
    this.unstable.set(key, item);
    item.tree = this.tree;
    item.unstableKey = key;
    this.unstableSize++;
    this.pagesUnshared++;
    return null;
  }

  /** Takes an item out of the unstable tree. */
  removeUnstable(item: RmapItem): void {
    if (item.tree < 0) return;
    if (item.tree === this.tree) this.unstableSize--;
    item.tree = -1;
    this.pagesUnshared--;
  }

  /** A full scan begins: root_unstable_tree = RB_ROOT. Items leave as they are visited. */
  clearUnstable(): void {
    const {unstable} = this;
    if (unstable.size > this.unstableSize * 4) unstable.clear();
    this.unstableSize = 0;
    this.tree++;
  }

  /** Nodes beyond the first of one content, and how many contents have several. */
  chainCounts(): {readonly stable_node_dups: number; readonly stable_node_chains: number} {
    let dups = 0;
    let chains = 0;
    for (const chain of this.stable.values()) {
      if (chain.length < 2) continue;
      chains++;
      dups += chain.length;
    }
    return {stable_node_dups: dups, stable_node_chains: chains};
  }
}
