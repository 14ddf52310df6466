// Write faults on pages of large anonymous folios that PTEs map (__wp_can_reuse_large_anon_folio,
// 6.15+): the page may be reused in place when every mapping of the folio is this mm's and nobody
// else holds a reference. Linux keeps two owner slots per folio for that (_mm_ids); here the page
// tables of the faulting mm are counted, which says the same and is asked only after the counts
// agree. Cost: one look at up to 512 entries.

import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import type {Kernel} from '../kernel.ts';
import {isBefore} from '../version.ts';
import {folio_mapcount, folio_ref_count} from './folio_counts.ts';
import {folio_nr_pages} from './page.ts';
import {page_mapped_slot, rmap_list} from './rmap.ts';
import type {UserMm} from './user_mm.ts';
import type {VmFault} from './vm_fault.ts';

/** Under the PTL. False before 6.15: such a page is always copied. */
export function can_reuse_large_anon_folio(k: Kernel, f: VmFault, head: number): boolean {
  if (isBefore(k.facts.version, '6.15')) return false;
  const {pages} = k.mm;
  const mapped = folio_mapcount(pages, head);
  if (mapped <= 1 || mapped !== folio_ref_count(pages, head)) return false;
  return mappingsIn(k, head, f.user) === mapped;
}

/** How many entries of `user` map pages of a folio; a huge entry counts as one. */
export function mappingsIn(k: Kernel, head: number, user: UserMm): number {
  const nr = folio_nr_pages(k.mm.pages, head);
  let found = 0;
  for (const place of rmap_list(k, head)) {
    if (place.user !== user) continue;
    const {vma} = place;
    const end = Math.min(vma.end, place.vpn + nr);
    for (let vpn = place.vpn; vpn < end; vpn++) {
      if (page_mapped_slot(k, user.pgd, vpn, head) < 0) continue;
      found++;
      if (pteSlot(user.pgd, vpn) < 0) break;
    }
  }
  return found;
}
