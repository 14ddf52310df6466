// What the rw_semaphore of a kernel version does. Sources: kernel/locking/rwsem-xadd.c up to 5.2,
// rwsem.c from 5.3 on (the merge of the two, with hand-off and spinning on readers).

import {nsToTicks} from '../../machine/time.ts';
import {isBefore} from '../version.ts';

/** RWSEM_WAIT_TIMEOUT: DIV_ROUND_UP(HZ, 250) jiffies, 4 ms. */
export const HANDOFF_AFTER_TICKS = nsToTicks(4e6);
/** MAX_READERS_WAKEUP. */
export const MAX_READERS_WOKEN = 256;

export interface RwsemFacts {
  /** Writers spin while a writer that owns the lock runs (3.16). */
  readonly writersSpin: boolean;
  /**
   * Writers spin for a while on readers too, and the first waiter gets a hand-off after 4 ms (5.3).
   */
  readonly readerSpin: boolean;
  readonly handoff: boolean;
  /** A wake-up of readers takes those behind queued writers too (5.3). */
  readonly wakesAllReaders: boolean;
  /**
   * A reader takes a lock that is free or read-held past queued waiters (5.3; by spinning up to
   * 5.10).
   */
  readonly readersSteal: boolean;
  /**
   * down_write_killable (4.7), down_read_killable (4.15): before them such waits are plain ones.
   */
  readonly killableWrite: boolean;
  readonly killableRead: boolean;
  /** A killed waiter wakes those behind it only when it was the first; readers do too (5.19). */
  readonly firstWakes: boolean;
  /** The hand-off that a killed writer asked for goes to the next waiter (5.16), not with it. */
  readonly handoffStays: boolean;
}

const known = new Map<string, RwsemFacts>();

/** Of a kernel version; worked out once, for locks are made by the thousand. */
export function rwsemFacts(version: string): RwsemFacts {
  const facts = known.get(version) ?? factsOf(version);
  known.set(version, facts);
  return facts;
}

function factsOf(version: string): RwsemFacts {
  const merged = !isBefore(version, '5.3');
  return {
    writersSpin: !isBefore(version, '3.16'),
    readerSpin: merged,
    handoff: merged,
    wakesAllReaders: merged,
    readersSteal: merged,
    killableWrite: !isBefore(version, '4.7'),
    killableRead: !isBefore(version, '4.15'),
    firstWakes: !isBefore(version, '5.19'),
    handoffStays: !isBefore(version, '5.16'),
  };
}

/** rwsem_rspin_threshold(): how long a writer spins on `readers` readers, 10 to 25 us. */
export function readerSpinTicks(readers: number): number {
  return nsToTicks((20 + Math.min(readers, 30)) * 500);
}
