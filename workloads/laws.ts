// Laws that every generated trace keeps, checked on the decoded file. Each law returns the
// violations it found as one line each, so a test shows all of them at once. Used by the tests of
// this folder on workloads and on the catalogue.

import {argNumber, argSigned, type EventColumns} from '../formats/columns.ts';
import {KIND, KIND_BY_CODE} from '../formats/kinds.ts';
import type {LoadedTrace} from '../formats/reader.ts';

const CLONE_VM = 0x100;
const CLONE_THREAD = 0x10000;

/**
 * One decoded event with its arguments as numbers. Addresses of the kernel half are rounded: do not
 * compare them.
 */
export interface Event {
  readonly i: number;
  readonly kind: number;
  readonly name: string;
  readonly timeNs: number;
  readonly tid: number;
  readonly cpu: number;
  readonly args: readonly number[];
}

function argument(events: EventColumns, i: number, k: number): number {
  const at = events.argStart[i] + k;
  if (events.argHi[at] === 0xffffffff) return argSigned(events, i, k);
  if (events.argHi[at] < 0x200000) return argNumber(events, i, k);
  return events.argHi[at] * 2 ** 32 + events.argLo[at];
}

/** The events of a trace, in file order. */
export function eventsOf(trace: LoadedTrace): Event[] {
  const {events} = trace;
  return Array.from({length: events.count}, (_, i) => {
    const kind = events.kind[i];
    const count = events.argStart[i + 1] - events.argStart[i];
    return {
      i,
      kind,
      name: KIND_BY_CODE[kind]?.name ?? '',
      timeNs: events.timeNs[i],
      tid: events.tid[i],
      cpu: events.cpu[i],
      args: Array.from({length: count}, (_unused, k) => argument(events, i, k)),
    };
  });
}

/** Order of time; CPUs and pins below the header's count. */
function placement(trace: LoadedTrace, events: readonly Event[]): string[] {
  const {cpus} = trace.header.machine;
  const wrong: string[] = [];
  let lastNs = 0;
  for (const {i, kind, timeNs, cpu, args} of events) {
    if (timeNs < lastNs) wrong.push(`event ${i} is earlier than the one before`);
    lastNs = timeNs;
    if (cpu >= cpus) wrong.push(`event ${i} is on CPU ${cpu} of ${cpus}`);
    if (kind === KIND.sched_setaffinity && args[0] >= cpus) wrong.push(`event ${i} pins too high`);
  }
  return wrong;
}

/** Who was forked by whom, and who ended. */
function lives(trace: LoadedTrace, events: readonly Event[]): string[] {
  const wrong: string[] = [];
  const table = new Map(trace.tasks.map((task) => [task.tid, task]));
  const forked = new Map<number, Event>();
  const ended = new Set<number>();
  const acted = new Set<number>();
  for (const event of events) {
    const {i, kind, tid, timeNs, args} = event;
    if (!table.has(tid)) wrong.push(`event ${i}: tid ${tid} is not in the task table`);
    if (ended.has(tid)) wrong.push(`event ${i}: tid ${tid} acts after its exit`);
    const birth = forked.get(tid);
    if (birth !== undefined && !acted.has(tid) && timeNs < birth.timeNs) {
      wrong.push(`event ${i}: tid ${tid} acts before its fork`);
    }
    acted.add(tid);
    if (kind === KIND.exit) ended.add(tid);
    if (kind !== KIND.fork) continue;
    const [child, flags, tgid] = args;
    const task = table.get(child);
    if (forked.has(child) || acted.has(child)) wrong.push(`event ${i}: tid ${child} existed`);
    if (task?.tgid !== tgid || task.parentTid !== tid) wrong.push(`event ${i}: task table differs`);
    const parent = table.get(tid);
    if ((flags & CLONE_THREAD) !== 0 ? tgid !== parent?.tgid : tgid !== child) {
      wrong.push(`event ${i}: thread group ${tgid} of tid ${child}`);
    }
    forked.set(child, event);
  }
  for (const tid of [...forked.keys(), ...acted]) {
    if (!ended.has(tid)) wrong.push(`tid ${tid} has no exit`);
  }
  return wrong;
}

/** Each blocking wait for a child names a child of that task, once, that does exit. */
function waits(events: readonly Event[]): string[] {
  const wrong: string[] = [];
  const parentOf = new Map<number, number>();
  const waited = new Set<number>();
  let anyWaits = 0;
  let processes = 0;
  for (const {i, kind, tid, args} of events) {
    if (kind === KIND.fork && (args[1] & CLONE_THREAD) === 0) {
      parentOf.set(args[0], tid);
      processes++;
    }
    if (kind !== KIND.wait4) continue;
    if (args[0] < 0) {
      if (args[1] === 0) anyWaits++;
      continue;
    }
    if (parentOf.get(args[0]) !== tid) wrong.push(`event ${i}: tid ${args[0]} is no child`);
    if (waited.has(args[0])) wrong.push(`event ${i}: tid ${args[0]} was waited for before`);
    waited.add(args[0]);
  }
  if (waited.size + anyWaits > processes) wrong.push('more waits than children');
  return wrong;
}

/** Parties of a barrier agree, and the last round of each is complete. */
function barriers(events: readonly Event[]): string[] {
  const wrong: string[] = [];
  const parties = new Map<number, number>();
  const arrivals = new Map<number, number>();
  for (const {i, kind, args} of events) {
    if (kind !== KIND.barrier) continue;
    const [id, count] = args;
    if ((parties.get(id) ?? count) !== count) wrong.push(`event ${i}: barrier ${id} changes`);
    parties.set(id, count);
    arrivals.set(id, (arrivals.get(id) ?? 0) + 1);
  }
  for (const [id, count] of arrivals) {
    if (count % (parties.get(id) ?? 1) !== 0) wrong.push(`barrier ${id}: ${count} arrivals`);
  }
  return wrong;
}

type Span = [from: number, to: number];

/** Takes [from, to) out of the areas. */
function unmapSpan(space: readonly Span[], from: number, to: number): Span[] {
  return space.flatMap(([a, b]): Span[] => {
    const below: Span = [a, Math.min(b, from)];
    const above: Span = [Math.max(a, to), b];
    return [below, above].filter((span) => span[0] < span[1]);
  });
}

/** Does one area, or several without a gap, cover [from, to)? */
function covers(space: readonly Span[], from: number, to: number): boolean {
  let at = from;
  for (const [a, b] of [...space].sort((one, other) => one[0] - other[0])) {
    if (a <= at && b > at) at = b;
  }
  return at >= to;
}

/** What a mapping operation does to the areas; `null` when it maps what is mapped already. */
function remapped(space: Span[], {kind, args}: Event): Span[] | null {
  if (kind === KIND.munmap) return unmapSpan(space, args[0], args[0] + args[1]);
  const from = kind === KIND.mmap ? args[6] : args[0];
  const to = from + args[1];
  const fixed = kind === KIND.mmap && (args[3] & MAP_FIXED) !== 0;
  const left = unmapSpan(space, from, to);
  const overlaps = space.some(([a, b]) => from < b && a < to);
  left.push([from, to]);
  return overlaps && !fixed ? null : left;
}
const MAP_FIXED = 0x10;

/** Every touch lies in an area of its address space; fork copies the areas, exec drops them. */
function touches(trace: LoadedTrace, events: readonly Event[]): string[] {
  const wrong: string[] = [];
  const tgids = new Map(trace.tasks.map((task) => [task.tid, task.tgid]));
  const spaces = new Map<number, {spans: Span[]}>();
  for (const event of events) {
    const {i, kind, tid, args} = event;
    const tgid = tgids.get(tid) ?? tid;
    const space = spaces.get(tgid) ?? {spans: []};
    spaces.set(tgid, space);
    if (kind === KIND.fork) {
      const shared = (args[1] & CLONE_VM) !== 0;
      spaces.set(args[2], shared ? space : {spans: [...space.spans]});
    }
    if (kind === KIND.exec) spaces.set(tgid, {spans: []});
    if (kind === KIND.map || kind === KIND.mmap || kind === KIND.munmap) {
      const after = remapped(space.spans, event);
      if (after === null) wrong.push(`event ${i}: overlap`);
      else space.spans = after;
    }
    if (kind !== KIND.touch) continue;
    const end = args[0] + ((args[1] - 1) * args[2] + 1) * trace.header.pageSize;
    if (!covers(space.spans, args[0], end)) wrong.push(`event ${i}: touches what is not mapped`);
  }
  return wrong;
}

/**
 * vfree names a live area, areas are disjoint; hotplug_remove names added memory. Exact: works on
 * halves.
 */
function kernelAreas(trace: LoadedTrace): string[] {
  const wrong: string[] = [];
  const {events} = trace;
  const live = new Map<string, string>();
  const text = (i: number, k: number): string => {
    const at = events.argStart[i] + k;
    return `${events.argHi[at]}:${events.argLo[at]}`;
  };
  for (let i = 0; i < events.count; i++) {
    const kind = events.kind[i];
    const adds = kind === KIND.vmalloc || kind === KIND.hotplug_add || kind === KIND.efi_map;
    const takes = kind === KIND.vfree || kind === KIND.hotplug_remove || kind === KIND.efi_unmap;
    if (!adds && !takes) continue;
    const space =
      kind === KIND.vmalloc || kind === KIND.vfree ? 'v' : kind >= KIND.efi_map ? 'e' : 'h';
    const key = space + text(i, 0);
    if (adds && live.has(key)) wrong.push(`event ${i}: ${key} exists`);
    if (takes && live.get(key) !== text(i, 1)) wrong.push(`event ${i}: ${key} does not exist`);
    if (adds) live.set(key, text(i, 1));
    else live.delete(key);
  }
  return wrong;
}

/** Every violation of every law in a trace, one line each; empty for a good one. */
export function lawViolations(trace: LoadedTrace): string[] {
  const events = eventsOf(trace);
  return [
    ...placement(trace, events),
    ...lives(trace, events),
    ...waits(events),
    ...barriers(events),
    ...touches(trace, events),
    ...kernelAreas(trace),
  ];
}
