// Tracepoints that map one to one: an answer of the recorded kernel, or a page access. Each row
// turns a payload into the arguments of one kind. Tracepoints that need to know what came before
// are in mapper.ts. Names, print formats and symbolic values are those of Linux 6.18 (`format`
// files of tracefs), with the older forms that differ.

import {KIND} from '../kinds.ts';
import {
  FieldError,
  between,
  flagBits,
  num,
  numOr,
  numberAt,
  ptr,
  ptrAt,
  symbol,
  truth,
  valueIndex,
  word,
  type Arg,
} from './fields.ts';

/** One mapping. `intern` puts a string into the trace's table. */
export interface AnswerRow {
  readonly kind: number;
  readonly args: (payload: string, intern: (text: string) => number) => Arg[];
}

const RSS_MEMBERS = ['MM_FILEPAGES', 'MM_ANONPAGES', 'MM_SWAPENTS', 'MM_SHMEMPAGES'];
const FLUSH_REASONS = [
  'flush on task switch',
  'remote shootdown',
  'local shootdown',
  'local MM shootdown',
  'remote IPI send',
  'remote wrong CPU',
];
const LOCK_FLAGS = new Map(
  ['SPIN', 'READ', 'WRITE', 'RT', 'PERCPU', 'MUTEX'].map((name, bit) => [name, 1 << bit]),
);
const WRITE_FLAGS = new Map([
  ['RECLAIM_WB_ANON', 1],
  ['RECLAIM_WB_FILE', 2],
  ['RECLAIM_WB_SYNC', 4],
  ['RECLAIM_WB_ASYNC', 8],
  ['RECLAIM_WB_MIXED', 16],
]);
const MIGRATE_MODES = ['MIGRATE_ASYNC', 'MIGRATE_SYNC_LIGHT', 'MIGRATE_SYNC'];
const MIGRATE_REASONS = [
  'compaction',
  'memory_failure',
  'memory_hotplug',
  'syscall_or_cpuset',
  'mempolicy_mbind',
  'numa_misplaced',
  'contig_range',
  'longterm_pin',
  'demotion',
  'damon',
];
const SCAN_STATUS = (
  'failed succeeded pmd_null pmd_none page_pmd_mapped exceed_none_pte exceed_swap_pte ' +
  'exceed_shared_pte pte_non_present pte_uffd_wp pte_mapped_hugepage lack_referenced_page ' +
  'page_null scan_aborted not_suitable_page_count page_not_in_lru page_locked page_not_anon ' +
  'page_compound no_process_for_page vma_null vma_check_failed not_suitable_address_range ' +
  'could_not_delete_page_from_lru alloc_huge_page_failed ccgroup_charge_failed truncated ' +
  'page_has_private store_failed copy_poisoned_page page_filled'
).split(' ');
/** Task states by letter, as `sched_switch` prints them, to the codes of the kind. */
const STATES = ['R', 'S', 'D', 'Z', 'X'];
/** Task states as numbers (TASK_INTERRUPTIBLE and so on), as older tools print them. */
const STATE_BITS = new Map([
  [0, 0],
  [1, 1],
  [2, 2],
  [32, 3],
  [16, 4],
]);

function taskState(text: string): number {
  const preempted = text.endsWith('+') ? 16 : 0;
  if (/^\d/.test(text)) {
    const bits = Number.parseInt(text, 10);
    return (
      (STATE_BITS.get(bits & 255) ?? 5) +
      (preempted || (bits >= 256 && (bits & 255) === 0 ? 16 : 0))
    );
  }
  const letter = STATES.indexOf(text[0]);
  return (letter < 0 ? 5 : letter) + preempted;
}

/** kB and B suffixes do not matter: rss_stat counts bytes. */
function rssMember(payload: string): Arg {
  return valueIndex(payload, 'type') >= 0
    ? symbol(word(payload, 'type'), RSS_MEMBERS)
    : num(payload, 'member');
}

function flushReason(payload: string): Arg {
  const text = between(payload, 'reason', '');
  const code = /\((\d+)\)$/.exec(text);
  return code === null ? symbol(text, FLUSH_REASONS) : Number(code[1]);
}

function range(payload: string): Arg[] {
  const colon = payload.indexOf(': ');
  const dash = payload.indexOf(' -- ');
  if (colon < 0 || dash < 0) throw new FieldError(`a range is missing in "${payload}"`);
  return [ptrAt(payload, colon + 2), ptrAt(payload, dash + 4)];
}

function blockIo(issue: number): (payload: string) => Arg[] {
  return (payload) => {
    const match = /^\d+,\d+ (\S+) (?:(\d+) )?\([^)]*\) (\d+) \+ (\d+)/.exec(payload);
    if (match === null) throw new FieldError(`"sector + count" is missing in "${payload}"`);
    const bytes = match[2] === undefined ? Number(match[4]) * 512 : Number(match[2]);
    return [issue, Number(match[3]), bytes, /W|D/.test(match[1]) ? 1 : 0];
  };
}

function faultIp(payload: string): Arg {
  const at = valueIndex(payload, 'ip');
  // A kernel symbol is no number.
  return at >= 0 && /\d/.test(payload[at]) ? numberAt(payload, at) : 0;
}

const access: AnswerRow = {
  kind: KIND.access,
  args: (p) => [ptr(p, 'address'), num(p, 'error_code'), faultIp(p)],
};
const scanCounts = (p: string): Arg[] => [
  num(p, 'nid'),
  num(p, 'nr_scanned'),
  num(p, 'nr_reclaimed'),
];
const ksmScan = (start: number): AnswerRow => ({
  kind: KIND.ksm_scan,
  args: (p) => [start, num(p, 'seq'), num(p, 'size')],
});
const memcgBegin: AnswerRow = {kind: KIND.memcg_reclaim, args: (p) => [1, num(p, 'order')]};
const memcgEnd: AnswerRow = {kind: KIND.memcg_reclaim, args: (p) => [0, num(p, 'nr_reclaimed')]};

const SCHED: Record<string, AnswerRow> = {
  sched_switch: {
    kind: KIND.sched_switch,
    args: (p) => [num(p, 'prev_pid'), taskState(word(p, 'prev_state')), num(p, 'next_pid')],
  },
  sched_waking: {kind: KIND.sched_waking, args: (p) => [num(p, 'pid'), num(p, 'target_cpu')]},
  sched_process_free: {kind: KIND.sched_free, args: (p) => [num(p, 'pid')]},
  task_rename: {
    kind: KIND.comm,
    args: (p, intern) => [intern(between(p, 'newcomm', 'oom_score_adj=')), 0],
  },
  mark_victim: {kind: KIND.oom_victim, args: (p) => [num(p, 'pid')]},
};

const MEMORY: Record<string, AnswerRow> = {
  page_fault_user: access,
  page_fault_kernel: access,
  rss_stat: {
    kind: KIND.rss_stat,
    args: (p) => [numOr(p, 'mm_id', 0), numOr(p, 'curr', 1), rssMember(p), num(p, 'size')],
  },
  tlb_flush: {kind: KIND.tlb_flush, args: (p) => [num(p, 'pages'), flushReason(p)]},
  exit_mmap: {kind: KIND.exit_mmap, args: (p) => [ptr(p, 'mt_mod')]},
  contention_begin: {
    kind: KIND.contention_begin,
    args: (p) => [ptrAt(p, 0), flagBits(word(p, 'flags').replace(')', ''), LOCK_FLAGS)],
  },
  contention_end: {kind: KIND.contention_end, args: (p) => [ptrAt(p, 0), num(p, 'ret')]},
  mmap_lock_start_locking: {
    kind: KIND.mmap_lock_start,
    args: (p) => [ptr(p, 'mm'), truth(p, 'write')],
  },
  mmap_lock_acquire_returned: {
    kind: KIND.mmap_lock_acquired,
    args: (p) => [ptr(p, 'mm'), truth(p, 'write'), truth(p, 'success')],
  },
  mmap_lock_released: {
    kind: KIND.mmap_lock_released,
    args: (p) => [ptr(p, 'mm'), truth(p, 'write')],
  },
  purge_vmap_area_lazy: {
    kind: KIND.purge_vmap_area,
    args: (p) => [ptr(p, 'start'), ptr(p, 'end'), num(p, 'num_purged')],
  },
  mm_page_alloc: {kind: KIND.page_alloc, args: (p) => [ptr(p, 'pfn'), num(p, 'order')]},
  mm_page_free: {kind: KIND.page_free, args: (p) => [ptr(p, 'pfn'), num(p, 'order')]},
  mm_migrate_pages: {
    kind: KIND.migrate_done,
    args: (p) => [
      num(p, 'nr_succeeded'),
      num(p, 'nr_failed'),
      symbol(word(p, 'mode'), MIGRATE_MODES),
      symbol(word(p, 'reason'), MIGRATE_REASONS),
    ],
  },
};

const RECLAIM: Record<string, AnswerRow> = {
  mm_vmscan_write_folio: {
    kind: KIND.vmscan_write_folio,
    args: (p) => [ptr(p, 'pfn'), flagBits(word(p, 'flags'), WRITE_FLAGS)],
  },
  mm_vmscan_lru_shrink_inactive: {kind: KIND.vmscan_shrink, args: scanCounts},
  mm_vmscan_reclaim_pages: {kind: KIND.mm_vmscan_reclaim, args: scanCounts},
  mm_vmscan_memcg_reclaim_begin: memcgBegin,
  mm_vmscan_memcg_reclaim_end: memcgEnd,
  mm_khugepaged_scan_pmd: {
    kind: KIND.khugepaged_scan,
    args: (p) => [ptr(p, 'mm'), ptr(p, 'scan_pfn'), symbol(word(p, 'status'), SCAN_STATUS)],
  },
  mm_collapse_huge_page: {
    kind: KIND.collapse_huge_page,
    args: (p) => [ptr(p, 'mm'), num(p, 'isolated'), symbol(word(p, 'status'), SCAN_STATUS)],
  },
};

const KSM_AND_DEVICES: Record<string, AnswerRow> = {
  ksm_start_scan: ksmScan(1),
  ksm_stop_scan: ksmScan(0),
  ksm_merge_one_page: {
    kind: KIND.ksm_merge_one,
    args: (p) => [num(p, 'pfn'), ptr(p, 'rmap_item'), ptr(p, 'mm'), num(p, 'error')],
  },
  ksm_merge_with_ksm_page: {
    kind: KIND.ksm_merge_with,
    args: (p) => [
      p.startsWith('ksm ') ? 1 : 0,
      num(p, 'pfn'),
      ptr(p, 'rmap_item'),
      ptr(p, 'mm'),
      num(p, 'error'),
    ],
  },
  ksm_remove_ksm_page: {kind: KIND.ksm_remove_page, args: (p) => [num(p, 'pfn')]},
  ksm_remove_rmap_item: {
    kind: KIND.ksm_remove_rmap_item,
    args: (p) => [num(p, 'pfn'), ptr(p, 'rmap_item'), ptr(p, 'mm')],
  },
  ksm_exit: {kind: KIND.ksm_exited, args: (p) => [ptr(p, 'mm')]},
  kvm_unmap_hva_range: {kind: KIND.kvm_unmap_hva, args: range},
  kvm_age_hva: {kind: KIND.kvm_age_hva, args: range},
  kvm_entry: {kind: KIND.kvm_vcpu, args: (p) => [1, num(p, 'vcpu'), 0]},
  kvm_exit: {
    kind: KIND.kvm_vcpu,
    args: (p) => [0, num(p, 'vcpu'), symbol(word(p, 'reason'), [])],
  },
  block_rq_issue: {kind: KIND.block_io, args: blockIo(1)},
  block_rq_complete: {kind: KIND.block_io, args: blockIo(0)},
};

/** One-to-one mappings by tracepoint name. */
export const ANSWER_ROWS: ReadonlyMap<string, AnswerRow> = new Map(
  Object.entries({...SCHED, ...MEMORY, ...RECLAIM, ...KSM_AND_DEVICES}),
);
