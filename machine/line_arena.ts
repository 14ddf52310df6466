// Cache lines of bulk objects: thousands of task_structs, mm_structs and PGD pages, two bytes and a
// home node a line.
//
// Only the last CPU that touched a line is known. A touch by another CPU costs the transfer from
// it, whatever the mode: exact for lines that one CPU writes at a time (a lock in an mm, a list
// link), pessimistic for lines that many only read. Lines that many CPUs fight for must be
// CacheLines.

import type {Cpu} from './cpu.ts';
import type {Topology} from './topology.ts';

const UNTOUCHED = -1;

/** A growable array of lines, each costing 3 bytes. */
export class LineArena {
  private owners = new Int16Array(1024).fill(UNTOUCHED);
  private homes = new Uint8Array(1024);
  private used = 0;
  private readonly free: number[] = [];

  constructor(readonly topology: Topology) {}

  /** A line whose memory is on `homeNode`, in no cache yet. */
  allocate(homeNode: number): number {
    const line = this.free.pop() ?? this.used++;
    if (line >= this.owners.length) this.grow();
    this.owners[line] = UNTOUCHED;
    this.homes[line] = homeNode;
    return line;
  }

  release(line: number): void {
    this.free.push(line);
  }

  /** Ticks for `cpu` to read or write the line; it then is the owner. */
  touch(line: number, cpu: Cpu): number {
    const owner = this.owners[line];
    if (owner === cpu.id) return this.topology.l1HitTicks;
    this.owners[line] = cpu.id;
    if (owner === UNTOUCHED) return this.topology.memoryTicks(cpu.id, this.homes[line]);
    return this.topology.transferTicks(owner, cpu.id, this.homes[line]);
  }

  /** As `touch` for a locked operation. */
  rmw(line: number, cpu: Cpu): number {
    if (this.owners[line] === cpu.id) return this.topology.atomicLocalTicks;
    return this.touch(line, cpu);
  }

  private grow(): void {
    const owners = new Int16Array(this.owners.length * 2).fill(UNTOUCHED);
    owners.set(this.owners);
    this.owners = owners;
    const homes = new Uint8Array(this.homes.length * 2);
    homes.set(this.homes);
    this.homes = homes;
  }
}
