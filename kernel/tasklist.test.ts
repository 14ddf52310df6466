import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Cpu} from '../machine/cpu.ts';
import type {Code} from '../machine/process.ts';
import {PTHREAD_FLAGS} from './clone_flags.ts';
import {do_exit, sys_wait4} from './exit.ts';
import {newTask, sys_clone} from './fork.ts';
import {computing, runToEnd, testKernel} from './fork_testing.ts';
import {startProcess} from './init_task.ts';
import type {Kernel} from './kernel.ts';
import {SignalStruct} from './signal_struct.ts';
import type {Task} from './task.ts';

/** A listed leader without code, added from `cpu`. */
function addLeader(k: Kernel, tid: number, cpu: Cpu): Task {
  const t = newTask(k, {tid, tgid: tid, comm: `t${tid}`, cpu, node: 0});
  t.signal = new SignalStruct(t, k.locks.bulk('siglock', 0), k.taskList.takeSlot());
  k.taskList.add(t, t);
  return t;
}

function processes(k: Kernel, cpu: Cpu): number[] {
  const tids: number[] = [];
  for (let p = k.taskList.nextProcess(cpu, null); p !== null; ) {
    tids.push(p.tid);
    p = k.taskList.nextProcess(cpu, p);
  }
  return tids;
}

test('a new task is visible to its own CPU at once, to the others when the store has drained', () => {
  const k = testKernel('2s4c1t', '4.1');
  const [first, second] = k.machine.cpus;
  addLeader(k, 10, first);
  k.machine.storeBuffers.fence(first.id, 0);
  addLeader(k, 11, first);
  assert.deepEqual(processes(k, first), [10, 11]);
  assert.deepEqual(processes(k, second), [10], 'the link is still in the store buffer');
  k.machine.storeBuffers.fence(first.id, 0);
  assert.deepEqual(processes(k, second), [10, 11]);
});

test('tsk->mm is a racy cell too', () => {
  const k = testKernel('2s4c1t', '4.1');
  const [first, second] = k.machine.cpus;
  const t = addLeader(k, 10, first);
  const mm = k.newMm(0);
  k.taskList.storeMm(t, t, mm);
  assert.equal(k.taskList.loadMm(first, t), mm);
  assert.equal(k.taskList.loadMm(second, t), null);
  k.machine.storeBuffers.fence(first.id, 0);
  assert.equal(k.taskList.loadMm(second, t), mm);
});

test('the list is in order of creation, whatever slots are reused', () => {
  const k = testKernel('2s4c1t', '4.1');
  const [cpu] = k.machine.cpus;
  const tasks = [10, 11, 12, 13].map((tid) => addLeader(k, tid, cpu));
  k.taskList.remove(tasks[1], tasks[1]);
  k.taskList.releaseSlot(tasks[1].listSlot);
  const late = addLeader(k, 14, cpu);
  assert.equal(late.listSlot, tasks[1].listSlot);
  assert.deepEqual(processes(k, cpu), [10, 12, 13, 14]);
  k.taskList.remove(tasks[0], tasks[0]);
  k.taskList.remove(late, late);
  assert.deepEqual(processes(k, cpu), [12, 13]);
});

test('a walker that stands on a removed task finds its way back', () => {
  const k = testKernel('2s4c1t', '4.1');
  const [cpu] = k.machine.cpus;
  const [, middle] = [10, 11, 12].map((tid) => addLeader(k, tid, cpu));
  k.taskList.remove(middle, middle);
  assert.equal(k.taskList.nextProcess(cpu, middle)!.tid, 12);
});

test('a slot is used again only after a grace period', () => {
  const k = testKernel('2s4c1t', '6.18');
  let early = -1;
  let late = -1;
  let gone = -1;
  const program = function* (t: Task): Code {
    const child = yield* sys_clone(k, t, {flags: 0, childTid: 200, program: computing(k, 10)});
    gone = child!.listSlot;
    yield* sys_wait4(k, t, 200, 0);
    const second = yield* sys_clone(k, t, {flags: 0, childTid: 201, program: computing(k, 10)});
    early = second!.listSlot;
    yield* k.sched.sleep(t, 300_000_000);
    assert.equal(child!.listSlot, -1, 'the struct is freed by now');
    const third = yield* sys_clone(k, t, {flags: 0, childTid: 202, program: computing(k, 10)});
    late = third!.listSlot;
    yield* sys_wait4(k, t, -1, 0);
    yield* sys_wait4(k, t, -1, 0);
  };
  startProcess(k, {tid: 100, comm: 'test', program});
  runToEnd(k);
  assert.notEqual(early, gone);
  assert.ok(late >= 0 && late <= Math.max(gone, early) + 1, 'slots are reused, not added');
});

test('find_lock_task_mm: with the leader gone, the mm of a live thread is found, and its lock held', () => {
  const k = testKernel('2s4c1t', '6.18');
  const fn = k.fn('test');
  const seen: string[] = [];
  const watch = function* (t: Task, leader: Task, mm: Task['mm']): Code {
    k.rcu.readLock(t);
    const leaders: Task[] = [];
    yield* k.taskList.for_each_process(t, fn, (p: Task) => {
      leaders.push(p);
    });
    assert.ok(leaders.includes(leader), 'a zombie leader stays on the list');
    assert.equal(k.taskList.loadMm(t.cpu, leader), null);
    const found = yield* k.taskList.find_lock_task_mm(t, leader, fn);
    assert.ok(found !== null && found !== leader);
    assert.equal(k.taskList.loadMm(t.cpu, found), mm);
    assert.ok(found.allocLock!.isHeldBy(t));
    if (!found.allocLock!.release(t)) yield* found.allocLock!.releaseSlow(t);
    let threads = 0;
    yield* k.taskList.for_each_process_thread(t, fn, (p: Task) => {
      if (p.leader === leader) threads++;
    });
    assert.equal(threads, 2);
    k.rcu.readUnlock(t);
    seen.push('done');
  };
  startProcess(k, {
    tid: 100,
    comm: 'group',
    *program(t) {
      const {mm} = t;
      const program = computing(k, 50_000_000);
      yield* sys_clone(k, t, {flags: PTHREAD_FLAGS, childTid: 101, program});
      startProcess(k, {
        tid: 300,
        comm: 'walker',
        *program(w) {
          yield* k.sched.sleep(w, 20_000_000);
          yield* watch(w, t, mm);
        },
      });
      yield* do_exit(k, t, {group: false});
    },
  });
  runToEnd(k);
  assert.deepEqual(seen, ['done']);
  assert.equal(k.taskList.count, 0);
});
