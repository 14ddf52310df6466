// What each generation of mmu_notifier has. G0 2.6.27 to 3.6, G1 3.7 to 3.18,
// G2 3.19 to 4.10, G2b 4.11 and 4.12, G3 4.13 and 4.14, G3b 4.15 to 4.18, G4 4.19 to 5.1, G5 5.2
// and 5.3, G5b 5.4, G6 5.5 to 6.5, G7 6.6 to 6.9, G8 6.10+.

import type {Choice} from '../design.ts';

/** One generation. */
export interface NotifierFacts {
  readonly generation: Choice<'notifier'>;
  /** Callbacks may sleep (SRCU instead of RCU). */
  readonly sleeps: boolean;
  /** COW and KSM send a start/end pair around the change. */
  readonly cowRange: boolean;
  /** change_pte comes after the new PTE, before it, or not at all. */
  readonly changePte: 'after' | 'before' | 'none';
  /** invalidate_page: after the PTL was dropped, under it, or gone. */
  readonly invalidatePage: 'none' | 'under-ptl' | 'after-ptl';
  /** G0 only: IP sent under the PTL by ptep_clear_flush_notify. */
  readonly clearFlushNotifies: boolean;
  /** invalidate_range, its 6.6+ form out of the TLB flush, or neither. */
  readonly secondaryTlb: 'none' | 'range' | 'flush';
  /** COW's end implies invalidate_range (before only_end). */
  readonly cowEndImpliesRange: boolean;
  /** rmap unmap sends a pair (4.13+). */
  readonly rmapRange: boolean;
  readonly nonblock: boolean;
  readonly interval: boolean;
  /** 5.4+: lockdep follows start, and non-blockable callbacks run inside non_block_start. */
  readonly lockdepMap: boolean;
  /**
   * When a notifier said -EAGAIN, end is called for those that had their start (5.13+, taken as
   * part of G6).
   */
  readonly unwindsHlist: boolean;
}

const ORDER: readonly Choice<'notifier'>[] = [
  'G0',
  'G1',
  'G2',
  'G2b',
  'G3',
  'G3b',
  'G4',
  'G5',
  'G5b',
  'G6',
  'G7',
  'G8',
];

/** The facts of a generation. */
export function notifierFacts(generation: Choice<'notifier'>): NotifierFacts {
  const at = ORDER.indexOf(generation);
  const since = (first: Choice<'notifier'>): boolean => at >= ORDER.indexOf(first);
  return {
    generation,
    sleeps: since('G1'),
    cowRange: since('G1'),
    changePte: !since('G1') ? 'after' : since('G8') ? 'none' : 'before',
    invalidatePage: since('G3')
      ? 'none'
      : generation === 'G2' || generation === 'G1'
        ? 'after-ptl'
        : 'under-ptl',
    clearFlushNotifies: generation === 'G0',
    secondaryTlb: !since('G2') ? 'none' : since('G7') ? 'flush' : 'range',
    cowEndImpliesRange: since('G2') && !since('G3b'),
    rmapRange: since('G3'),
    nonblock: since('G4'),
    interval: since('G6'),
    lockdepMap: since('G5b'),
    unwindsHlist: since('G6'),
  };
}
