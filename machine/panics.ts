// The ways in which a simulation refuses to go on. Each says what it saw and what to do.

/** A run was stopped by one of its bounds: events, simulated time or queue length. */
export class BoundReached extends Error {
  readonly exitCode = 1;
  constructor(what: string, limit: number, flag: string) {
    super(`bound reached: ${what} is limited to ${limit}; raise it with ${flag}`);
    this.name = 'BoundReached';
  }
}

/** Nothing is left to happen, yet processes still wait. The message holds the wait graph. */
export class Deadlock extends Error {
  readonly exitCode = 1;
  readonly waitGraph: readonly string[];
  constructor(nowNs: number, waitGraph: readonly string[]) {
    super(`everyone sleeps for ever at ${nowNs} ns:\n  ${waitGraph.join('\n  ')}`);
    this.name = 'Deadlock';
    this.waitGraph = waitGraph;
  }
}
