// One round of arch_pgd_init_late against sync_global_pgds on two CPUs, for tests: a fork whose
// late copy and a reference update whose walk fall within a few hundred ns of each other, the
// offset drawn from the seed. The two CPUs are threads of one core and the walker has walked
// before: the walk over two processes must be over before the stores of the fork have left the
// store buffer, which takes about 200 ns.

import type {Code} from '../../../../machine/process.ts';
import {Rng} from '../../../../machine/rng.ts';
import {nsToTicks} from '../../../../machine/time.ts';
import {copy_process} from '../../../fork.ts';
import type {Kernel} from '../../../kernel.ts';
import type {Task} from '../../../task.ts';
import {auditPgds} from './pgd/check.ts';
import {bootKernel, startOn} from './testing.ts';

const START_TICKS = nsToTicks(2e6);
/**
 * By how much the walker's start is later than the end of the fork: where the two race, found by
 * trying. Between the late copy and that end is cgroup_post_fork.
 */
const OFFSET_TICKS = -nsToTicks(340);
const SPREAD_TICKS = nsToTicks(200);
/**
 * The walker computes from here on, so that the fork runs beside a busy thread for all of its time.
 */
const AHEAD_TICKS = nsToTicks(5e3);
/** An entry of the direct map that boot leaves empty. */
const SLOT = 40;

/**
 * What one round did: when both sides came to their racing access, and how many entries are missing
 * for good.
 */
export interface LitmusRound {
  readonly copyTick: number;
  readonly storeTick: number;
  readonly missed: number;
  readonly kernel: Kernel;
}

/** Runs a round; `delayTicks` postpones the walker. */
export function litmusRound(design: string, seed: number, delayTicks: number): LitmusRound {
  const kernel = bootKernel({machine: '1s2c2t', design: [`pgd=${design}`], seed});
  let copyTick = 0;
  let storeTick = 0;
  const creator = function* (t: Task): Code {
    yield* until(kernel, t, START_TICKS);
    yield* copy_process(kernel, t, {
      flags: 0,
      childTid: 900,
      childTgid: 900,
      program: function* () {},
    });
    copyTick = kernel.machine.engine.now;
    yield* kernel.sched.sleep(t, START_TICKS);
  };
  const walker = function* (t: Task): Code {
    yield* until(kernel, t, START_TICKS / 2);
    yield* warmUp(kernel, t);
    yield* until(kernel, t, START_TICKS - AHEAD_TICKS);
    yield* kernel.sched.userRun(t, AHEAD_TICKS + delayTicks);
    yield* kernel.pageTables.populateEntry(t, SLOT, 0);
    storeTick = kernel.machine.engine.now;
    const vpn = kernel.pageTables.entryStart(SLOT);
    yield* kernel.pgd.sync_global_pgds(t, vpn, vpn, false);
    yield* kernel.sched.sleep(t, START_TICKS);
    auditPgds(kernel);
  };
  startOn(kernel, 0, creator);
  startOn(kernel, 2, walker);
  kernel.machine.engine.run();
  const missed = kernel.checks.counters.get('pgd_missed_unseen') ?? 0;
  return {copyTick, storeTick, missed, kernel};
}

/** Seeds from `first` on, `count` of them, under which the new PGD misses the entry. */
export function missingSeeds(design: string, first: number, count: number): number[] {
  let apart = 0;
  for (let step = 0; step < 3; step++) {
    const {copyTick, storeTick} = litmusRound(design, first, apart);
    apart = Math.max(0, apart + copyTick - storeTick);
  }
  const seeds: number[] = [];
  for (let seed = first; seed < first + count; seed++) {
    const jitter = OFFSET_TICKS + new Rng(seed, 'litmus').nextInt(SPREAD_TICKS);
    if (litmusRound(design, seed, apart + jitter).missed > 0) seeds.push(seed);
  }
  return seeds;
}

/**
 * A walk that changes nothing: afterwards the walker's cache has the lines, and the next walk is
 * short.
 */
function* warmUp(kernel: Kernel, t: Task): Code {
  const {pgd_lock} = kernel.pgd;
  const fn = kernel.fn('litmus');
  kernel.rcu.readLock(t);
  if (!pgd_lock.acquire(t, fn)) yield* pgd_lock.acquireSlow(t, fn);
  yield* kernel.pgd.walkAll(t, {locksPageTable: true, visit: () => true}, fn);
  if (!pgd_lock.release(t)) yield* pgd_lock.releaseSlow(t);
  kernel.rcu.readUnlock(t);
}

function* until(kernel: Kernel, t: Task, tick: number): Code {
  yield* kernel.sched.sleep(t, tick - kernel.machine.engine.now);
}
