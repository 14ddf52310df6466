// The CPUs that spin on one cache line. Every write takes their copies away and each of them
// fetches the line again: the storm that makes a lock word with many spinners slow for everybody,
// its holder included.
//
// A storm is computed when somebody next looks at the line, not when it happens: `staleFrom` is
// when the last write was done, and until then nobody can tell whether the copies are back. Cost
// O(sockets + CPUs/32), however many poll.

import {CpuMask} from './cpumask.ts';
import type {Topology} from './topology.ts';

/** Who polls a line, by CPU and counted by socket. */
export class LinePollers {
  readonly mask: CpuMask;
  readonly bySocket: Int32Array;
  count = 0;
  /** Tick at which the copies were lost to a finished write; -1 while the pollers have them. */
  staleFrom = -1;
  private readonly held: Int32Array;
  /** A CPU in each socket, to ask the topology about sockets. */
  private readonly memberOf: Int32Array;

  constructor(readonly topology: Topology) {
    this.mask = new CpuMask(topology.cpuCount);
    this.bySocket = new Int32Array(topology.socketCount);
    this.held = new Int32Array(topology.socketCount);
    this.memberOf = new Int32Array(topology.socketCount);
    for (let cpu = topology.cpuCount - 1; cpu >= 0; cpu--) {
      this.memberOf[topology.socketOf[cpu]] = cpu;
    }
  }

  add(cpu: number): void {
    if (this.mask.has(cpu)) return;
    this.mask.add(cpu);
    this.bySocket[this.topology.socketOf[cpu]]++;
    this.count++;
  }

  delete(cpu: number): void {
    if (!this.mask.has(cpu)) return;
    this.mask.delete(cpu);
    this.bySocket[this.topology.socketOf[cpu]]--;
    this.count--;
  }

  /**
   * For how long after its write `writer` still has the line to itself: a request has to reach it
   * first, which is half of a transfer (request and answer) from the nearest poller.
   */
  graceTicks(writer: number, homeNode: number): number {
    let nearest = Infinity;
    for (let socket = 0; socket < this.bySocket.length; socket++) {
      if (this.bySocket[socket] === 0) continue;
      nearest = Math.min(nearest, this.topology.socketTransferTicks(socket, writer, homeNode));
    }
    return Math.floor(nearest / 2);
  }

  /**
   * Ticks in which every poller without a copy gets one: one after the other if `serial`, else the
   * slowest. The first of a socket gets it from `owner` unless the socket has a copy, the others
   * inside the socket.
   */
  stormTicks(
    sharers: CpuMask,
    holdersBySocket: Int32Array,
    owner: number,
    home: number,
    serial: boolean,
  ): number {
    this.countHeld(sharers);
    const {topology, bySocket, held, memberOf} = this;
    let total = 0;
    let slowest = 0;
    for (let socket = 0; socket < bySocket.length; socket++) {
      const missing = bySocket[socket] - held[socket];
      if (missing <= 0) continue;
      const member = memberOf[socket];
      const inside = topology.socketTransferTicks(socket, member, home);
      const from = holdersBySocket[socket] > 0 || owner < 0 ? socket : topology.socketOf[owner];
      const first = topology.socketTransferTicks(from, member, home);
      total += first + (missing - 1) * inside;
      slowest = Math.max(slowest, first, missing > 1 ? inside : 0);
    }
    return serial ? total : slowest;
  }

  /**
   * Makes every poller a sharer and corrects the counts. Returns the number of holders afterwards.
   */
  join(sharers: CpuMask, holdersBySocket: Int32Array): number {
    this.countHeld(sharers);
    let holders = 0;
    for (let socket = 0; socket < holdersBySocket.length; socket++) {
      holdersBySocket[socket] += this.bySocket[socket] - this.held[socket];
      holders += holdersBySocket[socket];
    }
    for (let w = 0; w < sharers.words.length; w++) sharers.words[w] |= this.mask.words[w];
    return holders;
  }

  /** Counts, by socket, the pollers that are among the sharers. */
  private countHeld(sharers: CpuMask): void {
    this.held.fill(0);
    for (let w = 0; w < sharers.words.length; w++) {
      for (let word = sharers.words[w] & this.mask.words[w]; word !== 0; word &= word - 1) {
        this.held[this.topology.socketOf[w * 32 + 31 - Math.clz32(word & -word)]]++;
      }
    }
  }
}
