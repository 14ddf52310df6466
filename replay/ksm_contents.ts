// What the pages of a recording held, as far as KSM tells of it.
//
// No recording states the contents of pages, and ksmd does nothing without them. But its
// tracepoints tell which pages it found equal: pages merged into one KSM page are of one class.
// They do not tell addresses. ksmd goes through an address space in the order of addresses, so the
// merges of one scan lie on its pages in that order, and only how many pages without a merge lie
// between two of them is open. That follows from, in this order:
//   1. an rmap_item stands for one page for good: where one scan places it, all scans do;
//   2. a scan that merged as many pages as were new to it merged all of them;
//   3. a page whose write faulted on write protection had been merged;
//   4. the time that ksmd took between two merges.
// A page is new to a scan when the scan before saw it first: it merges then, or has no equal. Which
// page another one met in the unstable tree is known only by rule 1; else the nearest free one
// before it is taken.
//
// What was inferred is an input of the replay, and only the contents: the merging itself is done by
// the model's own ksmd.

import {FIRST_INFERRED, type WrittenContents} from './contents.ts';
import {type KsmRecording, type Merge, readKsm, type Scan} from './ksm_recording.ts';
import type {Space, Version} from './ksm_versions.ts';
import type {CompiledTrace} from './tracks.ts';

/** Contents that writes made, and how they were found. */
export interface KsmContents {
  readonly recording: KsmRecording;
  readonly written: WrittenContents;
  /**
   * Merges whose page is certain (rules 1 and 2), whose page lies between such (3 and 4), and those
   * without a page.
   */
  readonly certain: number;
  readonly placed: number;
  readonly unplaced: number;
}

/**
 * Infers contents. Cost: one pass over the events, and for each scan with merges one over the
 * pages.
 */
export function inferContents(compiled: CompiledTrace): KsmContents {
  const classes = new Classes();
  const recording = readKsm(compiled, () => classes.fresh());
  const placing = new Placing(recording.scans, classes);
  placing.findItems();
  placing.placeAll();
  const written = new Map<number, Map<number, number>>();
  // Of pages that came in together each is taken to hold something of its own, unless ksmd found
  // otherwise.
  for (const {event, vpn, content} of [...recording.populated, ...placing.known]) {
    const found = content === null ? classes.fresh() : classes.of(content);
    const pages = written.get(event);
    if (pages === undefined) written.set(event, new Map([[vpn, found]]));
    else pages.set(vpn, found);
  }
  const {certain, placed, unplaced} = placing;
  return {recording, written, certain, placed, unplaced};
}

/** Contents that turned out to be the same are one class. */
class Classes {
  private readonly parents: number[] = [];

  fresh(): number {
    this.parents.push(this.parents.length);
    return FIRST_INFERRED + this.parents.length - 1;
  }

  of(content: number): number {
    if (content < FIRST_INFERRED) return content;
    let at = content - FIRST_INFERRED;
    while (this.parents[at] !== at) at = this.parents[at];
    return FIRST_INFERRED + at;
  }

  unite(a: number, b: number): void {
    const [low, high] = [this.of(a), this.of(b)].sort((x, y) => x - y);
    if (high >= FIRST_INFERRED && low >= FIRST_INFERRED) {
      this.parents[high - FIRST_INFERRED] = low - FIRST_INFERRED;
    }
  }
}

/** A merge and the place of its page among the candidates. */
interface Anchor {
  readonly merge: number;
  readonly place: number;
}

class Placing {
  readonly known = new Set<Version>();
  certain = 0;
  placed = 0;
  unplaced = 0;
  private readonly pageOfItem = new Map<string, number>();

  constructor(
    private readonly scans: readonly Scan[],
    private readonly classes: Classes,
  ) {}

  /** Rule 2: items of scans that merged every page that was new to them. */
  findItems(): void {
    this.scans.forEach((scan, n) => {
      for (const [space, merges] of scan.merges) {
        const inOrder = merges.filter((merge) => !merge.met);
        const fresh = this.candidates(space, n);
        if (merges.some((merge) => merge.met)) this.findItemsWithPairs(merges, fresh);
        else if (inOrder.length === fresh.length) {
          inOrder.forEach((merge, k) => {
            this.pageOfItem.set(merge.item, fresh[k].vpn);
          });
        }
      }
    });
  }

  /**
   * With pages that met in the unstable tree: of each pair the second is in order, the first came
   * somewhere before. If all candidates were merged and each class has few of them, those that are
   * in no order fill the gaps in order of their pairs only by chance: they stay open, and so do the
   * places before the last of them.
   */
  private findItemsWithPairs(merges: readonly Merge[], fresh: readonly Version[]): void {
    if (merges.length !== fresh.length) return;
    const lastPair = merges.findLastIndex((merge) => merge.met);
    for (let k = lastPair + 1; k < merges.length; k++) {
      this.pageOfItem.set(merges[k].item, fresh[k].vpn);
    }
  }

  placeAll(): void {
    this.scans.forEach((scan, n) => {
      for (const [space, merges] of scan.merges) this.placeIn(space, merges, n);
    });
  }

  /**
   * Pages that a scan could merge for the first time: the scan before had seen what they hold. In
   * order of addresses.
   */
  private candidates(space: Space, n: number): Version[] {
    const scan = this.scans[n];
    const seenBy = n === 0 ? scan.startNs : this.scans[n - 1].endNs;
    const oldBy = n < 2 ? -1 : this.scans[n - 2].endNs;
    const isNew = ({madeNs, mergeableNs}: Version): boolean => {
      const readyNs = Math.max(madeNs, mergeableNs, space.enteredNs);
      return readyNs <= seenBy && readyNs > oldBy;
    };
    return space.versions
      .filter((version) => version.goneNs > scan.startNs && isNew(version))
      .sort((a, b) => a.vpn - b.vpn);
  }

  /** Pages that earlier scans left alone, besides. */
  private withOld(space: Space, n: number): Version[] {
    const scan = this.scans[n];
    const seenBy = n === 0 ? scan.startNs : this.scans[n - 1].endNs;
    return space.versions
      .filter(
        ({madeNs, mergeableNs, goneNs, content}) =>
          goneNs > scan.startNs && Math.max(madeNs, mergeableNs) <= seenBy && content === null,
      )
      .sort((a, b) => a.vpn - b.vpn);
  }

  private placeIn(space: Space, merges: readonly Merge[], n: number): void {
    const inOrder = merges.filter((merge) => !merge.met);
    let places = this.candidates(space, n);
    if (merges.length > places.length) places = this.withOld(space, n);
    const taken = new Set<number>();
    const vpns = new Map(places.map((version, at) => [version.vpn, at]));
    const anchors: Anchor[] = [];
    inOrder.forEach((merge, k) => {
      const at = vpns.get(this.pageOfItem.get(merge.item) ?? -1);
      if (at !== undefined && fits(anchors, {merge: k, place: at}))
        anchors.push({merge: k, place: at});
    });
    // A page met in the tree that is known must not be taken by another.
    for (const merge of merges) {
      const at = merge.met ? vpns.get(this.pageOfItem.get(merge.item) ?? -1) : undefined;
      if (at !== undefined) taken.add(at);
    }
    const chosen = this.between(inOrder, places, anchors, taken);
    const sure = new Set(anchors.map(({merge}) => merge));
    inOrder.forEach((merge, k) => {
      const at = chosen[k];
      if (at >= 0) taken.add(at);
      this.settle(merge, at < 0 ? null : places[at], sure.has(k));
    });
    this.placeMet(merges, inOrder, chosen, places, vpns, taken);
  }

  /**
   * Pages that were met in the unstable tree: where they are known to be, else the nearest free one
   * before the page that met them.
   */
  private placeMet(
    merges: readonly Merge[],
    inOrder: readonly Merge[],
    chosen: readonly number[],
    places: readonly Version[],
    vpns: ReadonlyMap<number, number>,
    taken: Set<number>,
  ): void {
    merges.forEach((merge, k) => {
      if (!merge.met) return;
      const known = vpns.get(this.pageOfItem.get(merge.item) ?? -1);
      if (known !== undefined) {
        this.settle(merge, places[known], true);
        return;
      }
      let at = k === 0 ? places.length - 1 : chosen[inOrder.indexOf(merges[k - 1])];
      while (at >= 0 && taken.has(at)) at--;
      if (at >= 0) taken.add(at);
      this.settle(merge, at < 0 ? null : places[at], false);
    });
  }

  private settle(merge: Merge, version: Version | null, sure: boolean): void {
    if (version === null) {
      this.unplaced++;
      return;
    }
    if (sure) this.certain++;
    else this.placed++;
    if (version.content === null) version.content = merge.content;
    else this.classes.unite(version.content, merge.content);
    this.known.add(version);
  }

  /** Index among the places for each merge, -1 for none: rules 3 and 4 between the anchors. */
  private between(
    merges: readonly Merge[],
    places: readonly Version[],
    anchors: readonly Anchor[],
    taken: ReadonlySet<number>,
  ): number[] {
    const chosen = new Array<number>(merges.length).fill(-1);
    const waits = waitsOf(merges);
    let last: Anchor = {merge: -1, place: -1};
    for (const next of [...anchors, {merge: merges.length, place: places.length}]) {
      const free: number[] = [];
      for (let at = last.place + 1; at < next.place; at++) if (!taken.has(at)) free.push(at);
      const spread = spreadOver(free, merges, waits, last.merge + 1, next.merge, places);
      spread.forEach((at, k) => {
        chosen[last.merge + 1 + k] = at;
      });
      if (next.merge < merges.length) chosen[next.merge] = next.place;
      last = next;
    }
    return chosen;
  }
}

/** The anchors stay in order, and leave room for the merges between them. */
function fits(anchors: readonly Anchor[], next: Anchor): boolean {
  const last = anchors.at(-1) ?? {merge: -1, place: -1};
  return next.place - last.place >= next.merge - last.merge;
}

/** For each merge how long ksmd took to come to it, less the shortest usual time; ns. */
function waitsOf(merges: readonly Merge[]): number[] {
  const known = merges.map(({waitNs}) => waitNs).filter((waitNs) => !Number.isNaN(waitNs));
  known.sort((a, b) => a - b);
  const shortest = known[Math.floor(known.length / 10)] ?? 0;
  const median = known[known.length >> 1] ?? 0;
  return merges.map(({waitNs}) => Math.max(0, (Number.isNaN(waitNs) ? median : waitNs) - shortest));
}

/**
 * Lays merges [from, to) on the free places in order. Of the places left over one lies before each
 * page that met another in the unstable tree, and is that other's; the rest are skipped in
 * proportion to the waits (that of the merge `to` is for what comes last); a page that must have
 * been merged is not skipped. Fewer places than merges: the last merges get none (-1).
 */
function spreadOver(
  free: readonly number[],
  merges: readonly Merge[],
  waits: readonly number[],
  from: number,
  to: number,
  places: readonly Version[],
): number[] {
  const count = to - from;
  const left = free.length - count;
  if (left <= 0) return Array.from({length: count}, (_, k) => free[k] ?? -1);
  const pairs = merges.slice(from, to).map(({first}) => (first ? 1 : 0));
  const others = Math.max(0, left - pairs.reduce<number>((sum, pair) => sum + pair, 0));
  const mean = waits.reduce((sum, wait) => sum + wait, 0) / waits.length;
  const skips = shares(others, [...waits.slice(from, to), to < waits.length ? waits[to] : mean]);
  const used = new Set<number>();
  let skipped = 0;
  for (let k = 0; k < count; k++) {
    skipped += skips[k] + pairs[k];
    used.add(k + Math.min(left, skipped));
  }
  preferMerged(free, used, places);
  return [...used].sort((a, b) => a - b).map((at) => free[at]);
}

/**
 * Divides a whole number in proportion to weights, in whole parts: the largest remainders are
 * rounded up.
 */
function shares(whole: number, weights: readonly number[]): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const exact = weights.map((weight) =>
    total === 0 ? whole / weights.length : (whole * weight) / total,
  );
  const parts = exact.map(Math.floor);
  const missing = whole - parts.reduce((sum, part) => sum + part, 0);
  const order = exact
    .map((_, k) => k)
    .sort((a, b) => exact[b] - parts[b] - exact[a] + parts[a] || a - b);
  for (const k of order.slice(0, missing)) parts[k]++;
  return parts;
}

/** Rule 3: moves the nearest merge to each place whose page must have been merged. */
function preferMerged(
  free: readonly number[],
  used: Set<number>,
  places: readonly Version[],
): void {
  const must = (at: number): boolean => {
    const {brokenUp, forked} = places[free[at]];
    return brokenUp && !forked;
  };
  for (let at = 0; at < free.length; at++) {
    if (!must(at) || used.has(at)) continue;
    for (let away = 1; away < free.length; away++) {
      const near = [at - away, at + away].find((other) => used.has(other) && !must(other));
      if (near === undefined) continue;
      used.delete(near);
      used.add(at);
      break;
    }
  }
}
