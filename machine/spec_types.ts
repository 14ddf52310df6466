// The shape of a machine file and the sockets' link graph. No checks here (spec.ts) and no tables
// (topology.ts). Costs are ns in files and ticks in the machine: the file's `costsNs.invlpg` is the
// topology's `invlpgTicks`.

/** A value with its origin: exactly one of `source` and `assumption` is present. */
export interface Sourced<T> {
  readonly value: T;
  /** Where the value was measured or published. */
  readonly source?: string;
  /** Why the value is believed although nobody measured it for this machine. */
  readonly assumption?: string;
}

/**
 * How sockets are wired: every pair, a ring, or the glueless 8-socket graph with 3 links per
 * socket.
 */
export const LINK_KINDS = ['full', 'ring', 'twisted-hypercube'] as const;
export type LinkKind = (typeof LINK_KINDS)[number];

/**
 * Every cost of a machine file, in ns. Line transfers: `l1Hit` load of an owned line, `atomicLocal`
 * locked RMW on an owned line, `smt` .. `twoHop` one line moved from the last writer by distance.
 * `sameSocketRemoteHome` is the move between two L3s of one socket when the line's home memory is
 * on another socket. `syscallEntry` and `pageFaultEntry` are entry plus exit of an empty system
 * call or fault. `ipiSend` is paid by the sender for each target, then the target sees the
 * interrupt `ipiDeliver` later and spends `ipiHandlerEntry` before the handler's first line.
 */
export const COST_KEYS = [
  'l1Hit',
  'atomicLocal',
  'smt',
  'sameL3',
  'sameSocket',
  'sameSocketRemoteHome',
  'crossSocket',
  'twoHop',
  'memoryLocal',
  'memoryRemote',
  'memoryTwoHop',
  'ipiSend',
  'ipiDeliver',
  'ipiHandlerEntry',
  'invlpg',
  'fullTlbFlush',
  'invlpgb',
  'tlbsync',
  'contextSwitch',
  'storeBufferDrain',
  'syscallEntry',
  'pageFaultEntry',
] as const;
export type CostKey = (typeof COST_KEYS)[number];

/** A machine as its file states it; see docs/machines.md. */
export interface MachineSpec {
  readonly name: string;
  readonly description: string;
  readonly layout: {
    readonly sockets: Sourced<number>;
    readonly l3PerSocket: Sourced<number>;
    readonly coresPerL3: Sourced<number>;
    readonly threadsPerCore: Sourced<number>;
    /** Memory (NUMA) nodes per socket. */
    readonly nodesPerSocket: Sourced<number>;
    readonly nodeMemoryGib: Sourced<number>;
    readonly ghz: Sourced<number>;
    readonly links: Sourced<LinkKind>;
  };
  readonly costsNs: Partial<Readonly<Record<CostKey, Sourced<number>>>>;
  readonly model: {
    /** A thread whose sibling is busy takes this many times as long. */
    readonly smtSlowdown: Sourced<number>;
    /** True: readers of one line held elsewhere are served one after the other. */
    readonly serialReads: Sourced<boolean>;
    /** Node whose memory holds a line unless the model places it elsewhere. */
    readonly homeNode: Sourced<number>;
    /** Stores that one CPU can have waiting to become visible. */
    readonly storeBufferEntries: Sourced<number>;
    /** The kernel's straight-line code takes this many times its base cost; 1 when left out. */
    readonly kernelWork?: Sourced<number>;
    /** The same for what fork, exec and exit do besides page faults and unmapping. */
    readonly forkWork?: Sourced<number>;
  };
}

/**
 * Neighbours of a socket. The 8-socket graph is a 3-cube with the edges 0-1 and 2-3 crossed:
 * diameter 2, not 3.
 */
function linked(kind: LinkKind, sockets: number, a: number, b: number): boolean {
  if (kind === 'full') return true;
  if (kind === 'ring') return (a + 1) % sockets === b || (b + 1) % sockets === a;
  const low = Math.min(a, b);
  const high = Math.max(a, b);
  if (low === 0 || low === 2) {
    if (high === low + 1) return false;
  }
  if ((low === 0 && high === 3) || (low === 1 && high === 2)) return true;
  const differing = a ^ b;
  return (differing & (differing - 1)) === 0;
}

/**
 * Links between two sockets on the shortest way, `sockets` x `sockets`, row by row; 0 on the
 * diagonal.
 */
export function socketHops(kind: LinkKind, sockets: number): Uint8Array {
  const hops = new Uint8Array(sockets * sockets).fill(255);
  for (let from = 0; from < sockets; from++) {
    const row = from * sockets;
    const queue = [from];
    hops[row + from] = 0;
    for (const at of queue) {
      for (let to = 0; to < sockets; to++) {
        if (to === at || hops[row + to] !== 255 || !linked(kind, sockets, at, to)) continue;
        hops[row + to] = hops[row + at] + 1;
        queue.push(to);
      }
    }
  }
  return hops;
}
