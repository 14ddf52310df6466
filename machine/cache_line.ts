// A cache line with owner and sharers, as far as its cost goes: who must be asked, how far away,
// and who is in front.
//
// States: modified or exclusive in `owner` (one holder), shared by several, or only in memory (no
// holder). Most lines go from one owner to the next: then `owner` says all, and the sets of holders
// are filled in when the line becomes shared. A miss costs the transfer from the nearest holder
// that can supply it, a write the farthest holder that must be invalidated. Transfers of one line
// are served one after the other (`busyUntil`): that queue is what makes a contended line slow.
// Costs come from core-to-core matrices, so a miss includes the atomic operation that was measured
// with it. CPUs that spin on a line poll it: each fetches it again after every write, before the
// next access of anyone else. Everything is O(sockets). Lines of bulk objects (one per task, mm or
// PGD) are in LineArena.

import type {Cpu} from './cpu.ts';
import {CpuMask} from './cpumask.ts';
import {LinePollers} from './line_pollers.ts';
import type {Topology} from './topology.ts';

/** Who shares a line, by CPU and counted by socket. */
class Sharers {
  readonly mask: CpuMask;
  readonly bySocket: Int32Array;

  constructor({cpuCount, socketCount}: Topology) {
    this.mask = new CpuMask(cpuCount);
    this.bySocket = new Int32Array(socketCount);
  }
}

/** One 64-byte line of memory. */
export class CacheLine {
  /** The CPU that wrote last, -1 when only memory has it. */
  owner = -1;
  /** First tick at which the line can serve another transfer. */
  busyUntil = 0;
  transfers = 0;
  /** `owner` is the only holder: nobody is in `sharers` then. */
  private owned = false;
  /** Made when the line is first shared: the lines of most objects never are. */
  private sharers: Sharers | null = null;
  private holders = 0;
  private pollers: LinePollers | null = null;
  /**
   * The CPU that has the line to itself, nobody polling it: its accesses hit without a further
   * look; else -1.
   */
  private exclusive = -1;

  constructor(
    readonly name: string,
    readonly topology: Topology,
    readonly homeNode: number,
  ) {}

  /** Ticks until `cpu` has read the line, starting at `now`. */
  read(cpu: Cpu, now: number): number {
    if (this.holds(cpu.id)) return this.topology.l1HitTicks;
    if (this.pollers !== null) this.letPollersFetch(cpu.id, now);
    return this.fetch(cpu, now);
  }

  /**
   * Ticks until `cpu`, which polls, has the line again after a write done at `now`, ahead of the
   * other pollers.
   */
  fetch(cpu: Cpu, now: number): number {
    if (this.holds(cpu.id)) return this.topology.l1HitTicks;
    this.countHolders();
    const start = this.topology.serialReads ? Math.max(now, this.busyUntil) : now;
    const done = start + this.supplyTicks(cpu.id);
    if (this.topology.serialReads) this.busyUntil = done;
    this.transfers++;
    this.addHolder(cpu.id);
    this.exclusive = -1;
    return done - now;
  }

  /** Ticks until a plain store of `cpu` owns the line. */
  write(cpu: Cpu, now: number): number {
    if (this.exclusive === cpu.id) return this.topology.l1HitTicks;
    return this.own(cpu.id, now, this.topology.l1HitTicks);
  }

  /** Ticks until a locked read-modify-write of `cpu` is done. */
  rmw(cpu: Cpu, now: number): number {
    if (this.exclusive === cpu.id) return this.topology.atomicLocalTicks;
    return this.own(cpu.id, now, this.topology.atomicLocalTicks);
  }

  /** `cpu` has the line to itself and nobody polls it: its reads and writes hit. */
  isOwn(cpu: number): boolean {
    return this.exclusive === cpu;
  }

  /** `cpu`, which has just accessed the line, starts to spin on it. */
  poll(cpu: number): void {
    this.pollers ??= new LinePollers(this.topology);
    this.pollers.add(cpu);
    this.exclusive = -1;
  }

  /** `cpu` no longer spins on the line. */
  unpoll(cpu: number): void {
    this.pollers?.delete(cpu);
  }

  /** Number of CPUs that spin on the line. */
  get pollerCount(): number {
    return this.pollers === null ? 0 : this.pollers.count;
  }

  /**
   * Lets every poller that lost its copy fetch the line, from `notBefore` on. `serial`: one after
   * the other, as locked operations are in any case. Returns the tick at which the last has it, 0
   * when nobody needed it.
   */
  fetchAll(notBefore = 0, serial = this.topology.serialReads): number {
    const {pollers} = this;
    if (pollers === null || pollers.staleFrom < 0) return 0;
    const start = Math.max(pollers.staleFrom, notBefore, this.busyUntil);
    pollers.staleFrom = -1;
    if (pollers.count === 0) return 0;
    this.countHolders();
    const {owner, homeNode} = this;
    this.sharers ??= new Sharers(this.topology);
    const {mask, bySocket} = this.sharers;
    const ticks = pollers.stormTicks(mask, bySocket, owner, homeNode, serial);
    const before = this.holders;
    this.holders = pollers.join(mask, bySocket);
    this.transfers += this.holders - before;
    if (serial) this.busyUntil = start + ticks;
    return start + ticks;
  }

  /**
   * Before an access of `cpu`: the pollers have their copies back, unless the last write is not
   * done yet, or `cpu` itself wrote so short a time ago that no request has reached it.
   */
  private letPollersFetch(cpu: number, now: number): void {
    const pollers = this.pollers!;
    if (pollers.staleFrom < 0 || now < pollers.staleFrom) return;
    if (cpu === this.owner && now < pollers.staleFrom + pollers.graceTicks(cpu, this.homeNode)) {
      return;
    }
    this.fetchAll();
  }

  holds(cpu: number): boolean {
    if (this.owned) return this.owner === cpu;
    return this.sharers?.mask.has(cpu) === true;
  }

  isExclusiveTo(cpu: number): boolean {
    return this.owner === cpu && (this.owned || this.holders === 1);
  }

  /** Ticks until `cpu` owns the line: `hitTicks` when it does already. */
  private own(cpu: number, now: number, hitTicks: number): number {
    if (this.pollers !== null) this.letPollersFetch(cpu, now);
    const unpolled = this.pollers === null || this.pollers.count === 0;
    if (this.isExclusiveTo(cpu)) {
      if (unpolled) this.exclusive = cpu;
      return hitTicks;
    }
    const start = Math.max(now, this.busyUntil);
    const done = start + this.invalidateTicks(cpu);
    this.busyUntil = done;
    this.transfers++;
    if (!this.owned) this.dropHolders();
    this.owned = true;
    this.owner = cpu;
    if (this.pollers !== null) this.pollers.staleFrom = done;
    this.exclusive = unpolled ? cpu : -1;
    return done - now;
  }

  /** Takes the copies of all who share the line. */
  private dropHolders(): void {
    if (this.holders === 0) return;
    this.sharers!.mask.clear();
    this.sharers!.bySocket.fill(0);
    this.holders = 0;
  }

  /** Fills in the sets of holders of a line that had only its owner. */
  private countHolders(): void {
    if (!this.owned) return;
    this.owned = false;
    this.addHolder(this.owner);
  }

  private addHolder(cpu: number): void {
    this.sharers ??= new Sharers(this.topology);
    this.sharers.mask.add(cpu);
    this.sharers.bySocket[this.topology.socketOf[cpu]]++;
    this.holders++;
  }

  /**
   * Cost of getting a copy: from a holder in the own socket if there is one, else from the owner,
   * else from memory.
   */
  private supplyTicks(cpu: number): number {
    const {topology, owner} = this;
    if (this.holders === 0) return topology.memoryTicks(cpu, this.homeNode);
    const fromOwner = owner < 0 ? Infinity : topology.transferTicks(owner, cpu, this.homeNode);
    if (this.sharers!.bySocket[topology.socketOf[cpu]] === 0 && owner >= 0) return fromOwner;
    return Math.min(fromOwner, this.nearestSocketTicks(cpu));
  }

  private nearestSocketTicks(cpu: number): number {
    const {topology} = this;
    const {bySocket} = this.sharers!;
    let best = Infinity;
    for (let socket = 0; socket < bySocket.length; socket++) {
      if (bySocket[socket] === 0) continue;
      best = Math.min(best, topology.socketTransferTicks(socket, cpu, this.homeNode));
    }
    return best;
  }

  /** Cost of being the only holder: the farthest copy decides. */
  private invalidateTicks(cpu: number): number {
    const {topology, owner} = this;
    if (this.owned) return topology.transferTicks(owner, cpu, this.homeNode);
    if (this.holders === 0) return topology.memoryTicks(cpu, this.homeNode);
    const {mask, bySocket} = this.sharers!;
    if (this.holders === 1 && owner >= 0 && owner !== cpu && mask.has(owner)) {
      return topology.transferTicks(owner, cpu, this.homeNode);
    }
    let worst = topology.atomicLocalTicks;
    const own = topology.socketOf[cpu];
    for (let socket = 0; socket < bySocket.length; socket++) {
      let others = bySocket[socket];
      if (socket === own && mask.has(cpu)) others--;
      if (others === 0) continue;
      worst = Math.max(worst, topology.socketTransferTicks(socket, cpu, this.homeNode));
    }
    return worst;
  }
}
