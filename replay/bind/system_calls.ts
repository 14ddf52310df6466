// System calls by their x86-64 number with the arguments of the ABI, for traces that say what a
// call must return (expect_call). The bindings of recordings put things where the recorded kernel
// put them and leave out what failed there; here a call is made as it stands, and its errors come
// from the model. What the kernel checks before it thinks in pages (alignment, lengths of 0) is
// checked here.
//
// An array of addresses (process_madvise, move_pages) is what iovec operations said before. A file
// descriptor is a number that open_file gave a meaning; a pidfd is the tid of the process it refers
// to.

import {EBADF, EEXIST, EINVAL, ENODEV, ENOMEM} from '../../kernel/errno.ts';
import type {AddressSpace} from '../../kernel/mm/address_space.ts';
import {sys_brk} from '../../kernel/mm/brk.ts';
import {do_madvise} from '../../kernel/mm/madvise.ts';
import {do_pages_move} from '../../kernel/mm/migrate_move.ts';
import {do_mlock, do_mlockall, do_munlock, do_munlockall} from '../../kernel/mm/mlock.ts';
import {shmem_zero_setup, sys_mmap} from '../../kernel/mm/mmap.ts';
import {mmapPages, mmapProps} from '../../kernel/mm/mmap_props.ts';
import {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_POPULATE,
  MAP_SHARED,
  vmFlags,
} from '../../kernel/mm/mmap_prot.ts';
import {sys_munmap} from '../../kernel/mm/mmap_unmap.ts';
import {do_mprotect} from '../../kernel/mm/mprotect.ts';
import {do_mremap, MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE} from '../../kernel/mm/mremap.ts';
import {do_mseal} from '../../kernel/mm/mseal.ts';
import {type IoVec, process_madvise} from '../../kernel/mm/process_madvise.ts';
import type {VmaProps} from '../../kernel/mm/vma.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import {type BindingContext, PAGE_BYTES} from './binding.ts';

const MAP_FIXED_NOREPLACE = 0x100000;

/** What a call needs besides its arguments. */
export interface CallState {
  /** Files by descriptor. */
  readonly files: ReadonlyMap<number, AddressSpace>;
  /** The vector that the caller has prepared. */
  readonly vector: readonly IoVec[];
}

/**
 * A call: its result as the kernel returns it, negative errno on failure. `a`: the six arguments,
 * signed.
 */
export type SystemCall = (
  context: BindingContext,
  t: Task,
  a: readonly number[],
  state: CallState,
) => Code<number>;

function aligned(address: number): boolean {
  return address % PAGE_BYTES === 0;
}

function pageCount(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES);
}

function* mmap(
  {kernel}: BindingContext,
  t: Task,
  [addr, len, prot, flags, fd, offset]: readonly number[],
  {files}: CallState,
): Code<number> {
  const anonymous = (flags & MAP_ANONYMOUS) !== 0;
  const fixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) !== 0;
  if (len === 0 || !aligned(offset) || (fixed && !aligned(addr))) return -EINVAL;
  const file = anonymous ? null : files.get(fd);
  if (file === undefined) return -EBADF;
  const pages = pageCount(len);
  const start = Math.floor(addr / PAGE_BYTES);
  const {space} = kernel.mm.userOf(t.mm!);
  if (start + pages > space.taskSize) return -ENOMEM;
  if ((flags & MAP_FIXED_NOREPLACE) !== 0 && space.tree.intersection(start, start + pages)) {
    return -EEXIST;
  }
  let props: VmaProps = mmapProps(kernel, vmFlags(kernel, prot, flags), flags, file, pages);
  if (props.mapping === null && (flags & MAP_SHARED) !== 0)
    props = shmem_zero_setup(kernel, props, pages);
  const populate = (flags & MAP_POPULATE) !== 0;
  const pgoff = offset / PAGE_BYTES;
  const result = yield* sys_mmap(kernel, t, {
    start,
    fixed,
    pages: mmapPages(props, pages),
    pgoff,
    props,
    populate,
  });
  return result < 0 ? result : result * PAGE_BYTES;
}

function* munmap({kernel}: BindingContext, t: Task, [addr, len]: readonly number[]): Code<number> {
  if (!aligned(addr) || len === 0) return -EINVAL;
  const start = addr / PAGE_BYTES;
  return yield* sys_munmap(kernel, t, start, start + pageCount(len));
}

function* mprotect(
  {kernel}: BindingContext,
  t: Task,
  [addr, len, prot]: readonly number[],
): Code<number> {
  if (!aligned(addr)) return -EINVAL;
  return yield* do_mprotect(kernel, t, addr / PAGE_BYTES, pageCount(len), prot);
}

function* brk({kernel}: BindingContext, t: Task, [address]: readonly number[]): Code<number> {
  return yield* sys_brk(kernel, t, address);
}

function* mremap(
  {kernel}: BindingContext,
  t: Task,
  [addr, oldLen, newLen, flags, newAddr]: readonly number[],
): Code<number> {
  const placed = (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) !== 0;
  if (!aligned(addr) || newLen === 0 || (placed && !aligned(newAddr))) return -EINVAL;
  if ((flags & MREMAP_FIXED) !== 0 && (flags & MREMAP_MAYMOVE) === 0) return -EINVAL;
  const result = yield* do_mremap(
    kernel,
    t,
    addr / PAGE_BYTES,
    pageCount(oldLen),
    pageCount(newLen),
    flags,
    newAddr / PAGE_BYTES,
  );
  return result < 0 ? result : result * PAGE_BYTES;
}

function* madvise(
  {kernel}: BindingContext,
  t: Task,
  [addr, len, advice]: readonly number[],
): Code<number> {
  if (!aligned(addr)) return -EINVAL;
  return yield* do_madvise(kernel, t, addr / PAGE_BYTES, pageCount(len), advice);
}

/** Pages that [address, address + length) touches, as mlock takes them. */
function touched(addr: number, len: number): [number, number] {
  const start = Math.floor(addr / PAGE_BYTES);
  return [start, pageCount(addr + len) - start];
}

function* mlock(
  {kernel}: BindingContext,
  t: Task,
  [addr, len, flags]: readonly number[],
): Code<number> {
  const [start, pages] = touched(addr, len);
  return yield* do_mlock(kernel, t, start, pages, flags);
}

function* munlock({kernel}: BindingContext, t: Task, [addr, len]: readonly number[]): Code<number> {
  const [start, pages] = touched(addr, len);
  return yield* do_munlock(kernel, t, start, pages);
}

function* mlockall({kernel}: BindingContext, t: Task, [flags]: readonly number[]): Code<number> {
  return yield* do_mlockall(kernel, t, flags);
}

function* munlockall({kernel}: BindingContext, t: Task): Code<number> {
  return yield* do_munlockall(kernel, t);
}

function* mseal(
  {kernel}: BindingContext,
  t: Task,
  [addr, len, flags]: readonly number[],
): Code<number> {
  if (!aligned(addr)) return -EINVAL;
  return yield* do_mseal(kernel, t, addr / PAGE_BYTES, pageCount(len), flags);
}

/** The vector itself is what `iovec` operations said: its address is not looked at. */
function* processMadvise(
  context: BindingContext,
  t: Task,
  [pidfd, , vlen, advice, flags]: readonly number[],
  {vector}: CallState,
): Code<number> {
  const pid = pidfd < 0 ? pidfd : context.pidOf(pidfd);
  return yield* process_madvise(context.kernel, t, pid, vector, vlen, advice, flags);
}

const MPOL_MF_MOVE_ALL = 4;

/**
 * The pages are the ranges that `iovec` operations said, all of them to go to node `node`; the
 * result is how many could not be moved.
 */
function* movePages(
  {kernel}: BindingContext,
  t: Task,
  [, , , node, , flags]: readonly number[],
  {vector}: CallState,
): Code<number> {
  if (node < 0 || node >= kernel.machine.topology.nodeCount) return -ENODEV;
  const user = kernel.mm.userOf(t.mm!);
  const all = (flags & MPOL_MF_MOVE_ALL) !== 0;
  let left = 0;
  for (const {addr, len} of vector) {
    const start = addr / PAGE_BYTES;
    const {failed} = yield* do_pages_move(kernel, t, user, start, pageCount(len), node, all);
    left += failed;
  }
  return left;
}

/** x86-64 numbers. */
export const SYSTEM_CALLS: ReadonlyMap<number, SystemCall> = new Map([
  [9, mmap],
  [10, mprotect],
  [11, munmap],
  [12, brk],
  [25, mremap],
  [28, madvise],
  [149, (context, t, [addr, len]) => mlock(context, t, [addr, len, 0])],
  [150, munlock],
  [151, mlockall],
  [152, munlockall],
  [279, movePages],
  [325, mlock],
  [440, processMadvise],
  [462, mseal],
] as readonly (readonly [number, SystemCall])[]);
