// Tasks that do not come from fork: those that live when a run begins, and init, who inherits and
// reaps orphans.
//
// Such a task starts as a kernel thread and takes an address space by exec_mmap, as init and
// user-mode helpers do; so its PGD is allocated in simulated time by the design under test. It is
// on the task list from the beginning.

import type {Cpu} from '../machine/cpu.ts';
import type {Code} from '../machine/process.ts';
import {firstCred} from './cred.ts';
import {exec_mmap} from './exec.ts';
import {sys_wait4, task_main} from './exit.ts';
import {newTask} from './fork.ts';
import {mm_alloc} from './fork_mm.ts';
import {firstFiles} from './fs/file.ts';
import {firstFs} from './fs/fs_struct.ts';
import type {Kernel} from './kernel.ts';
import {newLine} from './refcount.ts';
import {SignalStruct} from './signal_struct.ts';
import type {Task} from './task.ts';
import {addChild, childCount} from './task_tree.ts';

/** A process to start with. */
export interface ProcessSpec {
  readonly tid: number;
  readonly comm: string;
  readonly program: (t: Task) => Code<unknown>;
  /** CPU it may only run on; default any. */
  readonly pinnedCpu?: number;
  /** Default none: nobody waits for it, it is gone when it exits. */
  readonly parent?: Task;
  /** A kernel thread keeps running without an address space. */
  readonly kernelThread?: boolean;
}

/**
 * Starts a process that nobody forked, on `on` where that matters. Costs nothing by itself; its own
 * start is simulated.
 */
export function startProcess(k: Kernel, spec: ProcessSpec, on?: Cpu): Task {
  const cpu = on ?? k.machine.cpus[spec.pinnedCpu ?? spec.tid % k.machine.topology.cpuCount];
  const t = list(k, spec, cpu);
  k.sched.startTask(t, task_main(k, t, firstProgram(k, t, spec)));
  return t;
}

function list(k: Kernel, spec: ProcessSpec, cpu: Cpu): Task {
  const node = k.machine.topology.nodeOf[cpu.id];
  const t = newTask(k, {tid: spec.tid, tgid: spec.tid, comm: spec.comm, cpu, node});
  t.pinnedCpu = spec.pinnedCpu ?? -1;
  t.isKernelThread = true;
  t.signal = new SignalStruct(t, k.locks.bulk('siglock', node), k.taskList.takeSlot());
  t.files = firstFiles(k, t);
  t.fs = firstFs(k, t);
  t.cred = firstCred(k, t);
  t.sighand = {users: 1, line: newLine(k, t)};
  if (spec.parent !== undefined) addChild(spec.parent, t);
  k.taskList.add(t, t);
  // It was there before the run began: nobody can meet it half linked.
  k.machine.storeBuffers.fence(cpu.id, k.machine.engine.now);
  return t;
}

function firstProgram(k: Kernel, t: Task, spec: ProcessSpec): () => Code<unknown> {
  return function* (): Code<unknown> {
    if (spec.kernelThread !== true) {
      const mm = yield* mm_alloc(k, t);
      mm.exe = k.shared.programs.firstExe(t.comm);
      yield* exec_mmap(k, t, mm);
    }
    return yield* spec.program(t);
  };
}

/** A number that no recorded task has: traces may bring their own pid 1. */
export const INIT_TID = 2 ** 31 - 1;

/**
 * child_reaper: init of the machine, started when the first orphan needs it. It waits for children
 * for ever.
 */
export function childReaper(k: Kernel, orphanedBy: Task): Task {
  if (k.init !== null) return k.init;
  const program = function* (t: Task): Code<unknown> {
    for (;;) {
      const reaped = yield* sys_wait4(k, t, -1, 0);
      if (reaped < 0 && childCount(t) === 0) yield* k.sched.block(t, {name: 'orphans'}, true);
    }
  };
  const init = startProcess(k, {tid: INIT_TID, comm: 'init', program}, orphanedBy.cpu);
  init.process!.daemon = true;
  k.init = init;
  return init;
}
