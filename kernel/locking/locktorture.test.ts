// A stand-alone look at the curve of locktorture's spin_lock test, stock against CNA, on the
// machine on which it was published. The test only holds the model to what the mechanism says; the
// published figures are printed beside ours.
//
// What one writer does (kernel/locking/locktorture.c, 5.2, N writers): take the lock; read and set
// a shared flag; wait 2 us one time in 4 N, and 100 ms one time in 200,000 N (its mean is spread
// evenly here, so that short runs are steady); clear the flag; release. So the mean hold time is 1
// us / N: throughput grows with N as long as the hand-off is short. Writers are not bound: they are
// spread over the sockets and start in random order. Work outside the lock: 50 ns (assumption).

import assert from 'node:assert/strict';
import {existsSync, readFileSync} from 'node:fs';
import {test} from 'node:test';
import {placement} from '../../machine/placement.ts';
import {Rng} from '../../machine/rng.ts';
import type {Choice} from '../design.ts';
import {LockRig} from './rig.ts';

const MACHINE = 'haswell-ex-4s-e7-8895v3';
const THREADS = [1, 2, 4, 8, 16, 36, 72, 142];
const PUBLISHED = new URL(
  '../../../shared/data/published/qspinlock_4s_haswell_ex.json',
  import.meta.url,
);

/** Acquisitions in `us` microseconds. */
function locktorture(policy: Choice<'spinlock'>, writers: number, us: number): number {
  const rig = new LockRig(MACHINE, policy);
  const {machine, fn} = rig;
  const lock = rig.locks.spinlock('torture_spinlock');
  const flag = machine.line('lock_is_write_held', machine.topology.defaultHomeNode);
  const cpus = placement(machine.topology, 'scatter').slice(0, writers);
  machine.rng('start order').shuffle(cpus);
  let acquired = 0;
  cpus.forEach((cpu, index) => {
    const rng = new Rng(index, 'torture_random');
    rig.start(cpu, function* (t) {
      if (rig.work(t, rng.nextInt(1000))) yield;
      for (;;) {
        if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
        if (t.cpu.settle()) yield;
        t.cpu.stall(flag.read(t.cpu, machine.engine.now), fn);
        if (t.cpu.settle()) yield;
        flag.write(t.cpu, machine.engine.now);
        const shortDelay = rng.nextInt(4 * writers) === 0 ? 20_000 : 0;
        if (rig.work(t, shortDelay + Math.round(5000 / writers))) yield;
        acquired++;
        if (!lock.release(t)) yield* lock.releaseSlow(t);
        if (rig.work(t, 500)) yield;
      }
    });
  });
  machine.engine.run(us * 10_000);
  return acquired;
}

function published(): Map<number, number[]> {
  if (!existsSync(PUBLISHED)) return new Map();
  const json = JSON.parse(readFileSync(PUBLISHED, 'utf8')) as {
    locktorture_total_ops_1e7: {rows: [number, number, number][]};
  };
  const {rows} = json.locktorture_total_ops_1e7;
  return new Map(rows.map(([n, stock, cna]) => [n, [stock / rows[0][1], cna / rows[0][2]]]));
}

test('locktorture on four sockets: stock and CNA, as a ratio to one writer', (t) => {
  const known = published();
  if (known.size === 0) t.diagnostic('published figures are not at hand: printing ours alone');
  const ratios = new Map<string, number[]>();
  for (const policy of ['qspinlock', 'cna'] as const) {
    const counts = THREADS.map((n) => locktorture(policy, n, 4000));
    ratios.set(
      policy,
      counts.map((count) => count / counts[0]),
    );
  }
  THREADS.forEach((n, i) => {
    const row = ['qspinlock', 'cna'].map((policy, column) => {
      const theirs = known.get(n)?.[column];
      const beside = theirs === undefined ? '' : ` (published ${theirs.toFixed(2)})`;
      return `${policy} ${ratios.get(policy)![i].toFixed(2)}${beside}`;
    });
    t.diagnostic(`${n} writers: ${row.join(', ')}`);
  });
  const stock = ratios.get('qspinlock')!;
  const cna = ratios.get('cna')!;
  const last = THREADS.length - 1;
  assert.ok(stock[4] > stock[1] && stock[4] > 1.5, 'shorter holds outweigh the hand-off');
  assert.ok(Math.abs(stock[last] / stock[last - 1] - 1) < 0.25, 'a queue does not collapse');
  assert.ok(cna[last] > 1.2 * stock[last], 'CNA keeps the lock on a socket');
  assert.ok(Math.abs(cna[1] / stock[1] - 1) < 0.05, 'two writers never queue: CNA changes nothing');
});
