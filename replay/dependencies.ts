// Which operations must be over before an operation may start, for each order, beside its own
// task's earlier ones.
//
//   total     the operation before it in the trace, of whatever task: one at a time, the
//             deterministic reference
//   thread    nothing: only program order, and the forks without which a task does not exist
//   resource  the last operation before it on each resource it uses (ROOT, SOSP '13): address
//             space, kernel address range, swap device, notifier, memory range; `lock_section` and
//             task operations name no resource, because keeping their recorded order would keep the
//             recorded lock's order
//   causal    the operation of the task that woke it, where the recording says who that was; and an
//             exit of the whole process waits for what its other threads did before it (how its
//             leader knew that they were done is in no recording)
//   none      as thread, and wait4 takes any child instead of the recorded one
//
// A wait edge (wait4 returned child C) is not a start condition: under total, resource and causal
// the replayed wait4 asks for that very child and sleeps in the kernel until it is dead; a poll
// that got none gets none. Recorded lock hand-overs are never enforced: they are results of the
// recorded lock, and would bake its cost into the result for another.

import {argNumber} from '../formats/columns.ts';
import {KIND} from '../formats/kinds.ts';
import type {Order} from './options.ts';
import type {CompiledTrace} from './tracks.ts';

/**
 * Start conditions in compressed rows: op i waits for `from[start[i]] .. from[start[i + 1] - 1]`.
 */
export interface Dependencies {
  readonly start: Uint32Array;
  readonly from: Int32Array;
  /** Edges by kind, for the report. */
  readonly counts: Readonly<Record<string, number>>;
}

const CLONE_VFORK = 0x4000;

/**
 * True for operations that may wait for another task's operation: in total order they pass the turn
 * when they start.
 */
export function blocksOnOthers(compiled: CompiledTrace, op: number): boolean {
  const {events} = compiled.trace;
  const i = compiled.opEvent[op];
  const kind = events.kind[i];
  if (kind === KIND.wait4 || kind === KIND.barrier || kind === KIND.sleep) return true;
  return kind === KIND.fork && (argNumber(events, i, 1) & CLONE_VFORK) !== 0;
}

const known = new WeakMap<CompiledTrace, Map<Order, Dependencies>>();

/** The start conditions of every operation under `order`; made once for a trace. */
export function dependenciesOf(compiled: CompiledTrace, order: Order): Dependencies {
  const byOrder = known.get(compiled) ?? new Map<Order, Dependencies>();
  known.set(compiled, byOrder);
  const dependencies = byOrder.get(order) ?? findDependencies(compiled, order);
  byOrder.set(order, dependencies);
  return dependencies;
}

function findDependencies(compiled: CompiledTrace, order: Order): Dependencies {
  const pairs = pairsOf(compiled, order);
  const start = new Uint32Array(compiled.opCount + 1);
  for (const [, to] of pairs) start[to + 1]++;
  for (let op = 0; op < compiled.opCount; op++) start[op + 1] += start[op];
  const from = new Int32Array(pairs.length);
  const fill = start.slice();
  for (const [source, to] of pairs) from[fill[to]++] = source;
  return {start, from, counts: countsOf(compiled, order, pairs.length)};
}

type Pair = readonly [from: number, to: number];

function pairsOf(compiled: CompiledTrace, order: Order): Pair[] {
  if (order === 'total') {
    return Array.from({length: Math.max(0, compiled.opCount - 1)}, (_, i): Pair => [i, i + 1]);
  }
  if (order === 'resource') return resourcePairs(compiled);
  if (order !== 'causal') return [];
  const wakes = compiled.edges.filter(
    (edge) => edge.kind === 'wake' && compiled.opTrack[edge.from] !== compiled.opTrack[edge.to],
  );
  return [...wakes.map((edge): Pair => [edge.from, edge.to]), ...exitPairs(compiled)];
}

/** A group exit after the last operation before it of every other thread of its process. */
function exitPairs(compiled: CompiledTrace): Pair[] {
  const {events} = compiled.trace;
  const lastOf = new Map<number, Map<number, number>>();
  const pairs: Pair[] = [];
  for (let op = 0; op < compiled.opCount; op++) {
    const i = compiled.opEvent[op];
    const kind = events.kind[i];
    const track = compiled.opTrack[op];
    const {tgid} = compiled.tracks[track];
    if (kind === KIND.exit && argNumber(events, i, 0) !== 0) {
      for (const [other, last] of lastOf.get(tgid) ?? []) {
        if (other !== track) pairs.push([last, op]);
      }
      lastOf.delete(tgid);
    } else if (!neverEnded(compiled, op, kind)) {
      const threads = lastOf.get(tgid) ?? new Map<number, number>();
      lastOf.set(tgid, threads.set(track, op));
    }
  }
  return pairs;
}

/** A wait that had not returned when its process was killed. */
function neverEnded(compiled: CompiledTrace, op: number, kind: number): boolean {
  return kind === KIND.wait4 && Number.isNaN(compiled.opDurationNs[op]);
}

function countsOf(compiled: CompiledTrace, order: Order, pairs: number): Record<string, number> {
  const forks = compiled.tracks.filter((track) => track.forkOp >= 0).length;
  const program = compiled.tracks.reduce(
    (sum, track) => sum + Math.max(0, track.ops.length - 1),
    0,
  );
  const waits = compiled.edges.filter((edge) => edge.kind === 'wait').length;
  return {
    program,
    fork: forks,
    wait: order === 'none' || order === 'thread' ? 0 : waits,
    wake: order === 'causal' ? pairs : 0,
    resource: order === 'resource' ? pairs : 0,
    total: order === 'total' ? pairs : 0,
  };
}

function resourcePairs(compiled: CompiledTrace): Pair[] {
  const lastUse = new Map<string, number>();
  const pairs: Pair[] = [];
  for (let op = 0; op < compiled.opCount; op++) {
    const resource = resourceOf(compiled, op);
    if (resource === null) continue;
    const before = lastUse.get(resource);
    if (before !== undefined && compiled.opTrack[before] !== compiled.opTrack[op]) {
      pairs.push([before, op]);
    }
    lastUse.set(resource, op);
  }
  return pairs;
}

const GROUPS: readonly (readonly [first: number, last: number, name: string])[] = [
  [KIND.vmalloc, KIND.vmalloc_touch, 'vmalloc'],
  [KIND.hotplug_add, KIND.hotplug_remove, 'memory'],
  [KIND.set_memory, KIND.vm_unmap_aliases, 'kernel-mapping'],
  [KIND.swapon, KIND.swapoff, 'swap'],
  [KIND.ksm_run, KIND.ksm_run, 'ksm'],
];

/** The resource whose order of use is kept for an operation, null for none. */
function resourceOf(compiled: CompiledTrace, op: number): string | null {
  const {events} = compiled.trace;
  const i = compiled.opEvent[op];
  const kind = events.kind[i];
  if (kind >= KIND.mmap && kind <= KIND.touch) {
    return `mm ${compiled.tracks[compiled.opTrack[op]].tgid}`;
  }
  if (kind >= KIND.notifier_register && kind <= KIND.device_access) {
    return `notifier ${argNumber(events, i, 0)}`;
  }
  for (const [first, last, name] of GROUPS) if (kind >= first && kind <= last) return name;
  return null;
}
