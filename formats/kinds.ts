// The vocabulary of a trace: every kind of event that a trace can hold, with the names of its
// arguments.
//
// A trace carries two streams in one file. *Operations* are what replay/ does again: what a task
// asked of the kernel. *Answers* are what the recorded kernel said about it: they are never
// replayed, only used for timing (think time, causal edges) and for grading. An event is `kind`,
// time, tid, cpu and exactly `args.length` unsigned 64-bit arguments; the argument count is a
// property of the kind, so blocks need no per-event counts.
//
// Numbers are part of the file format: never renumber, only append. Operations are 1..127, answers
// 128..255. Argument names end in their unit where they have one. `str` arguments index the trace's
// string table.

/** What an event kind is called and which arguments it carries, in order. */
export interface KindSpec {
  readonly code: number;
  readonly name: string;
  readonly args: readonly string[];
}

const OPERATIONS = [
  // Tasks
  [1, 'fork', ['child_tid', 'clone_flags', 'child_tgid']], // child_tid 0: the recorded call failed
  [2, 'exec', ['filename_str']],
  [3, 'exit', ['group']], // one per exiting thread; group 1 when it came from exit_group
  [4, 'wait4', ['upid', 'options']], // upid as the kernel takes it: -1 is 2^64-1
  [5, 'open_files', ['count', 'close_on_exec']], // the process opens or closes until it has so many; the last ones are CLOEXEC
  // Address space
  [8, 'mmap', ['addr', 'len', 'prot', 'flags', 'fd', 'off', 'ret']],
  [9, 'munmap', ['addr', 'len']],
  [10, 'mprotect', ['addr', 'len', 'prot']],
  [11, 'mremap', ['addr', 'old_len', 'new_len', 'flags', 'new_addr', 'ret']],
  [12, 'madvise', ['addr', 'len', 'advice']],
  [13, 'brk', ['brk', 'ret']],
  [14, 'mlock', ['addr', 'len']],
  [15, 'munlock', ['addr', 'len']],
  [16, 'remap_file_pages', ['addr', 'size', 'pgoff']],
  [17, 'access', ['addr', 'error_code', 'ip']], // x86 error code: 1 prot, 2 write, 4 user, 16 instruction fetch
  [18, 'map', ['addr', 'len', 'pgoff', 'prot', 'flags', 'file_str']], // a mapping made inside exec or before the trace began
  [19, 'touch', ['addr', 'pages', 'stride_pages', 'write']], // generated traces: a run of page accesses in one event
  // Kernel address space
  [24, 'vmalloc', ['addr', 'size']], // addr 0: the model chooses
  [25, 'vfree', ['addr', 'size']],
  [26, 'vmalloc_touch', ['addr']], // kernel-mode access to a vmalloc address: may run vmalloc_fault
  [27, 'hotplug_add', ['start', 'size', 'node']],
  [28, 'hotplug_remove', ['start', 'size', 'node']],
  [29, 'set_memory', ['addr', 'pages', 'attr']], // attr: 0 ro, 1 rw, 2 x, 3 nx, 4 wb, 5 uc, 6 wc
  [30, 'register_die_notifier', []],
  [31, 'suspend', []],
  [32, 'resume', []],
  [33, 'efi_map', ['addr', 'pages']],
  [34, 'efi_unmap', ['addr', 'pages']],
  [35, 'vm_unmap_aliases', []],
  // Swap, KSM, huge pages, NUMA, memory pressure
  [40, 'swapon', ['path_str', 'pages']],
  [41, 'swapoff', ['path_str']],
  [42, 'ksm_run', ['run']],
  [43, 'ksm_enter', ['mm']],
  [44, 'ksm_exit', ['mm']],
  [45, 'numa_scan', ['addr', 'len']],
  [46, 'migrate_pages', ['addr', 'len', 'node']],
  [47, 'oom_kill', ['victim_tgid']],
  [48, 'clear_refs', ['value']],
  [49, 'uprobe', ['addr', 'install']],
  [50, 'truncate', ['file_str', 'start', 'len']], // len 0: the file ends at start; else a hole of len bytes
  [51, 'memcg_limit', ['bytes']],
  [52, 'sysfs_write', ['path_str', 'value_str']], // as a shell would: the path below /sys, or /proc/sys, and the text
  // Writes a run of pages, as touch does; page n then holds content class `content + n *
  // content_step`. 0 is all zeros.
  [53, 'write_content', ['addr', 'pages', 'stride_pages', 'content', 'content_step']],
  [54, 'oom_score_adj', ['adj']], // of the calling process, -1000 to 1000 in two's complement
  // Secondary MMUs
  [64, 'notifier_register', ['consumer_str', 'id']],
  [65, 'notifier_unregister', ['id']],
  [66, 'mr_register', ['id', 'addr', 'len']],
  [67, 'mr_deregister', ['id']],
  [68, 'device_access', ['id', 'addr', 'len', 'write']],
  [69, 'guest_access', ['vm', 'vcpu', 'gpa', 'write']],
  [70, 'guest_io', ['vm', 'vcpu', 'offset', 'len', 'write']],
  [71, 'io_submit', ['ctx', 'nr']],
  // Synthetic work
  [80, 'think', ['ns']], // user-mode computation
  [81, 'sleep', ['ns']], // the task is off the CPU for this long, waiting for nothing in the model
  // Take a named spinlock, write `lines` shared lines, hold it for hold_ns and write the lock's own
  // line own_line_writes times meanwhile, drop it, write the first `outside_lines` of the shared
  // lines again, work for outside_ns.
  [
    82,
    'lock_section',
    ['lock', 'hold_ns', 'lines', 'outside_ns', 'own_line_writes', 'outside_lines'],
  ],
  [83, 'barrier', ['id', 'parties']], // all parties arrive before any leaves
  [84, 'sched_setaffinity', ['cpu']],
  [85, 'yield', []],
  // Touches a run of pages and reads (writes) `lines` cache lines of each from memory, `in_flight`
  // of them at a time.
  [86, 'walk_lines', ['addr', 'pages', 'stride_pages', 'write', 'lines', 'in_flight']],
  [87, 'mbind', ['addr', 'len', 'mode', 'nodes']], // mode: MPOL_ number; nodes: bit n is node n
  // Conformance: what a selftest does, with the outcome that it expects. step_str says which step
  // of which case it is.
  [96, 'expect_call', ['step_str', 'nr', 'a0', 'a1', 'a2', 'a3', 'a4', 'a5', 'ret']], // a system call by its x86-64 number
  // Page n of the run holds content class `content + n * content_step`: what is stored, or must be
  // found. signal: 0, 7 or 11.
  [
    97,
    'expect_store',
    ['step_str', 'addr', 'pages', 'stride_pages', 'content', 'content_step', 'signal'],
  ],
  [
    98,
    'expect_load',
    ['step_str', 'addr', 'pages', 'stride_pages', 'content', 'content_step', 'signal'],
  ],
  [99, 'expect_state', ['step_str', 'what_str', 'addr', 'pages', 'value']],
  [100, 'expect_remote', ['step_str', 'tid', 'addr', 'pages', 'content', 'ret']], // ptrace writes, whatever the protection
  [101, 'expect_pin', ['step_str', 'id', 'addr', 'pages', 'foll', 'ret']], // foll: FOLL_ bits of gup, 1 write, 2 pin
  [102, 'expect_pinned', ['step_str', 'id', 'content', 'content_step', 'write']], // through the pin: reads, or writes
  [103, 'unpin', ['id']],
  [104, 'iovec', ['addr', 'len']], // one element of the vector that the task's next call passes
  [105, 'open_file', ['fd', 'file_str', 'bytes']],
  // userfaultfd: the system call and UFFDIO_API; an ioctl by its number with the members of its
  // structure; read; a reader that answers faults until so many of each kind have come.
  [106, 'expect_userfaultfd', ['step_str', 'fd', 'flags', 'features', 'ret']],
  [107, 'expect_uffd_ioctl', ['step_str', 'fd', 'nr', 'addr', 'len', 'src', 'mode', 'out', 'ret']],
  [
    108,
    'expect_uffd_read',
    ['step_str', 'fd', 'event', 'flags', 'addr', 'to', 'len', 'child_fd', 'ret'],
  ],
  [109, 'expect_uffd_serve', ['step_str', 'fd', 'addr', 'src', 'answer', 'missing', 'wp', 'minor']],
  [110, 'uffd_close', ['fd']],
] as const;

const ANSWERS = [
  [128, 'sys_enter', ['nr']], // a modelled syscall began: the operation it belongs to follows on the same tid
  [129, 'sys_exit', ['nr', 'ret']], // ret as the kernel returns it, two's complement
  [130, 'newtask', ['child_tid', 'clone_flags']],
  [131, 'sched_fork', ['child_tid']],
  [132, 'sched_exec', ['filename_str']],
  [133, 'sched_exit', ['prio']],
  [134, 'sched_free', ['freed_tid']],
  [135, 'sched_switch', ['prev_tid', 'prev_state', 'next_tid']], // prev_state: 0 runnable, 1 S, 2 D, 3 Z, 4 X, 5 other, +16 preempted
  [136, 'sched_waking', ['wakee_tid', 'target_cpu']],
  [137, 'rss_stat', ['mm_id', 'curr', 'member', 'bytes']], // member: 0 file, 1 anon, 2 swap entries, 3 shmem
  [138, 'tlb_flush', ['pages', 'reason']], // pages 2^64-1: everything
  [139, 'exit_mmap', ['mt']],
  [140, 'contention_begin', ['lock', 'flags']],
  [141, 'contention_end', ['lock', 'ret']],
  [142, 'mmap_lock_start', ['mm', 'write']],
  [143, 'mmap_lock_acquired', ['mm', 'write', 'success']],
  [144, 'mmap_lock_released', ['mm', 'write']],
  [145, 'alloc_vmap_area', ['addr', 'size', 'failed']], // inside a modelled operation, else the operation vmalloc
  [146, 'free_vmap_area', ['addr', 'nr_lazy', 'nr_lazy_max']],
  [147, 'purge_vmap_area', ['start', 'end', 'npurged']],
  [148, 'comm', ['comm_str', 'exec']],
  [149, 'task_exit', ['tgid', 'parent_tid']], // side-band record of the recorder
  [150, 'task_fork', ['child_tid', 'child_tgid', 'parent_tid']],
  [151, 'ksm_scan', ['start', 'seq', 'rmap_entries']],
  [152, 'ksm_merge_one', ['pfn', 'rmap_item', 'mm', 'err']],
  [153, 'ksm_merge_with', ['ksm_page', 'pfn', 'rmap_item', 'mm', 'err']],
  [154, 'ksm_remove_page', ['pfn']],
  [155, 'ksm_remove_rmap_item', ['pfn', 'rmap_item', 'mm']],
  [156, 'vmscan_write_folio', ['pfn', 'flags']],
  [157, 'vmscan_shrink', ['nid', 'scanned', 'reclaimed']],
  [158, 'memcg_reclaim', ['begin', 'value']],
  [159, 'khugepaged_scan', ['mm', 'pfn', 'status']],
  [160, 'collapse_huge_page', ['mm', 'isolated', 'status']],
  [161, 'kvm_unmap_hva', ['start', 'end']],
  [162, 'kvm_age_hva', ['start', 'end']],
  [163, 'page_alloc', ['pfn', 'order']],
  [164, 'page_free', ['pfn', 'order']],
  [165, 'migrate_done', ['succeeded', 'failed', 'mode', 'reason']],
  [166, 'oom_victim', ['tgid']],
  [167, 'mm_vmscan_reclaim', ['nid', 'scanned', 'reclaimed']],
  [168, 'lost', ['count']], // the recorder lost events here
  [169, 'kvm_vcpu', ['entry', 'vcpu', 'reason']],
  [170, 'block_io', ['issue', 'sector', 'bytes', 'write']],
  [171, 'mapped', ['addr', 'len', 'pgoff', 'prot', 'flags', 'file_str']], // the recorder's record of what a syscall mapped
  [172, 'ksm_entered', ['mm']], // inside a modelled operation, else the operation ksm_enter
  [173, 'ksm_exited', ['mm']],
] as const;

type Row = (typeof OPERATIONS)[number] | (typeof ANSWERS)[number];
/** The name of any event kind. */
export type KindName = Row[1];

const toSpec = ([code, name, args]: Row): KindSpec => ({code, name, args});

/** Every kind, in file order. */
export const KINDS: readonly KindSpec[] = [...OPERATIONS.map(toSpec), ...ANSWERS.map(toSpec)];

/** Kind code by name: `KIND.fork` is 1. */
export const KIND = Object.freeze(
  Object.fromEntries(KINDS.map((kind) => [kind.name, kind.code])),
) as Readonly<Record<KindName, number>>;

/** First code that is an answer, not an operation. */
export const FIRST_ANSWER = 128;
/** One past the greatest code a file may hold. */
export const KIND_LIMIT = 256;

/** Number of arguments of each kind code; 255 where no kind has that code. */
export const ARG_COUNT: Uint8Array = new Uint8Array(KIND_LIMIT).fill(255);
/** Kind by code. */
export const KIND_BY_CODE: (KindSpec | undefined)[] = new Array(KIND_LIMIT).fill(undefined);
for (const kind of KINDS) {
  ARG_COUNT[kind.code] = kind.args.length;
  KIND_BY_CODE[kind.code] = kind;
}

/** True for a kind that replay/ carries out. */
export function isOperation(code: number): boolean {
  return code > 0 && code < FIRST_ANSWER;
}
