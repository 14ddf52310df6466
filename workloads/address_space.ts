// The address space that a generated process starts with: program, libraries, heap, stack and as
// many further anonymous areas as the workload asks for, on x86-64. Areas never touch each other,
// so the kernel cannot merge them: `vmas` is what /proc/PID/maps would show. Only private writable
// areas hold anonymous pages, the ones that fork must copy.

import {KIND} from '../formats/kinds.ts';
import {NOMINAL_NS} from './nominal.ts';
import type {Actor, Step} from './stage.ts';

/** Bytes of a page in generated traces. */
export const PAGE_BYTES = 4096;

const READ = 1;
const WRITE = 2;
const EXEC = 4;
const MAP_PRIVATE = 0x02;
const MAP_ANONYMOUS = 0x20;
const MAP_GROWSDOWN = 0x100;

/** One area. */
export interface Area {
  readonly addr: number;
  readonly pages: number;
  readonly prot: number;
  readonly flags: number;
  readonly file: string;
}

const PROGRAM = 0x0000_5555_5555_4000;
const HEAP = 0x0000_5555_6000_0000;
const ANON = 0x0000_7f00_0000_0000;
const LIBC = 0x0000_7fff_f7c0_0000;
const STACK_TOP = 0x0000_7fff_ffff_f000;
const STACK_PAGES = 33;

/** Areas every process has: program text and data, heap, C library text and data, stack. */
function fixedAreas(program: string, heapPages: number): Area[] {
  const file = {flags: MAP_PRIVATE};
  const anon = MAP_PRIVATE | MAP_ANONYMOUS;
  const libc = '/usr/lib/x86_64-linux-gnu/libc.so.6';
  return [
    {...file, addr: PROGRAM, pages: 64, prot: READ | EXEC, file: program},
    {...file, addr: PROGRAM + 0x50_000, pages: 8, prot: READ | WRITE, file: program},
    {addr: HEAP, pages: heapPages, prot: READ | WRITE, flags: anon, file: ''},
    {...file, addr: LIBC, pages: 440, prot: READ | EXEC, file: libc},
    {...file, addr: LIBC + 0x20_0000, pages: 6, prot: READ | WRITE, file: libc},
    {
      addr: STACK_TOP - STACK_PAGES * PAGE_BYTES,
      pages: STACK_PAGES,
      prot: READ | WRITE,
      flags: anon | MAP_GROWSDOWN,
      file: '',
    },
  ];
}

/** Areas that every process has, whatever `vmas` says. */
export const FIXED_VMAS = 6;

/** A process image: `vmas` areas (at least FIXED_VMAS) with room for `pages` anonymous pages. */
export class Image {
  readonly areas: readonly Area[];
  private readonly anonymous: readonly Area[];

  /** Where the heap ends, bytes: the first brk. */
  readonly heapEnd: number;

  constructor(program: string, vmas: number, pages: number) {
    const extra = Math.max(0, vmas - FIXED_VMAS);
    const room = Math.max(1, Math.ceil(pages / (extra + 1)));
    const areas = fixedAreas(program, room);
    for (let i = 0; i < extra; i++) {
      const addr = ANON + i * (room + 1) * PAGE_BYTES;
      const flags = MAP_PRIVATE | MAP_ANONYMOUS;
      areas.push({addr, pages: room, prot: READ | WRITE, flags, file: ''});
    }
    this.areas = areas;
    this.heapEnd = HEAP + room * PAGE_BYTES;
    this.anonymous = [areas[2], ...areas.slice(FIXED_VMAS)];
  }

  /** The mappings, as made inside exec or before the trace began. */
  *map(self: Actor): Generator<Step, void, void> {
    for (const {addr, pages, prot, flags, file} of this.areas) {
      const name = self.intern(file);
      const durationNs = NOMINAL_NS.mapVma;
      yield self.op(KIND.map, durationNs, addr, pages * PAGE_BYTES, 0, prot, flags, name);
    }
  }

  /** Writes to the first `pages` anonymous pages, one event per area. */
  *write(self: Actor, pages: number): Generator<Step, void, void> {
    let left = pages;
    for (const area of this.anonymous) {
      if (left <= 0) return;
      const count = Math.min(left, area.pages);
      yield self.op(KIND.touch, count * NOMINAL_NS.minorFault, area.addr, count, 1, 1);
      left -= count;
    }
  }

  /** A new program in this process: exec, its mappings, `pages` pages written. */
  *exec(self: Actor, program: string, pages: number): Generator<Step, void, void> {
    yield self.op(KIND.exec, NOMINAL_NS.exec, self.intern(program));
    yield* this.map(self);
    yield* this.write(self, pages);
  }
}
