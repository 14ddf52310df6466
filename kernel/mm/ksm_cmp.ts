// mm/ksm.c, 6.18: cmp_and_merge_page, what ksmd does with one page. A page is merged at the second
// sight at the earliest: its checksum must be what it was at the scan before (since 6.11, RECALLED,
// before any tree is searched; the recorded 6.18 run agrees). Then: page of zeros, stable tree,
// unstable tree. Finding out what a page is equal to is plain code; only merging waits.

import type {Code} from '../../machine/process.ts';
import type {Task} from '../task.ts';
import {type Ksm, remove_rmap_item_from_tree} from './ksm.ts';
import {
  find_mergeable_vma,
  mappedAnon,
  try_to_merge_one_page,
  unmerge_ksm_pages,
} from './ksm_merge.ts';
import {RmapItem, StableNode} from './ksm_tree.ts';
import {compound_head, MAPPING_KSM, setMappingOwner} from './page.ts';
import {folio_put} from './page_alloc.ts';

/** The first tests of cmp_and_merge_page: true when they are all that there is to it. */
export function staysAsItIs(ksm: Ksm, t: Task, item: RmapItem, pfn: number): boolean {
  const {trees} = ksm;
  const own = trees.nodeOf(pfn);
  if (own !== null) return item.node === own;
  remove_rmap_item_from_tree(ksm, item);
  return ksm.checksumFirst && checksumChanged(ksm, t, item, ksm.mm.pages.content[pfn]);
}

/** What a page is merged with: the page of zeros, a KSM page, or a page in the unstable tree. */
type Equal = 'zero' | StableNode | RmapItem;

/** cmp_and_merge_page from there on, up to a merge. Null: there is nothing to merge with. */
export function findEqual(ksm: Ksm, t: Task, item: RmapItem, pfn: number): Equal | null {
  const key = ksm.mm.pages.content[pfn];
  const zeros = ksm.settings.useZeroPages && item.oldChecksum === 0;
  if (zeros && key === 0 && ksm.trees.nodeOf(pfn) === null) return 'zero';
  return searchTrees(ksm, t, item, pfn, key);
}

/** Stable tree, unstable tree: where the page stays if it is alone. */
function searchTrees(
  ksm: Ksm,
  t: Task,
  item: RmapItem,
  pfn: number,
  content: number,
): Equal | null {
  const {trees, costs} = ksm;
  t.cpu.charge(trees.stableHeight * costs.treeStepTicks, ksm.fn);
  // A forked child maps KSM pages already: it is appended over the limit.
  const key = trees.keyOf(pfn);
  const node = trees.nodeOf(pfn) ?? trees.search(key, ksm.settings.maxPageSharing);
  remove_rmap_item_from_tree(ksm, item);
  if (node !== null) return node;
  if (!ksm.checksumFirst && checksumChanged(ksm, t, item, content)) return null;
  t.cpu.charge(trees.unstableHeight * costs.treeStepTicks, ksm.fn);
  return trees.searchUnstable(key, item);
}

/** The merge that cmp_and_merge_page ends with. */
export function* merge(ksm: Ksm, t: Task, item: RmapItem, pfn: number, equal: Equal): Code {
  const content = ksm.mm.pages.content[pfn];
  let to: Equal | null = equal;
  if (to === 'zero') {
    if (yield* mergeWith(ksm, t, item, pfn, -1)) return;
    to = searchTrees(ksm, t, item, pfn, content);
  }
  if (to instanceof StableNode) {
    if (yield* mergeWith(ksm, t, item, pfn, to.pfn)) appendTo(ksm, item, to);
  } else if (to instanceof RmapItem) yield* mergeTwo(ksm, t, item, pfn, to, content);
}

/** The page changed since the last scan, or is seen for the first time: not now. */
function checksumChanged(ksm: Ksm, t: Task, item: RmapItem, key: number): boolean {
  t.cpu.charge(ksm.costs.checksumTicks, ksm.fn);
  if (item.oldChecksum === key) return false;
  item.oldChecksum = key;
  return true;
}

/** try_to_merge_with_ksm_page: under mmap_lock for read. */
function* mergeWith(ksm: Ksm, t: Task, item: RmapItem, pfn: number, target: number): Code<boolean> {
  const {user, vpn} = item;
  const {mmapLock} = user;
  if (!mmapLock.readAcquire(t, ksm.fn)) yield* mmapLock.readAcquireSlow(t, ksm.fn);
  const vma = find_mergeable_vma(user, vpn);
  const good = vma !== null && (yield* try_to_merge_one_page(ksm, t, vma, user, vpn, pfn, target));
  if (good && target >= 0) {
    remove_rmap_item_from_tree(ksm, item);
    item.anonVma = vma.anonVma;
    ksm.mm.anon.get(item.anonVma!);
  }
  if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
  ksm.trace?.merge(target === 0, target < 0, user, vpn, good);
  return good;
}

function appendTo(ksm: Ksm, item: RmapItem, node: StableNode): void {
  ksm.trees.removeUnstable(item);
  ksm.trees.append(item, node);
}

/** try_to_merge_two_pages and stable_tree_insert: the page at hand becomes the KSM page. */
function* mergeTwo(
  ksm: Ksm,
  t: Task,
  item: RmapItem,
  pfn: number,
  other: RmapItem,
  key: number,
): Code {
  const {trees, k} = ksm;
  const {pages, hooks} = ksm.mm;
  const otherPfn = mappedAnon(ksm, other.user, other.vpn);
  if (otherPfn === 0 || otherPfn === pfn || pages.content[otherPfn] !== key) {
    // It changed since it was put there: the search goes past it.
    trees.removeUnstable(other);
    trees.searchUnstable(trees.keyOf(pfn), item);
    return;
  }
  pages.refcount.increment(compound_head(pages, otherPfn));
  const oneFolio = compound_head(pages, otherPfn) === compound_head(pages, pfn);
  let merged = false;
  if (yield* mergeWith(ksm, t, item, pfn, 0)) {
    merged = true;
    const node = trees.insert(trees.keyOf(pfn), pfn);
    setMappingOwner(pages, pfn, MAPPING_KSM, node.id);
    appendTo(ksm, item, node);
    if (yield* mergeWith(ksm, t, other, otherPfn, pfn)) appendTo(ksm, other, node);
    else yield* break_cow(ksm, t, item);
  }
  folio_put(k, t, compound_head(pages, otherPfn));
  // Both pages are of one folio, which our own references have kept from being split.
  const {split_folio} = hooks;
  if (!merged && oneFolio && split_folio !== null) {
    yield* split_folio(t, compound_head(pages, pfn), pfn);
  }
}

/** break_cow: the second page would not merge, the first gets a copy of its own again. */
function* break_cow(ksm: Ksm, t: Task, item: RmapItem): Code {
  remove_rmap_item_from_tree(ksm, item);
  const {mmapLock} = item.user;
  if (!mmapLock.readAcquire(t, ksm.fn)) yield* mmapLock.readAcquireSlow(t, ksm.fn);
  const vma = find_mergeable_vma(item.user, item.vpn);
  if (vma !== null) yield* unmerge_ksm_pages(ksm, t, vma, item.vpn, item.vpn + 1);
  if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
}
