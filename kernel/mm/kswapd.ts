// mm/vmscan.c: kswapd, a kernel thread per node. Woken when an allocation finds its zones below the
// low watermark, it reclaims until the high one is reached (balance_pgdat), raising its effort pass
// by pass, and sleeps. After 16 runs without a page freed it gives up until somebody else succeeds
// (MAX_RECLAIM_RETRIES, 4.12+; kept for all versions). Its thread starts with the first wake-up.

import type {Code} from '../../machine/process.ts';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import {WaitQueue} from '../sched/wait_queue.ts';
import type {Task} from '../task.ts';
import {DEF_PRIORITY, reclaim_throttle, ScanControl, shrink_node} from './vmscan.ts';

const MAX_RECLAIM_RETRIES = 16;
/** Thread ids that no trace has: below init's stand-in, going down by node. */
const FIRST_TID = 2 ** 31 - 1024;

interface NodeThread {
  readonly wait: WaitQueue;
  running: boolean;
  /** Runs that freed nothing. */
  failures: number;
}

/** The kswapd threads of one kernel. */
export class Kswapd {
  /** Wake-ups that found the thread asleep. */
  wakeups = 0;
  private readonly threads: (NodeThread | undefined)[] = [];
  private readonly kernel: Kernel;

  constructor(kernel: Kernel) {
    this.kernel = kernel;
  }

  /** wakeup_kswapd: plain. */
  wake(t: Task, node: number): void {
    const {kernel} = this;
    const thread = this.threads[node] ?? this.start(t, node);
    if (thread.running || thread.failures >= MAX_RECLAIM_RETRIES) return;
    if (balanced(kernel, node)) return;
    thread.running = true;
    this.wakeups++;
    thread.wait.wakeOne();
  }

  private start(t: Task, node: number): NodeThread {
    const {kernel} = this;
    const wait = new WaitQueue(kernel, `kswapd${node}`, node);
    const thread = {wait, running: false, failures: 0};
    this.threads[node] = thread;
    const cpu = kernel.machine.topology.nodeOf.indexOf(node);
    const spec = {
      tid: FIRST_TID - node,
      comm: `kswapd${node}`,
      kernelThread: true,
      program: (self: Task) => kswapd(kernel, self, node, thread),
    };
    const task = startProcess(kernel, spec, cpu < 0 ? t.cpu : kernel.machine.cpus[cpu]);
    task.process!.daemon = true;
    return thread;
  }
}

/** pgdat_balanced. */
function balanced(k: Kernel, node: number): boolean {
  const zone = k.mm.zones[node];
  return zone.free >= zone.watermarks.high;
}

function* kswapd(k: Kernel, t: Task, node: number, thread: NodeThread): Code {
  for (;;) {
    if (t.cpu.settle()) yield;
    if (!thread.running) {
      yield* thread.wait.wait(t);
      continue;
    }
    const freed = yield* balance_pgdat(k, t, node);
    thread.failures = freed > 0 ? 0 : thread.failures + 1;
    // prepare_kswapd_sleep: it goes on until the node is balanced, or hopeless.
    if (thread.failures < MAX_RECLAIM_RETRIES && !balanced(k, node)) continue;
    thread.running = false;
  }
}

/** balance_pgdat: passes of rising effort until the node is balanced. Returns the pages freed. */
export function* balance_pgdat(k: Kernel, t: Task, node: number): Code<number> {
  const zone = k.mm.zones[node];
  let freed = 0;
  let priority = DEF_PRIORITY;
  while (priority >= 1 && !balanced(k, node)) {
    const goal = Math.max(zone.watermarks.high, 32);
    const sc = new ScanControl('kswapd', goal, 0);
    sc.priority = priority;
    yield* shrink_node(k, t, node, sc);
    freed += sc.nrReclaimed;
    // ZONE_RECLAIM_ACTIVE: what kswapd frees does not stay on its CPU's list.
    zone.pcp.drain(t.cpu.id, zone.pcp.count[t.cpu.id]);
    // A pass that scanned enough for the goal may be repeated with the same effort.
    if (sc.nrScanned < goal || sc.nrReclaimed === 0) priority--;
    if (sc.taken > 0 && sc.writeback === sc.taken) yield* reclaim_throttle(k, t, 25);
    if (t.cpu.settle()) yield;
  }
  return freed;
}
