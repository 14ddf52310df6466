// mm/compaction.c: kcompactd, a kernel thread per node. Woken when an allocation of a large order
// that may wake kswapd finds no block; it compacts its node once for the largest order asked for,
// waiting for locks, and sleeps. Huge pages wake it only under the defrag modes that defer
// (__GFP_KSWAPD_RECLAIM). The thread starts with its first wake-up.

import type {Code} from '../../machine/process.ts';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import {WaitQueue} from '../sched/wait_queue.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {
  Compaction,
  compact_zone,
  compaction_defer_reset,
  defer_compaction,
  hasFreeBlock,
} from './compaction.ts';
import type {Mm} from './mm_state.ts';
import {HPAGE_PMD_ORDER} from './page.ts';

/** Thread ids that no trace has: below kswapd's, going down by node. */
const FIRST_TID = 2 ** 31 - 2048;

interface NodeThread {
  readonly wait: WaitQueue;
  /** Largest order asked for; 0: nothing to do. */
  order: number;
}

/** The kcompactd threads of one kernel (4.6+). */
export class Kcompactd {
  private readonly threads: (NodeThread | undefined)[] = [];

  constructor(readonly c: Compaction) {}

  /** wakeup_kcompactd: plain. */
  wake(t: Task, node: number, order: number): void {
    const {mm} = this.c;
    if (order === 0 || hasFreeBlock(mm.zones[node], order)) return;
    const thread = this.threads[node] ?? this.start(t, node);
    const asleep = thread.order === 0;
    thread.order = Math.max(thread.order, order);
    if (!asleep) return;
    mm.migration.count('compact_daemon_wake');
    thread.wait.wakeOne();
  }

  private start(t: Task, node: number): NodeThread {
    const {k} = this.c;
    const thread = {wait: new WaitQueue(k, `kcompactd${node}`, node), order: 0};
    this.threads[node] = thread;
    const cpu = k.machine.topology.nodeOf.indexOf(node);
    const spec = {
      tid: FIRST_TID - node,
      comm: `kcompactd${node}`,
      kernelThread: true,
      program: (self: Task) => kcompactd(this.c, self, node, thread),
    };
    const task = startProcess(k, spec, cpu < 0 ? t.cpu : k.machine.cpus[cpu]);
    task.process!.daemon = true;
    return thread;
  }
}

function* kcompactd(c: Compaction, t: Task, node: number, thread: NodeThread): Code {
  const zone = c.mm.zones[node];
  const state = c.of(zone);
  for (;;) {
    if (t.cpu.settle()) yield;
    const {order} = thread;
    if (order === 0) {
      yield* thread.wait.wait(t);
      continue;
    }
    const result = yield* compact_zone(c, t, zone, order, 'sync-light');
    if (result === 'success') compaction_defer_reset(state, order);
    else if (result === 'complete') defer_compaction(state, order);
    thread.order = 0;
  }
}

/** Makes compaction part of a kernel. */
export function install_compaction(k: Kernel, mm: Mm): Compaction {
  const c = new Compaction(k, mm);
  if (isBefore(k.facts.version, '4.6')) return c;
  const daemon = new Kcompactd(c);
  const {hooks} = mm;
  const {wakeup_kswapd} = hooks;
  hooks.wakeup_kswapd = (t, node, order) => {
    wakeup_kswapd?.(t, node, order);
    const deferring = c.defrag === 'defer' || c.defrag === 'defer+madvise';
    if (order > 0 && (order !== HPAGE_PMD_ORDER || deferring)) daemon.wake(t, node, order);
  };
  return c;
}
