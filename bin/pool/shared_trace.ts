// A trace that several threads read at once: its columns lie in shared memory, the rest (header,
// tables, footer) is small and copied. Decoded once, whatever it came from, standard input
// included. Sharing costs one more copy of the columns, 19 bytes an event and 8 an argument, for
// any number of threads.

import type {EventColumns} from '../../formats/columns.ts';
import type {LoadedTrace} from '../../formats/reader.ts';

type Column = Float64Array | Int32Array | Uint16Array | Uint8Array | Uint32Array;

function shared<T extends Column>(column: T): T {
  const make = column.constructor as new (buffer: SharedArrayBuffer) => T;
  const copy = new make(new SharedArrayBuffer(column.byteLength));
  copy.set(column);
  return copy;
}

/** The same trace with its columns in shared memory. */
export function sharedTrace(trace: LoadedTrace): LoadedTrace {
  const {events} = trace;
  const columns: EventColumns = {
    count: events.count,
    timeNs: shared(events.timeNs),
    tid: shared(events.tid),
    cpu: shared(events.cpu),
    kind: shared(events.kind),
    argStart: shared(events.argStart),
    argLo: shared(events.argLo),
    argHi: shared(events.argHi),
  };
  return {...trace, events: columns};
}
