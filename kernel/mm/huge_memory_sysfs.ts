// mm/huge_memory.c and mm/khugepaged.c, 6.18: /sys/kernel/mm/transparent_hugepage. Files of a
// kernel that has them: max_ptes_swap came with 4.8, max_ptes_shared with 5.8.

import {EINVAL, ENOENT} from '../errno.ts';
import {isBefore} from '../version.ts';
import type {HugeMemory, ThpPolicy} from './huge_memory.ts';
import {type KhugepagedSettings, start_khugepaged} from './khugepaged.ts';

/** Number of khugepaged, one that no trace has: below init's stand-in and ksmd. */
export const KHUGEPAGED_TID = 2 ** 31 - 3;

const POLICIES: readonly string[] = ['always', 'madvise', 'never'];

interface NumberFile {
  readonly field: keyof KhugepagedSettings;
  readonly since: string;
}

/** Files of the directory khugepaged. */
const NUMBERS: Readonly<Record<string, NumberFile>> = {
  pages_to_scan: {field: 'pagesToScan', since: '2.6.38'},
  scan_sleep_millisecs: {field: 'scanSleepMs', since: '2.6.38'},
  alloc_sleep_millisecs: {field: 'allocSleepMs', since: '2.6.38'},
  max_ptes_none: {field: 'maxPtesNone', since: '2.6.38'},
  max_ptes_swap: {field: 'maxPtesSwap', since: '4.8'},
  max_ptes_shared: {field: 'maxPtesShared', since: '5.8'},
};

/** Writes `value` to a file below transparent_hugepage. Returns 0 or -errno. Plain. */
export function thp_store(huge: HugeMemory, file: string, value: string): number {
  if (file.startsWith('khugepaged/')) return khugepaged_store(huge, file.slice(11), value);
  if (file === 'enabled') {
    if (!POLICIES.includes(value)) return -EINVAL;
    huge.settings = {...huge.settings, enabled: value as ThpPolicy};
    return 0;
  }
  if (file === 'use_zero_page') {
    if (value !== '0' && value !== '1') return -EINVAL;
    huge.settings = {...huge.settings, useZeroPage: value === '1'};
    return 0;
  }
  return file === 'defrag' ? huge.k.mm.compaction.storeDefrag(value) : -ENOENT;
}

/** A file of transparent_hugepage/khugepaged. The daemon starts with the first write to it. */
function khugepaged_store(huge: HugeMemory, file: string, value: string): number {
  const {khugepaged, k} = huge;
  const entry = NUMBERS[file];
  if (entry === undefined && file !== 'defrag') return -ENOENT;
  if (entry !== undefined) {
    if (isBefore(k.facts.version, entry.since)) return -ENOENT;
    const number = Number(value);
    if (!Number.isInteger(number) || number < 0) return -EINVAL;
    khugepaged.settings[entry.field] = number;
  }
  if (khugepaged.task === null) start_khugepaged(huge, KHUGEPAGED_TID);
  else khugepaged.wakeup();
  return 0;
}
