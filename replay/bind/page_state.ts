// What a selftest can learn about a mapping: the answers of /proc/self/pagemap, smaps, maps,
// status, /proc/kpageflags and /sys/kernel/mm/ksm, read from the model. Each is a number: how many
// pages of the range are so, how many VMAs there are, or a counter of the process or of the
// machine.

import {walkSlot} from '../../kernel/arch/x86/mm/pgtable.ts';
import {
  MARKER_GUARD,
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_MARKER,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_UFFD_WP,
  PTE_WRITE,
  pte_present,
} from '../../kernel/arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../../kernel/kernel.ts';
import {compound_head, folio_test_anon, folio_test_ksm} from '../../kernel/mm/page.ts';
import {PG_anon_exclusive, PG_mlocked} from '../../kernel/mm/page_flags.ts';
import {MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS} from '../../kernel/mm/rss.ts';
import {is_uffd_wp_marker} from '../../kernel/mm/userfaultfd_markers.ts';
import type {UserMm} from '../../kernel/mm/user_mm.ts';
import {VM_LOCKED, VM_SOFTDIRTY} from '../../kernel/mm/vma_flags.ts';

const VALUE_MASK = 0x7fff_ffff;
/** Pages that a leaf of each level spans. */
const SPAN = [1, 512, 2 ** 18] as const;

/** pfn mapped at page `vpn` of an mm, PROT_NONE included; 0 for none and for the page of zeros. */
export function pfnAt({mm}: Kernel, user: UserMm, vpn: number): number {
  const {pt} = mm;
  const slot = walkSlot(user.pgd, vpn);
  const word = pt.flags[slot];
  if (!pte_present(word) || (word & PTE_SPECIAL) !== 0) return 0;
  const span = (word & PTE_HUGE) === 0 ? 1 : SPAN[pt.level[slot >>> 9]];
  return (pt.entries[slot] & VALUE_MASK) + (vpn % span);
}

/** The entry that decides about `vpn`: its flags word, 0 where nothing is. A table is nothing. */
function wordAt({mm}: Kernel, user: UserMm, vpn: number): number {
  const {pt} = mm;
  const slot = walkSlot(user.pgd, vpn);
  const word = pt.flags[slot];
  return pt.level[slot >>> 9] > 0 && (word & PTE_HUGE) === 0 && pte_present(word) ? 0 : word;
}

type PageTest = (k: Kernel, user: UserMm, vpn: number) => boolean;

function byWord(test: (word: number) => boolean): PageTest {
  return (k, user, vpn) => test(wordAt(k, user, vpn));
}

function byFolio(test: (k: Kernel, head: number, pfn: number) => boolean): PageTest {
  return (k, user, vpn) => {
    const pfn = pfnAt(k, user, vpn);
    return pfn !== 0 && test(k, compound_head(k.mm.pages, pfn), pfn);
  };
}

function isSoftDirty(k: Kernel, user: UserMm, vpn: number): boolean {
  const vma = user.space.tree.lookup(vpn);
  if (vma === null) return false;
  const word = wordAt(k, user, vpn);
  const counts = pte_present(word) || (word & PTE_KIND) === PTE_SWAP;
  return (vma.flags & VM_SOFTDIRTY) !== 0 || (counts && (word & PTE_SOFT_DIRTY) !== 0);
}

function isGuard(k: Kernel, user: UserMm, vpn: number): boolean {
  const {pt} = k.mm;
  const slot = walkSlot(user.pgd, vpn);
  const marker = (pt.flags[slot] & PTE_KIND) === PTE_MARKER;
  return marker && (pt.entries[slot] & MARKER_GUARD) !== 0;
}

/** As pagemap shows it: of a page, a swapped one, or a marker. */
function isUffdWp(k: Kernel, user: UserMm, vpn: number): boolean {
  const {pt} = k.mm;
  const slot = walkSlot(user.pgd, vpn);
  if (is_uffd_wp_marker(pt.flags[slot], pt.entries[slot])) return true;
  return (wordAt(k, user, vpn) & PTE_UFFD_WP) !== 0;
}

/** Properties of single pages. */
const PAGE_TESTS: ReadonlyMap<string, PageTest> = new Map([
  ['present', byWord(pte_present)],
  ['swapped', byWord((word) => (word & PTE_KIND) === PTE_SWAP)],
  ['writable', byWord((word) => pte_present(word) && (word & PTE_WRITE) !== 0)],
  ['dirty', byWord((word) => pte_present(word) && (word & PTE_DIRTY) !== 0)],
  ['huge', byWord((word) => pte_present(word) && (word & PTE_HUGE) !== 0)],
  ['zero', byWord((word) => pte_present(word) && (word & PTE_SPECIAL) !== 0)],
  ['soft-dirty', isSoftDirty],
  ['guard', isGuard],
  ['uffd-wp', isUffdWp],
  ['anon', byFolio((k, head) => folio_test_anon(k.mm.pages, head))],
  ['ksm', byFolio((k, head) => folio_test_ksm(k.mm.pages, head))],
  ['mlocked', byFolio((k, head) => (k.mm.pages.flags[head] & PG_mlocked) !== 0)],
  ['exclusive', byFolio((k, _head, pfn) => (k.mm.pages.flags[pfn] & PG_anon_exclusive) !== 0)],
]);

type RangeCount = (k: Kernel, user: UserMm, start: number, end: number) => number;

function vmasIn(_k: Kernel, user: UserMm, start: number, end: number): number {
  let count = 0;
  let vma = user.space.tree.intersection(start, end);
  for (; vma !== null && vma.start < end; vma = vma.next) count++;
  return count;
}

function distinctFrames(k: Kernel, user: UserMm, start: number, end: number): number {
  const frames = new Set<number>();
  for (let vpn = start; vpn < end; vpn++) frames.add(pfnAt(k, user, vpn));
  frames.delete(0);
  return frames.size;
}

function rss(member: number): RangeCount {
  return (_k, user) => user.rss.counts[member];
}

/** Everything that is no property of a page. Counters leave the range out of account. */
const COUNTS: ReadonlyMap<string, RangeCount> = new Map([
  ['vmas', vmasIn],
  ['frames', distinctFrames],
  ['node', (k, user, start) => k.mm.pages.nodeOf(pfnAt(k, user, start))],
  ['vm-locked', (_k, user, start) => (user.space.tree.lookup(start)?.flags ?? 0) & VM_LOCKED && 1],
  ['vma-start', (_k, user, start) => user.space.tree.lookup(start)?.start ?? -1],
  ['vma-pages', (_k, user, start) => user.space.tree.lookup(start)?.pages ?? 0],
  ['rss-anon', rss(MM_ANONPAGES)],
  ['rss-file', rss(MM_FILEPAGES)],
  ['rss-shmem', rss(MM_SHMEMPAGES)],
  ['rss-swap', rss(MM_SWAPENTS)],
  ['locked', (_k, user) => user.space.lockedVm],
  ['map-count', (_k, user) => user.space.mapCount],
  ['page-table-bytes', (_k, user) => user.pgd.pgtablesBytes],
  ['ksm-merging-pages', (_k, user) => user.ksmMergingPages],
  ['ksm-zero-pages', (_k, user) => user.ksmZeroPages],
  ['ksm-pages-shared', (k) => k.mm.ksm?.trees.pagesShared ?? 0],
  ['ksm-pages-sharing', (k) => k.mm.ksm?.trees.pagesSharing ?? 0],
]);

/** The value called `what` of pages [start, end); undefined when there is no such thing. */
export function stateOf(
  k: Kernel,
  user: UserMm,
  what: string,
  start: number,
  end: number,
): number | undefined {
  const test = PAGE_TESTS.get(what);
  if (test === undefined) return COUNTS.get(what)?.(k, user, start, end);
  let count = 0;
  for (let vpn = start; vpn < end; vpn++) if (test(k, user, vpn)) count++;
  return count;
}
