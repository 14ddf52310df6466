// Speed of reading and writing traces. The trace is made up in memory: a mix of faults, rss samples
// and system calls of 64 tasks on 16 cpus, as recorded traces have them (13 bytes and 2.8 arguments
// per event).

import {KIND} from './kinds.ts';
import {loadTrace, readTrace} from './reader.ts';
import {memorySource} from './source.ts';
import {TraceWriter} from './writer.ts';

/** One measurable operation: `fn` handles `perCall` units. */
export interface Bench {
  name: string;
  unit: 'events';
  perCall: number;
  fn(): void;
}

const EVENTS = 1_000_000;
let trace: Uint8Array | undefined;

/** Writes the synthetic trace of `events` events. */
export function syntheticTrace(events: number): Uint8Array {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter((chunk) => chunks.push(chunk), {source: 'bench', clock: 'none'});
  let state = 12345;
  let timeNs = 0;
  for (let i = 0; i < events; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    timeNs += 200 + (state >>> 20);
    const tid = 1000 + ((state >>> 8) & 63);
    const cpu = (state >>> 10) & 15;
    const page = 0x7f0000000000 + ((state >>> 4) & 0xfffff) * 4096;
    const pick = (state >>> 16) & 7;
    if (pick < 3) writer.append(KIND.access, timeNs, tid, cpu, page, 6, 0x7f1200001234);
    else if (pick < 5) writer.append(KIND.rss_stat, timeNs, tid, cpu, state, 1, 1, page & 0xffffff);
    else if (pick === 5) writer.append(KIND.sys_exit, timeNs, tid, cpu, 9, page);
    else if (pick === 6) writer.append(KIND.munmap, timeNs, tid, cpu, page, 4096);
    else writer.append(KIND.sched_switch, timeNs, tid, cpu, tid, 1, 0);
  }
  writer.finish();
  return Buffer.concat(chunks);
}

function encoded(): Uint8Array {
  trace ??= syntheticTrace(EVENTS);
  return trace;
}

function streamAll(): void {
  let events = 0;
  for (const part of readTrace(memorySource(encoded()))) {
    if (part.type === 'block') events += part.events.count;
  }
  if (events !== EVENTS) throw new Error(`read ${events} events, expected ${EVENTS}`);
}

function load(): void {
  const {count} = loadTrace(memorySource(encoded())).events;
  if (count !== EVENTS) throw new Error(`read ${count} events, expected ${EVENTS}`);
}

/** What bin's `bench` verb runs. */
export const benches: Bench[] = [
  {name: 'trace decode, streaming', unit: 'events', perCall: EVENTS, fn: streamAll},
  {name: 'trace load, with hash', unit: 'events', perCall: EVENTS, fn: load},
  {
    name: 'trace write',
    unit: 'events',
    perCall: EVENTS / 4,
    fn: () => {
      syntheticTrace(EVENTS / 4);
    },
  },
];
