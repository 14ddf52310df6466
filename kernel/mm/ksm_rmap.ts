// mm/ksm.c: rmap_walk_ksm and folio_migrate_ksm, 6.18: who maps a KSM page, and its move to another
// one. A stable node knows the pages that ksmd has merged; processes forked since map the page,
// too, and are found through each item's anon_vma. The walk takes the anon_vmas' locks one by one,
// so callers get the places with the lock each needs.
//
// With merge_across_nodes=0 the trees are per memory node, and a page that moved would be in the
// wrong one (Linux moves its node at the next search): such pages stay here.

import type {Kernel} from '../kernel.ts';
import type {RwSemaphore} from '../locking/rwsem.ts';
import type {RmapPlace} from './rmap.ts';

/** A place of a KSM page, with the lock under which it may be looked at. */
export interface KsmPlace extends RmapPlace {
  readonly lock: RwSemaphore;
}

/** rmap_walk_ksm: the owners' mappings first, those of mms forked since then after them. */
export function ksm_places(k: Kernel, pfn: number): KsmPlace[] {
  const {mm} = k;
  const items = mm.ksm?.trees.nodeOf(pfn)?.items ?? [];
  const {forest} = mm.anon;
  const own: KsmPlace[] = [];
  const forked: KsmPlace[] = [];
  for (const {anonVma, user: owner, vpn} of items) {
    if (anonVma === null) continue;
    const lock = mm.anonVmaLock(anonVma);
    for (let node = forest.iterFirst(anonVma, 0, Infinity); node !== 0; ) {
      const vma = forest.item[node]!;
      node = forest.iterNext(node, 0, Infinity);
      if (vpn < vma.start || vpn >= vma.end) continue;
      const user = mm.byId(vma.space.mmId);
      if (user !== null) (user === owner ? own : forked).push({vma, user, vpn, lock});
    }
  }
  return [...own, ...forked];
}

/** True for a KSM page that may move. */
export function ksm_may_migrate(k: Kernel, pfn: number): boolean {
  const trees = k.mm.ksm?.trees ?? null;
  return trees !== null && !trees.byNode && trees.nodeOf(pfn) !== null;
}

/** folio_migrate_ksm: the stable node is about the new page from now on. */
export function folio_migrate_ksm(k: Kernel, dst: number, src: number): void {
  const node = k.mm.ksm?.trees.nodeOf(src) ?? null;
  if (node !== null) node.pfn = dst;
}
