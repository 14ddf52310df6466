// The text of tracefs' `trace` file and of `trace-cmd report`: `comm-pid [(tgid)] [cpu] [flags]
// seconds.fraction: event: payload`. The comm may hold dashes and spaces. System calls of tracefs
// come as `sys_mmap(addr: 0, ...)` and `sys_mmap -> 0x7f..`, those of trace-cmd as `sys_enter_mmap:
// ...`.

import {fractionNanos, type LineKind, type RawEvent, type SourceNotes} from './raw.ts';

const HEAD =
  /^\s*(.+?)-(\d+)\s+(?:\(\s*([-\d]+)\)\s+)?\[(\d+)\]\s+(?:[^\s:]{4,8}\s+)?(\d+)\.(\d{6,9}):\s+/;
const CALL = /sys_(\w+)(\(| -> )/y;
const EVENT = /(?:([^\s:]+):)?([^\s:(]+):(?=\s|$)/y;
const LOST = /^CPU:(\d+) \[(?:LOST (\d+) EVENTS|(\d+) EVENTS DROPPED)\]/;
const OVERWRITTEN = /^# entries-in-buffer\/entries-written: (\d+)\/(\d+)\s+#P:(\d+)/;
const METADATA = /^(#|\s*$|\s*=> |version = |cpus=|CPU \d+ is empty|trace-cmd|\s*buffer )/;

function notes(line: string, into: SourceNotes): void {
  const buffer = OVERWRITTEN.exec(line);
  if (buffer !== null) {
    into.overwritten += Math.max(0, Number(buffer[2]) - Number(buffer[1]));
    into.cpus = Math.max(into.cpus, Number(buffer[3]));
  } else if (line.startsWith('cpus=')) into.cpus = Number(line.slice(5)) || into.cpus;
}

function otherLine(line: string, out: RawEvent, into: SourceNotes): LineKind {
  const lost = LOST.exec(line);
  if (lost !== null) {
    out.name = 'lost_events';
    out.comm = '';
    out.tid = 0;
    out.tgid = 0;
    out.cpu = Number(lost[1]);
    out.payload = `lost ${lost[2] ?? lost[3]}`;
    return 'event';
  }
  if (!METADATA.test(line)) return 'malformed';
  notes(line, into);
  return 'metadata';
}

/**
 * Takes one line of a tracefs or trace-cmd text apart. A line about lost events keeps the time of
 * the one before.
 */
export function parseFtraceLine(line: string, out: RawEvent, into: SourceNotes): LineKind {
  const head = HEAD.exec(line);
  if (head === null) return otherLine(line, out, into);
  const at = head[0].length;
  CALL.lastIndex = at;
  const call = CALL.exec(line);
  if (call !== null) {
    const enters = call[2] === '(';
    const end = enters && line.endsWith(')') ? line.length - 1 : line.length;
    out.name = `sys_${enters ? 'enter' : 'exit'}_${call[1]}`;
    out.payload = line.slice(CALL.lastIndex, end);
  } else {
    EVENT.lastIndex = at;
    const event = EVENT.exec(line);
    if (event === null && line.length === at) return 'malformed';
    out.name = event === null ? 'function' : event[2]; // the function tracer names no event
    out.payload = event === null ? line.slice(at) : line.slice(EVENT.lastIndex).trimStart();
  }
  out.comm = head[1];
  out.tid = Number(head[2]);
  out.tgid = /^\d+$/.test(head[3] ?? '') ? Number(head[3]) : -1;
  out.cpu = Number(head[4]);
  out.seconds = Number(head[5]);
  out.nanos = fractionNanos(head[6]);
  return 'event';
}
