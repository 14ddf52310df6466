// What the scenarios of the pgd axis are put together from: processes that only exist, forkers, and
// the kernel-side operations that change the reference page table.

import {KIND} from '../../formats/kinds.ts';
import type {TraceSummary} from '../../formats/writer.ts';
import {PGDIR_BYTES, SECTION_BYTES} from '../kernel_memory.ts';
import {NOMINAL_NS, forkNs} from '../nominal.ts';
import type {Stream} from '../rng.ts';
import {Stage, type Actor, type Step} from '../stage.ts';
import {generatedHeader, type OpenTrace} from '../workload.ts';

/** Steps of a script. */
export type Steps = Generator<Step, void, void>;

/**
 * First top-level slot of the direct map that scenarios add memory to: 8 TiB, above the memory of
 * any shipped machine.
 */
export const FIRST_SLOT = 16;
/** Slots that a 64 TiB direct map has room for. */
export const SLOT_LIMIT = 128;

/** A builder of a scenario's trace from the tasks that it puts on the stage. */
export function sceneOf(
  name: string,
  cpus: number,
  put: (stage: Stage, seed: number) => void,
): (open: OpenTrace, seed: number) => TraceSummary {
  return (open, seed) => {
    const writer = open(generatedHeader(`scenario/${name}`, {}, seed, cpus));
    const stage = new Stage(writer);
    put(stage, seed);
    stage.run();
    return writer.finish();
  };
}

/**
 * Adds one section at the start of top-level slot `slot` of the direct map: a new PGD entry when
 * the slot is empty.
 */
export function hotAdd(self: Actor, slot: number, section = 0): undefined {
  const start = slot * PGDIR_BYTES + section * SECTION_BYTES;
  self.op(KIND.hotplug_add, NOMINAL_NS.hotplugCall, start, SECTION_BYTES, 0);
}

/** Removes what hotAdd added. */
export function hotRemove(self: Actor, slot: number, section = 0): undefined {
  const start = slot * PGDIR_BYTES + section * SECTION_BYTES;
  self.op(KIND.hotplug_remove, NOMINAL_NS.hotplugCall, start, SECTION_BYTES, 0);
}

/** Processes that exist and sleep for the whole trace: they make a walk longer. */
export function sleepers(stage: Stage, count: number): void {
  for (let i = 0; i < count; i++) stage.create({comm: 'sleeper', cpu: 0});
}

/** One child that lives for `lifeNs` off the CPU, so that a PGD it lacks entries in can be seen. */
export function forkSleeper(self: Actor, lifeNs: number): Actor {
  return self.fork(
    function* (child) {
      yield child.sleep(lifeNs);
      yield child.exit();
    },
    forkNs(6, 0),
  );
}

/** Forks without meeting anyone: children live shortly, thinking times are drawn. */
export function* forkFreely(self: Actor, forks: number, meanNs: number, random: Stream): Steps {
  yield self.pin();
  for (let i = 0; i < forks; i++) {
    yield self.think(random.timeNs(meanNs, 'exponential'));
    const child = forkSleeper(self, random.timeNs(meanNs, 'exponential'));
    yield;
    yield self.wait(child);
  }
  yield self.exit();
}

/**
 * `count` times over [0, spreadNs), one in each of `count` equal strata, in random order, dealt to
 * `hands` hands: a window that is wider than spreadNs / count is met by somebody on every seed.
 */
export function dealStrata(
  count: number,
  spreadNs: number,
  hands: number,
  random: Stream,
): number[][] {
  const width = spreadNs / count;
  const times = random
    .permutation(count)
    .map((stratum) => Math.floor((stratum + random.float()) * width));
  return Array.from({length: hands}, (_, hand) => times.filter((_ns, i) => i % hands === hand));
}
