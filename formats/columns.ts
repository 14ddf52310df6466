// Events in memory: one typed array per column. Event i is timeNs[i], tid[i], cpu[i], kind[i] and
// the arguments argStart[i] .. argStart[i + 1] - 1 of the pair argLo/argHi, each an exact unsigned
// 64-bit number in two halves. An event costs 19 bytes and 8 more per argument. Arrays may be
// longer than `count`; what lies beyond is undefined.

/**
 * A run of events as columns. `timeNs` is relative to the header's `baseNs` and need not be in
 * order.
 */
export interface EventColumns {
  count: number;
  timeNs: Float64Array;
  tid: Int32Array;
  cpu: Uint16Array;
  kind: Uint8Array;
  /** `count + 1` entries: where the arguments of each event start. */
  argStart: Uint32Array;
  argLo: Uint32Array;
  argHi: Uint32Array;
}

const TWO_32 = 2 ** 32;

/** Columns with room for `events` events and `args` arguments, holding none. */
export function emptyColumns(events: number, args: number): EventColumns {
  return {
    count: 0,
    timeNs: new Float64Array(events),
    tid: new Int32Array(events),
    cpu: new Uint16Array(events),
    kind: new Uint8Array(events),
    argStart: new Uint32Array(events + 1),
    argLo: new Uint32Array(args),
    argHi: new Uint32Array(args),
  };
}

/**
 * Argument `k` of event `i` as a number. Throws RangeError when it is not exact in a double (2^53
 * and above).
 */
export function argNumber(cols: EventColumns, i: number, k: number): number {
  const at = cols.argStart[i] + k;
  const hi = cols.argHi[at];
  if (hi >= 0x200000) {
    throw new RangeError(
      `argument ${k} of event ${i} is ${argBigInt(cols, i, k)}: too large for a number`,
    );
  }
  return hi * TWO_32 + cols.argLo[at];
}

/** Argument `k` of event `i`, exact, 0 .. 2^64-1. */
export function argBigInt(cols: EventColumns, i: number, k: number): bigint {
  const at = cols.argStart[i] + k;
  return (BigInt(cols.argHi[at]) << 32n) | BigInt(cols.argLo[at]);
}

/**
 * Argument `k` of event `i` read as two's complement: a syscall's result, a fd. Throws RangeError
 * beyond 2^53.
 */
export function argSigned(cols: EventColumns, i: number, k: number): number {
  const at = cols.argStart[i] + k;
  const value = (cols.argHi[at] | 0) * TWO_32 + cols.argLo[at];
  if (!Number.isSafeInteger(value)) {
    throw new RangeError(`argument ${k} of event ${i} is ${argBigInt(cols, i, k)}: not exact`);
  }
  return value;
}

function grown<T extends Float64Array | Int32Array | Uint8Array | Uint16Array | Uint32Array>(
  old: T,
  length: number,
): T {
  const bigger = new (old.constructor as new (length: number) => T)(length);
  bigger.set(old);
  return bigger;
}

/** Makes room for `events` more events and `args` more arguments, keeping what is there. */
export function reserve(cols: EventColumns, events: number, args: number): void {
  const needEvents = cols.count + events;
  if (needEvents > cols.kind.length) {
    const length = Math.max(needEvents, cols.kind.length * 2);
    cols.timeNs = grown(cols.timeNs, length);
    cols.tid = grown(cols.tid, length);
    cols.cpu = grown(cols.cpu, length);
    cols.kind = grown(cols.kind, length);
    cols.argStart = grown(cols.argStart, length + 1);
  }
  const needArgs = cols.argStart[cols.count] + args;
  if (needArgs > cols.argLo.length) {
    const length = Math.max(needArgs, cols.argLo.length * 2);
    cols.argLo = grown(cols.argLo, length);
    cols.argHi = grown(cols.argHi, length);
  }
}

/** The same events in arrays of exactly the needed length (views, nothing is copied). */
export function trimmed(cols: EventColumns): EventColumns {
  const {count} = cols;
  const args = cols.argStart[count];
  return {
    count,
    timeNs: cols.timeNs.subarray(0, count),
    tid: cols.tid.subarray(0, count),
    cpu: cols.cpu.subarray(0, count),
    kind: cols.kind.subarray(0, count),
    argStart: cols.argStart.subarray(0, count + 1),
    argLo: cols.argLo.subarray(0, args),
    argHi: cols.argHi.subarray(0, args),
  };
}
