// A trace as text, one event per line, for grep and for people: time in ns after the trace's base,
// tid, cpu, kind, arguments by name. Values of 65,536 and more are hex; what looks like a small
// negative number is printed as one.

import {argBigInt, type EventColumns} from './columns.ts';
import {KIND_BY_CODE} from './kinds.ts';

const SMALL_NEGATIVE = 2n ** 64n - 4096n;

function value(name: string, raw: bigint, strings: readonly string[]): string {
  if (name.endsWith('_str')) return JSON.stringify(strings[Number(raw)] ?? `string ${raw}`);
  if (raw >= SMALL_NEGATIVE) return BigInt.asIntN(64, raw).toString();
  return raw < 65536n ? raw.toString() : `0x${raw.toString(16)}`;
}

/** One line for event `i`, without its newline. */
export function dumpEvent(events: EventColumns, i: number, strings: readonly string[]): string {
  const spec = KIND_BY_CODE[events.kind[i]];
  const args = (spec?.args ?? []).map((name, k) => {
    return `${name}=${value(name, argBigInt(events, i, k), strings)}`;
  });
  const head = [events.timeNs[i], events.tid[i], events.cpu[i], spec?.name ?? events.kind[i]];
  return `${head.join(' ')}${args.length > 0 ? ` ${args.join(' ')}` : ''}`;
}

/** All events, in file order. */
export function* dumpEvents(events: EventColumns, strings: readonly string[]): Generator<string> {
  for (let i = 0; i < events.count; i++) yield dumpEvent(events, i, strings);
}
