// The system calls that the model knows, by their x86-64 numbers, and how their arguments make an
// operation. All other system calls are unmodelled. Numbers:
// arch/x86/entry/syscalls/syscall_64.tbl.

import {KIND} from '../kinds.ts';
import {FieldError, hexAt, numberAt, type Arg} from './fields.ts';

/** What a system call becomes. */
export interface Syscall {
  readonly name: string;
  readonly nr: number;
  /** Number of arguments that the kernel prints and the mapping needs. */
  readonly arity: number;
  /**
   * Kind of operation, or undefined when entering it is only an answer (exit: sched_process_exit is
   * the operation).
   */
  readonly kind?: number;
  /** Arguments of the operation; those known only later are 0. */
  readonly operands?: (args: readonly Arg[]) => Arg[];
  /** Index of the argument that the system call's result fills in. */
  readonly retArg?: number;
  /**
   * True for fork and its kin, resolved by the child's appearance; 'exec' for exec, by its success.
   */
  readonly waitsFor?: 'ret' | 'child' | 'exec';
  /**
   * True when it changes the caller's mappings: the recorder's MMAP2 records inside it repeat it.
   */
  readonly maps?: boolean;
}

/** A 32-bit int that travelled in a 64-bit register. */
function int32(value: Arg): Arg {
  const low = Number(BigInt.asIntN(32, BigInt(value)));
  return low;
}

const first =
  (count: number) =>
  (args: readonly Arg[]): Arg[] =>
    args.slice(0, count);
const SIGCHLD = 17;
const CLONE_VM_VFORK = 0x4100;

/** Selector of waitid as the upid that wait4 would take. */
function waitidTarget(which: Arg, upid: Arg): Arg {
  if (which === 0) return -1;
  return which === 2 ? -Number(int32(upid)) : int32(upid);
}

const TABLE: readonly Syscall[] = [
  {
    name: 'mmap',
    nr: 9,
    arity: 6,
    kind: KIND.mmap,
    operands: (a) => [a[0], a[1], a[2], a[3], int32(a[4]), a[5], 0],
    retArg: 6,
    waitsFor: 'ret',
    maps: true,
  },
  {name: 'mprotect', nr: 10, arity: 3, kind: KIND.mprotect, operands: first(3), maps: true},
  {name: 'munmap', nr: 11, arity: 2, kind: KIND.munmap, operands: first(2), maps: true},
  {
    name: 'brk',
    nr: 12,
    arity: 1,
    kind: KIND.brk,
    operands: (a) => [a[0], 0],
    retArg: 1,
    waitsFor: 'ret',
    maps: true,
  },
  {name: 'sched_yield', nr: 24, arity: 0, kind: KIND.yield, operands: () => []},
  {
    name: 'mremap',
    nr: 25,
    arity: 5,
    kind: KIND.mremap,
    operands: (a) => [a[0], a[1], a[2], a[3], a[4], 0],
    retArg: 5,
    waitsFor: 'ret',
    maps: true,
  },
  {name: 'madvise', nr: 28, arity: 3, kind: KIND.madvise, operands: first(3), maps: true},
  {
    name: 'clone',
    nr: 56,
    arity: 1,
    kind: KIND.fork,
    operands: (a) => [0, a[0], 0],
    waitsFor: 'child',
  },
  {
    name: 'fork',
    nr: 57,
    arity: 0,
    kind: KIND.fork,
    operands: () => [0, SIGCHLD, 0],
    waitsFor: 'child',
  },
  {
    name: 'vfork',
    nr: 58,
    arity: 0,
    kind: KIND.fork,
    operands: () => [0, CLONE_VM_VFORK | SIGCHLD, 0],
    waitsFor: 'child',
  },
  {name: 'execve', nr: 59, arity: 0, waitsFor: 'exec', maps: true},
  {name: 'exit', nr: 60, arity: 0},
  {
    name: 'wait4',
    nr: 61,
    arity: 3,
    kind: KIND.wait4,
    operands: (a) => [int32(a[0]), a[2]],
  },
  {name: 'mlock', nr: 149, arity: 2, kind: KIND.mlock, operands: first(2), maps: true},
  {name: 'munlock', nr: 150, arity: 2, kind: KIND.munlock, operands: first(2), maps: true},
  {name: 'swapon', nr: 167, arity: 0, kind: KIND.swapon, operands: () => [0, 0]},
  {name: 'swapoff', nr: 168, arity: 0, kind: KIND.swapoff, operands: () => [0]},
  {name: 'io_submit', nr: 209, arity: 2, kind: KIND.io_submit, operands: first(2)},
  {
    name: 'remap_file_pages',
    nr: 216,
    arity: 4,
    kind: KIND.remap_file_pages,
    operands: (a) => [a[0], a[1], a[3]],
    maps: true,
  },
  {name: 'exit_group', nr: 231, arity: 0},
  {
    name: 'waitid',
    nr: 247,
    arity: 4,
    kind: KIND.wait4,
    operands: (a) => [waitidTarget(a[0], a[1]), a[3]],
  },
  {name: 'execveat', nr: 322, arity: 0, waitsFor: 'exec', maps: true},
  {name: 'mlock2', nr: 325, arity: 2, kind: KIND.mlock, operands: first(2), maps: true},
  {name: 'pkey_mprotect', nr: 329, arity: 3, kind: KIND.mprotect, operands: first(3), maps: true},
  {
    name: 'clone3',
    nr: 435,
    arity: 0,
    kind: KIND.fork,
    operands: () => [0, 0, 0],
    waitsFor: 'child',
  },
];

/** Modelled system calls by name. */
export const SYSCALLS: ReadonlyMap<string, Syscall> = new Map(TABLE.map((s) => [s.name, s]));
/** Modelled system calls by x86-64 number. */
export const SYSCALL_BY_NR: ReadonlyMap<number, Syscall> = new Map(TABLE.map((s) => [s.nr, s]));

/**
 * Values of `name: value, name: value`; user strings that newer kernels add in quotes are stepped
 * over.
 */
export function syscallArgs(payload: string, arity: number): Arg[] {
  const args: Arg[] = [];
  for (let at = 0; args.length < arity; ) {
    const colon = payload.indexOf(': ', at);
    if (colon < 0) throw new FieldError(`argument ${args.length + 1} is missing in "${payload}"`);
    args.push(numberAt(payload, colon + 2));
    at = colon + 2;
    let quoted = false;
    for (; at < payload.length; at++) {
      const char = payload[at];
      if (char === '"' && payload[at - 1] !== '\\') quoted = !quoted;
      else if (char === ',' && !quoted) break;
    }
  }
  return args;
}

/** Number and arguments of raw_syscalls: `NR 9 (7f00, 1000, 3, 22, ffffffff, 0)`, all hex. */
export function rawSyscallArgs(payload: string): {nr: number; args: Arg[]} {
  const match = /^NR (-?\d+) \(([^)]*)\)/.exec(payload);
  if (match === null) throw new FieldError(`"NR number (arguments)" is missing in "${payload}"`);
  const args = match[2].split(', ').map((digits) => hexAt(digits, 0));
  return {nr: Number(match[1]), args};
}
