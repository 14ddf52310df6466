// `perf script` text: `comm pid/tid [cpu] seconds.fraction: [period] group:event: payload`,
// side-band records (PERF_RECORD_*) in the same shape, indented stack lines in between. A comm may
// hold spaces, digits and slashes ("CPU 0/KVM"), so the line is anchored on the time, not on the
// first blank.

import {fractionNanos, type LineKind, type RawEvent} from './raw.ts';

const HEAD = /^\s*(.*?)\s+(-?\d+)(?:\/(-?\d+))?\s+(?:\[(\d+)\]\s+)?(\d+)\.(\d{6,9}):\s+(?:\d+\s+)?/;
const EVENT = /(PERF_RECORD_\w+)|(?:([^\s:]+):)?([^\s:]+):(?=\s|$)/y;
/** Modifiers of a hardware event, "cycles:u:", that look like the name after a group. */
const MODIFIER = /^[ukhGHpPISDWe]{1,4}$/;
const STACK = /^\s+[0-9a-f]+\s/;

/** Takes one line of `perf script` text apart. */
export function parsePerfLine(line: string, out: RawEvent): LineKind {
  const head = HEAD.exec(line);
  if (head === null) {
    const other = line.trim() === '' || line.startsWith('#') || STACK.test(line);
    return other ? 'metadata' : 'malformed';
  }
  EVENT.lastIndex = head[0].length;
  const event = EVENT.exec(line);
  if (event === null) return 'malformed';
  out.comm = head[1];
  const [, , pid, tid, cpu, seconds, fraction] = head;
  out.tid = Number(tid ?? pid);
  out.tgid = tid === undefined ? -1 : Number(pid);
  out.cpu = cpu === undefined ? 0 : Number(cpu);
  out.seconds = Number(seconds);
  out.nanos = fractionNanos(fraction);
  out.name = event[1] ?? (MODIFIER.test(event[3]) && event[2] ? event[2] : event[3]);
  out.payload = line.slice(EVENT.lastIndex);
  if (event[1] === undefined) out.payload = out.payload.trimStart();
  out.preamble = event[1] !== undefined && out.seconds === 0 && out.nanos === 0;
  return 'event';
}
