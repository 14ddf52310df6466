// How acts that show several times, or only in part, become operations.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {dumpEvents} from '../dump.ts';
import {loadTrace} from '../reader.ts';
import {memorySource} from '../source.ts';
import {importBytes, type ImportOptions, type ImportSummary} from './import.ts';

interface Imported {
  events: string[];
  tasks: string[];
  summary: ImportSummary;
}

function imported(lines: readonly string[], options: ImportOptions = {}): Imported {
  const {trace, summary} = importBytes(Buffer.from(`${lines.join('\n')}\n`), options);
  const {events, strings, tasks} = loadTrace(memorySource(trace));
  return {
    events: [...dumpEvents(events, strings)],
    tasks: tasks.map((t) => `${t.tid}/${t.tgid}<${t.parentTid} ${t.comm}`),
    summary,
  };
}

/** perf script lines of `tid`, one microsecond apart, starting at 1 s. */
function perf(...events: (string | [tid: number, event: string])[]): string[] {
  return events.map((entry, i) => {
    const [tid, event] = typeof entry === 'string' ? [10, entry] : entry;
    return `  my comm ${tid}/${tid} [001] 1.${String(i).padStart(6, '0')}: ${event}`;
  });
}

const CLONE = 'syscalls:sys_enter_clone: clone_flags: 0x01200011, newsp: 0x00000000';
const FORK = 'PERF_RECORD_FORK(11:11):(10:10)';
const NEWTASK = 'task:task_newtask: pid=11 comm=my comm clone_flags=1200000 oom_score_adj=0';
const SCHED_FORK = 'sched:sched_process_fork: comm=my comm pid=10 child_comm=my comm child_pid=11';

test('a fork told four times is one operation, at the time of its call', () => {
  const {events, tasks} = imported(
    perf(CLONE, FORK, NEWTASK, SCHED_FORK, 'syscalls:sys_exit_clone: 0xb'),
  );
  assert.deepEqual(events, [
    '0 10 1 fork child_tid=11 clone_flags=0x1200011 child_tgid=11',
    '1000 10 1 task_fork child_tid=11 child_tgid=11 parent_tid=10',
    '2000 10 1 newtask child_tid=11 clone_flags=0x1200000',
    '3000 10 1 sched_fork child_tid=11',
    '4000 10 1 sys_exit nr=56 ret=11',
  ]);
  assert.deepEqual(tasks, ['10/10<0 my comm', '11/11<10 my comm']);
});

test('without system calls the first evidence of a fork is the operation, for each use of the tid', () => {
  const once = (lines: string[]) =>
    imported(perf(...lines)).events.map((line) => line.split(' ')[3]);
  assert.deepEqual(once([FORK, NEWTASK, SCHED_FORK]), ['fork', 'newtask', 'sched_fork']);
  assert.deepEqual(once([NEWTASK, SCHED_FORK, NEWTASK, SCHED_FORK]), [
    ...['fork', 'sched_fork', 'fork', 'sched_fork'],
  ]);
  const vfork = NEWTASK.replace('1200000', '4100');
  assert.match(imported(perf(FORK, vfork)).events[0], / fork child_tid=11 clone_flags=16640 /);
  assert.deepEqual(once([FORK, FORK, SCHED_FORK]), ['fork', 'fork', 'sched_fork']);
});

test('clone3 takes its flags from the child, a thread joins the process, a failed clone has no child', () => {
  const {events, tasks} = imported(
    perf(
      'syscalls:sys_enter_clone3: uargs: 0x7ffe, size: 0x58',
      'vmalloc:alloc_vmap_area: va_start: 18446683600598941696 size=20480 align=16384 vstart=0x0 vend=0x1 failed=0',
      'task:task_newtask: pid=12 comm=t clone_flags=3d0f00 oom_score_adj=0',
      'syscalls:sys_exit_clone3: 0xc',
      CLONE,
      'syscalls:sys_exit_clone: 0xfffffffffffffff5',
    ),
  );
  assert.deepEqual(events, [
    '0 10 1 fork child_tid=12 clone_flags=0x3d0f00 child_tgid=10',
    '1000 10 1 alloc_vmap_area addr=0xffffc90001b94000 size=20480 failed=0',
    '2000 10 1 newtask child_tid=12 clone_flags=0x3d0f00',
    '3000 10 1 sys_exit nr=435 ret=12',
    '4000 10 1 fork child_tid=0 clone_flags=0x1200011 child_tgid=0',
    '5000 10 1 sys_exit nr=56 ret=-11',
  ]);
  assert.equal(tasks[1], '12/10<10 t');
});

test('an exec that fails is an answer, one that succeeds an operation with its name and maps', () => {
  const enter = 'syscalls:sys_enter_execve: filename: 0x7ffe, argv: 0x1, envp: 0x2';
  const {events} = imported(
    perf(
      enter,
      'syscalls:sys_exit_execve: 0xfffffffffffffffe',
      enter,
      'PERF_RECORD_COMM exec: bash:10/10',
      'PERF_RECORD_MMAP2 10/10: [0x7ffeeb07a000(0x21000) @ 0x7ffffffde000 00:00 0 0]: rw-p [stack]',
      'sched:sched_process_exec: filename=/usr/bin/my tool pid=10 old_pid=10',
      'syscalls:sys_exit_execve: 0x0',
    ),
  );
  assert.deepEqual(events, [
    '0 10 1 sys_enter nr=59',
    '1000 10 1 sys_exit nr=59 ret=-2',
    '2000 10 1 exec filename_str="/usr/bin/my tool"',
    '3000 10 1 comm comm_str="bash" exec=1',
    '4000 10 1 map addr=0x7ffeeb07a000 len=0x21000 pgoff=0x7ffffffde prot=3 flags=290 file_str="[stack]"',
    '5000 10 1 sched_exec filename_str="/usr/bin/my tool"',
    '6000 10 1 sys_exit nr=59 ret=0',
  ]);
  const alone = imported(
    perf(
      'PERF_RECORD_COMM exec: sh:10/10',
      'sched:sched_process_exec: filename=/bin/sh pid=10 old_pid=10',
    ),
  );
  assert.deepEqual(alone.events, [
    '0 10 1 exec filename_str="sh"',
    '1000 10 1 sched_exec filename_str="/bin/sh"',
  ]);
});

test('the stack that exec builds grows inside exec: no mapping of its own', () => {
  const {events} = imported(
    perf(
      'syscalls:sys_enter_execve: filename: 0x7ffe, argv: 0x1, envp: 0x2',
      'PERF_RECORD_MMAP2 10/10: [0x7fffffffd000(0x2000) @ 0x7fffffffd000 00:00 0 0]: rw-p //anon',
      'PERF_RECORD_COMM exec: md5sum:10/10',
      'PERF_RECORD_MMAP2 10/10: [0x7ffeeb07a000(0x21000) @ 0x7ffffffde000 00:00 0 0]: rw-p [stack]',
      'sched:sched_process_exec: filename=/bin/md5sum pid=10 old_pid=10',
      'syscalls:sys_exit_execve: 0x0',
    ),
  );
  assert.deepEqual(
    events.map((event) => event.split(' ')[3]),
    ['exec', 'mapped', 'comm', 'map', 'sched_exec', 'sys_exit'],
  );
});

test('mmap learns its address; the record of the mapping repeats it, outside of a call it stands alone', () => {
  const record =
    'PERF_RECORD_MMAP2 10/10: [0x7f97c33ad000(0x1000) @ 0x3000 00:01 85 163]: rw-s /dev/zero (deleted)';
  const {events} = imported(
    perf(
      'syscalls:sys_enter_mmap: addr: 0x00000000, len: 0x00001000, prot: 0x00000003, flags: 0x00000021, fd: 0xffffffff, off: 0x00000000',
      record,
      'syscalls:sys_exit_mmap: 0x7f97c33ad000',
      record,
    ),
  );
  const args =
    'addr=0x7f97c33ad000 len=4096 pgoff=3 prot=3 flags=1 file_str="/dev/zero (deleted) 00:01:85"';
  assert.deepEqual(events, [
    '0 10 1 mmap addr=0 len=4096 prot=3 flags=33 fd=-1 off=0 ret=0x7f97c33ad000',
    `1000 10 1 mapped ${args}`,
    '2000 10 1 sys_exit nr=9 ret=0x7f97c33ad000',
    `3000 10 1 map ${args}`,
  ]);
});

test('an exit is a group exit when exit_group was called, or a whole process died without a call', () => {
  const dies = (tid: number, dead: boolean): [number, string] => [
    tid,
    `sched:sched_process_exit: comm=c pid=${tid} prio=120 group_dead=${dead}`,
  ];
  const {events} = imported(
    perf(
      'syscalls:sys_enter_exit: error_code: 0x0',
      dies(10, true),
      [20, 'syscalls:sys_enter_exit_group: error_code: 0x0'],
      dies(20, true),
      dies(30, true),
      dies(40, false),
    ),
  );
  const exits = events.filter((line) => line.includes(' exit '));
  assert.deepEqual(
    exits.map((line) => line.slice(-7)),
    ['group=0', 'group=1', 'group=1', 'group=0'],
  );
});

test('kernel mappings: a call owns what it allocates, a free of the model frees what it allocated', () => {
  const alloc = (addr: string) =>
    `vmalloc:alloc_vmap_area: va_start: ${addr} size=8192 align=1 vstart=0x0 vend=0x1 failed=0`;
  const {events} = imported(
    perf(
      alloc('18446683600693735424'),
      'vmalloc:free_vmap_area_noflush: va_start=0xffffc900075fb000 nr_lazy=1 nr_lazy_max=2',
      'syscalls:sys_enter_swapon: specialfile: 0x1, swap_flags: 0x0',
      alloc('18446683600694001664'),
      'syscalls:sys_exit_swapon: 0x0',
      'vmalloc:free_vmap_area_noflush: va_start=0xffffc90000000000 nr_lazy=1 nr_lazy_max=2',
    ),
  );
  assert.deepEqual(
    events.map((line) => line.split(' ')[3]),
    ['vmalloc', 'vfree', 'swapon', 'alloc_vmap_area', 'sys_exit', 'free_vmap_area'],
  );
});

test('records from before the start come first, at time 0, and fork nothing', () => {
  const {events, tasks} = imported([
    'ksmd 0/0 [000] 0.000000: PERF_RECORD_COMM: ksmd:37/37',
    'x 0/0 [000] 0.000000: PERF_RECORD_FORK(50:51):(50:50)',
    'x 5/5 [000] 9.000001: tlb:tlb_flush: pages:-1 reason:remote shootdown (1)',
  ]);
  assert.deepEqual(events, [
    '0 37 0 comm comm_str="ksmd" exec=0',
    '0 50 0 task_fork child_tid=51 child_tgid=50 parent_tid=50',
    '0 5 0 tlb_flush pages=-1 reason=1',
  ]);
  assert.deepEqual(tasks, ['37/37<0 ksmd', '51/50<50 x', '5/5<0 x']);
});

test('hashed pointers, raw syscalls, lost events and odd names in tracefs text', () => {
  const {events, summary} = imported([
    '# tracer: nop',
    '# entries-in-buffer/entries-written: 8/11   #P:4',
    ' my-prog-a-5    (  4) [003] d..1. 2.000000500: contention_begin: 00000000d3eebc70 (flags=SPIN|WRITE)',
    ' my-prog-a-5    (  4) [003] d..1. 2.000000600: contention_end: 00000000d3eebc70 (ret=-4)',
    ' my-prog-a-5    (  4) [003] ..... 2.000001: sys_enter: NR 11 (7f0000001000, 2000, 0, 0, 0, 0)',
    ' my-prog-a-5    (  4) [003] ..... 2.000002: sys_exit: NR 11 = -22',
    'CPU:3 [LOST 17 EVENTS]',
    ' my-prog-a-5    (  4) [003] ..... 2.000001: sys_enter: NR 0 (3, 7ffe, 40, 0, 0, 0)',
    ' my-prog-a-5    (  4) [003] ..... 2.000003: sys_openat(dfd: 3, filename: 7, flags: 0)',
    ' my-prog-a-5    (  4) [003] d..2. 2.000004: sched_switch: prev_comm=a prev_pid=5 prev_prio=120 prev_state=R+ ==> next_comm=b c next_pid=9 next_prio=1',
  ]);
  assert.deepEqual(events, [
    '0 5 3 contention_begin lock=0xd3eebc70 flags=5',
    '100 5 3 contention_end lock=0xd3eebc70 ret=-4',
    '500 5 3 munmap addr=0x7f0000001000 len=8192',
    '1500 5 3 sys_exit nr=11 ret=-22',
    '1500 0 3 lost count=17',
    '3500 5 3 sched_switch prev_tid=5 prev_state=16 next_tid=9',
  ]);
  assert.deepEqual(summary.unmodelled, {sys_enter: 1, sys_enter_openat: 1});
  assert.equal(summary.lost, 20);
  assert.equal(summary.header.machine.cpus, 4);
  assert.ok(summary.partial);
});

test('events out of order are kept in place and counted; the hold is bounded', () => {
  const mmap = 'syscalls:sys_enter_brk: brk: 0x1000';
  const fault = 'exceptions:page_fault_user: address=0x1000 ip=elf_load error_code=0x6';
  const lines = perf(mmap, [20, fault], [20, fault], [20, fault], 'syscalls:sys_exit_brk: 0x2000');
  [lines[1], lines[2]] = [lines[2], lines[1]];
  const whole = imported(lines);
  assert.equal(whole.events[0], '0 10 1 brk brk=4096 ret=8192');
  assert.equal(whole.summary.reordered, 1);
  const bounded = imported(lines, {holdBound: 2});
  assert.equal(bounded.events[0], '0 10 1 brk brk=4096 ret=0');
  assert.match(bounded.summary.warnings[0], /1 operations never learned their result/);
  assert.deepEqual(bounded.events.slice(1), whole.events.slice(1));
});
