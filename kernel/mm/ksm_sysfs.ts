// mm/ksm.c, 6.18: /sys/kernel/mm/ksm. `run` starts ksmd (1), stops it (0), or stops it and gives
// every merged page back (2: unmerge_and_remove_all_rmap_items). A file that this kernel has not is
// refused: max_page_sharing came with 4.13, use_zero_pages with 4.12, merge_across_nodes with 3.9,
// smart_scan with 6.7. max_page_sharing and merge_across_nodes cannot change while pages are
// merged.

import type {Code} from '../../machine/process.ts';
import {EBUSY, EINTR, EINVAL, ENOENT} from '../errno.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {dropItems, KSMD_TID, type Ksm, start_ksmd} from './ksm.ts';
import {unmerge_ksm_pages} from './ksm_merge.ts';
import {VM_MERGEABLE} from './vma_flags.ts';

/** Numbers of /sys/kernel/mm/ksm, in pages, scans and nodes. */
export interface KsmCounts {
  readonly pages_shared: number;
  readonly pages_sharing: number;
  readonly pages_unshared: number;
  readonly pages_volatile: number;
  readonly pages_scanned: number;
  readonly pages_skipped: number;
  readonly full_scans: number;
  readonly ksm_zero_pages: number;
  readonly stable_node_dups: number;
  readonly stable_node_chains: number;
  /** ksm_process_profit summed over all mms, bytes: saved less what rmap_items take (64 each). */
  readonly general_profit: number;
}

const PAGE_BYTES = 4096;
const RMAP_ITEM_BYTES = 64;

/** What reading the files gives now. */
export function ksm_counts(ksm: Ksm): KsmCounts {
  const {trees} = ksm;
  const saved = (trees.pagesSharing + ksm.zeroPages) * PAGE_BYTES;
  return {
    pages_shared: trees.pagesShared,
    pages_sharing: trees.pagesSharing,
    pages_unshared: trees.pagesUnshared,
    pages_volatile: ksm.pagesVolatile,
    pages_scanned: ksm.pagesScanned,
    pages_skipped: ksm.pagesSkipped,
    full_scans: ksm.fullScans,
    ksm_zero_pages: ksm.zeroPages,
    ...trees.chainCounts(),
    general_profit: saved - ksm.rmapItems * RMAP_ITEM_BYTES,
  };
}

/** Writes `value` to a file of /sys/kernel/mm/ksm. Returns 0 or -errno. */
export function* ksm_store(ksm: Ksm, t: Task, file: string, value: number): Code<number> {
  const {settings, trees} = ksm;
  const since = SINCE[file];
  if (since === undefined || isBefore(ksm.k.facts.version, since)) return -ENOENT;
  const flag = value === 0 || value === 1;
  switch (file) {
    case 'run':
      return yield* run_store(ksm, t, value);
    case 'pages_to_scan':
      settings.pagesToScan = value;
      return 0;
    case 'sleep_millisecs':
      settings.sleepMs = value;
      return 0;
    case 'use_zero_pages':
      if (flag) settings.useZeroPages = value === 1;
      return flag ? 0 : -EINVAL;
    case 'smart_scan':
      if (flag) settings.smartScan = value === 1;
      return flag ? 0 : -EINVAL;
    default:
  }
  trees.prune();
  if (trees.pagesShared > 0 || trees.nodes.size > 0) return -EBUSY;
  if (file === 'max_page_sharing') {
    if (value < 2) return -EINVAL;
    settings.maxPageSharing = value;
    return 0;
  }
  if (!flag) return -EINVAL;
  trees.byNode = value === 0;
  return 0;
}

/** First kernel that has the file. */
const SINCE: Readonly<Record<string, string>> = {
  run: '2.6.32',
  pages_to_scan: '2.6.32',
  sleep_millisecs: '2.6.32',
  merge_across_nodes: '3.9',
  use_zero_pages: '4.12',
  max_page_sharing: '4.13',
  smart_scan: '6.7',
};

/** run_store. */
export function* run_store(ksm: Ksm, t: Task, flags: number): Code<number> {
  if (flags !== 0 && flags !== 1 && flags !== 2) return -EINVAL;
  if (!ksm.mutex.acquire(t, ksm.fn)) yield* ksm.mutex.acquireSlow(t, ksm.fn);
  ksm.settings.run = flags === 1;
  let result = 0;
  if (flags === 2) result = yield* unmerge_and_remove_all_rmap_items(ksm, t);
  if (!ksm.mutex.release(t)) yield* ksm.mutex.releaseSlow(t);
  if (flags !== 1) return result;
  if (ksm.task === null) start_ksmd(ksm, KSMD_TID);
  else ksm.wakeup();
  return 0;
}

/** Every KSM page of every mm gets its copies back; ksmd forgets what it knew. */
function* unmerge_and_remove_all_rmap_items(ksm: Ksm, t: Task): Code<number> {
  for (const slot of [...ksm.slots]) {
    const {mmapLock, space} = slot.user;
    if (!mmapLock.readAcquire(t, ksm.fn)) yield* mmapLock.readAcquireSlow(t, ksm.fn);
    let result = 0;
    for (let vma = space.tree.first; vma !== null && !slot.exited && result === 0; vma = vma.next) {
      if ((vma.flags & VM_MERGEABLE) === 0 || vma.anonVma === null) continue;
      result = yield* unmerge_ksm_pages(ksm, t, vma, vma.start, vma.end);
    }
    if (!slot.exited && result === 0) dropItems(ksm, slot);
    if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
    if (result !== 0) return -EINTR;
  }
  ksm.trees.prune();
  ksm.scanning = false;
  ksm.cursor = 0;
  ksm.rewind();
  ksm.seqnr = 0;
  return 0;
}
