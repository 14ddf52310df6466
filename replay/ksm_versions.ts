// Which pages the tasks of a recording wrote, and when; which of them lay in mergeable memory. This
// is the half of ksm_recording.ts that comes from what tasks did.
//
// A *version* is what a page holds between two recorded write faults on it (a write without a fault
// leaves no trace). Pages that one call or one huge fault brought in all at once are versions of
// that call.

import {argNumber} from '../formats/columns.ts';
import {KIND} from '../formats/kinds.ts';
import {CLONE_VM} from '../kernel/clone_flags.ts';
import {X86_PF_PROT, X86_PF_WRITE} from '../kernel/mm/vm_fault.ts';
import {vpnArg} from './bind/binding.ts';
import {PageRanges} from './page_ranges.ts';
import type {CompiledTrace} from './tracks.ts';

const PAGE_BYTES = 4096;
const HUGE_PAGES = 512;
/** Where pages are taken to lie that the recording shows no mapping of. */
const UNSEEN_VPN = 0x7_e000_0000;
const MAP_POPULATED = 0x8000 | 0x2000;
const MADV_DONTNEED = 4;
const MADV_MERGEABLE = 12;
const MADV_UNMERGEABLE = 13;
const MADV_POPULATE_WRITE = 23;
const MAX_ERRNO = 4095;

/** What a page of an address space holds from one write fault to the next. */
export interface Version {
  readonly vpn: number;
  /** Event of the write access that made it, and its time. */
  readonly event: number;
  readonly madeNs: number;
  /** From when on it lay in mergeable memory, Infinity before that; when it was gone. */
  mergeableNs: number;
  goneNs: number;
  /** The write that ended it found the page write-protected. */
  brokenUp: boolean;
  /** Shared with a forked process at some time, which write-protects it, too. */
  forked: boolean;
  /** Class of its content, once known. */
  content: number | null;
}

/** Versions of one address space, oldest first, and the ones that there are now. */
export class Space {
  readonly versions: Version[] = [];
  readonly current = new Map<number, Version>();
  readonly mergeable = new PageRanges();
  /** When the recorded kernel put it on ksmd's list. */
  enteredNs = Number.POSITIVE_INFINITY;
  /** Operation's event by which it entered outside of madvise, -1 for none. */
  enterEvent = -1;
}

/** Follows the address spaces of a recording, operation by operation. */
export class Spaces {
  private readonly spaces: (Space | undefined)[];
  private readonly leaders = new Map<number, Space>();
  /** Versions of pages that came in many at once: nobody saw what was written to each. */
  readonly populatedVersions: Version[] = [];

  constructor(private readonly compiled: CompiledTrace) {
    this.spaces = new Array(compiled.tracks.length).fill(undefined);
  }

  /** Address space of a track's process now. */
  spaceOf(track: number): Space {
    const known = this.spaces[track];
    if (known !== undefined) return known;
    const {tgid} = this.compiled.tracks[track];
    const space = this.leaders.get(tgid) ?? new Space();
    this.leaders.set(tgid, space);
    this.spaces[track] = space;
    return space;
  }

  /** Operation `op`, event `i`, begins. */
  operation(op: number, i: number): void {
    const {events} = this.compiled.trace;
    const track = this.compiled.opTrack[op];
    const space = this.spaceOf(track);
    const now = events.timeNs[i];
    switch (events.kind[i]) {
      case KIND.access:
        if ((argNumber(events, i, 1) & X86_PF_WRITE) !== 0) this.wrote(space, i, now);
        break;
      case KIND.fork:
        this.forked(space, this.compiled.opChild[op], i, now);
        break;
      case KIND.exec:
        this.setSpace(track, new Space());
        break;
      case KIND.madvise:
        this.advised(space, i, now);
        break;
      case KIND.mlock:
        this.populated(space, vpnArg(events, i, 0), pagesArg(this.compiled, i, 1), i, now);
        break;
      case KIND.munmap:
        this.unmapped(space, vpnArg(events, i, 0), pagesArg(this.compiled, i, 1), now);
        break;
      case KIND.mmap:
        if (!failed(this.compiled, i, 6)) this.mapped(space, i, now);
        break;
      case KIND.mremap:
        if (!failed(this.compiled, i, 5)) this.moved(space, i, now);
        break;
      default:
    }
  }

  /** The write access of operation `op`, event `i`, brought in a whole huge page. */
  hugeFault(op: number, i: number, now: number): void {
    const {events} = this.compiled.trace;
    if (events.kind[i] !== KIND.access) return;
    const vpn = vpnArg(events, i, 0);
    const first = vpn - (vpn % HUGE_PAGES);
    this.populated(this.spaceOf(this.compiled.opTrack[op]), first, HUGE_PAGES, i, now);
  }

  /**
   * `pages` pages of a space of which the recording has nothing but what ksmd did: written when it
   * entered.
   */
  unseen(space: Space, pages: number): void {
    space.mergeable.add(UNSEEN_VPN, UNSEEN_VPN + pages);
    this.populated(space, UNSEEN_VPN, pages, space.enterEvent, space.enteredNs);
  }

  /** Pages that are not there yet come in with the call or fault of event `i`. */
  private populated(space: Space, start: number, pages: number, i: number, now: number): void {
    for (let vpn = start; vpn < start + pages; vpn++) {
      if (!space.current.has(vpn)) this.populatedVersions.push(this.add(space, vpn, i, now));
    }
  }

  private mapped(space: Space, i: number, now: number): void {
    const {events} = this.compiled.trace;
    const start = vpnArg(events, i, 6);
    const pages = pagesArg(this.compiled, i, 1);
    this.unmapped(space, start, pages, now);
    if ((argNumber(events, i, 3) & MAP_POPULATED) !== 0)
      this.populated(space, start, pages, i, now);
  }

  private setSpace(track: number, space: Space): void {
    this.spaces[track] = space;
    this.leaders.set(this.compiled.tracks[track].tgid, space);
  }

  private wrote(space: Space, i: number, now: number): void {
    const {events} = this.compiled.trace;
    const vpn = vpnArg(events, i, 0);
    const before = space.current.get(vpn);
    if (before !== undefined) {
      before.goneNs = now;
      before.brokenUp = (argNumber(events, i, 1) & X86_PF_PROT) !== 0;
    }
    this.add(space, vpn, i, now);
  }

  private add(space: Space, vpn: number, event: number, now: number): Version {
    const version: Version = {
      vpn,
      event,
      madeNs: now,
      mergeableNs: space.mergeable.has(vpn) ? now : Number.POSITIVE_INFINITY,
      goneNs: Number.POSITIVE_INFINITY,
      brokenUp: false,
      forked: false,
      content: null,
    };
    space.versions.push(version);
    space.current.set(vpn, version);
    return version;
  }

  private forked(parent: Space, child: number, i: number, now: number): void {
    if (child < 0) return;
    if ((argNumber(this.compiled.trace.events, i, 1) & CLONE_VM) !== 0) {
      this.setSpace(child, parent);
      return;
    }
    const copy = new Space();
    copy.mergeable.copy(parent.mergeable);
    for (const version of parent.current.values()) {
      version.forked = true;
      this.add(copy, version.vpn, version.event, now).forked = true;
    }
    this.setSpace(child, copy);
  }

  private advised(space: Space, i: number, now: number): void {
    const {events} = this.compiled.trace;
    const advice = argNumber(events, i, 2);
    const start = vpnArg(events, i, 0);
    const end = start + pagesArg(this.compiled, i, 1);
    if (advice === MADV_POPULATE_WRITE) this.populated(space, start, end - start, i, now);
    if (advice === MADV_DONTNEED) this.dropPages(space, start, end, now);
    if (advice !== MADV_MERGEABLE && advice !== MADV_UNMERGEABLE) return;
    const on = advice === MADV_MERGEABLE;
    if (on) space.mergeable.add(start, end);
    else space.mergeable.remove(start, end);
    const inside = [...space.current.values()].filter(({vpn}) => vpn >= start && vpn < end);
    for (const version of inside) {
      if (on) version.mergeableNs = Math.min(version.mergeableNs, now);
      else {
        version.goneNs = now;
        this.add(space, version.vpn, version.event, now).forked = version.forked;
      }
    }
  }

  private unmapped(space: Space, start: number, pages: number, now: number): void {
    space.mergeable.remove(start, start + pages);
    this.dropPages(space, start, start + pages, now);
  }

  private dropPages(space: Space, start: number, end: number, now: number): void {
    for (const [vpn, version] of space.current) {
      if (vpn < start || vpn >= end) continue;
      version.goneNs = now;
      space.current.delete(vpn);
    }
  }

  private moved(space: Space, i: number, now: number): void {
    const {events} = this.compiled.trace;
    const from = vpnArg(events, i, 0);
    const to = vpnArg(events, i, 5);
    if (from === to) return;
    const pages = Math.min(pagesArg(this.compiled, i, 1), pagesArg(this.compiled, i, 2));
    const mergeable = space.mergeable.has(from);
    const moving = [...space.current.values()].filter(({vpn}) => vpn >= from && vpn < from + pages);
    this.unmapped(space, from, pages, now);
    this.unmapped(space, to, pages, now);
    if (mergeable) space.mergeable.add(to, to + pages);
    for (const {vpn, event} of moving) this.add(space, vpn - from + to, event, now);
  }
}

function pagesArg({trace}: CompiledTrace, i: number, k: number): number {
  return Math.ceil(argNumber(trace.events, i, k) / PAGE_BYTES);
}

/** Argument `k` is a negative errno. */
function failed({trace}: CompiledTrace, i: number, k: number): boolean {
  const at = trace.events.argStart[i] + k;
  return trace.events.argHi[at] === 0xffff_ffff && trace.events.argLo[at] >= 2 ** 32 - MAX_ERRNO;
}
