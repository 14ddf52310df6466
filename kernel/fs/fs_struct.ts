// fs/fs_struct.c: root and working directory. A copy takes a reference to both: to the mount (a
// per-CPU counter since 2.6.38, a shared one before) and to the dentry (d_lockref, d_count before
// 3.12). All processes have the same root, so its dentry is a line that every fork and every exit
// on the machine changes. Assumption: nobody changes directory; all processes of a run have one
// working directory, which is not the root.

import type {CacheLine} from '../../machine/cache_line.ts';
import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import {locked, lockedSlow, newLine, newObject, type Shared, unshare} from '../refcount.ts';
import type {Task} from '../task.ts';

/** sizeof(struct fs_struct). */
const FS_STRUCT_BYTES = 56;

/** struct path: where the reference counts of mount and dentry are. */
export interface Path {
  readonly dentry: CacheLine;
  /** The mount's shared counter before 2.6.38, null since. */
  readonly mount: CacheLine | null;
}

/** struct fs_struct. */
export interface FsStruct extends Shared {
  readonly root: Path;
  readonly pwd: Path;
}

/**
 * path_get and path_put: one locked operation on the dentry each, and one on the mount where it is
 * not per CPU.
 */
export function* pathRef(k: Kernel, t: Task, path: Path, fn: number): Code {
  const {dentry, mount} = path;
  if (mount === null) t.cpu.charge(k.costs.percpuRefTicks, fn);
  else if (!locked(k, t, mount, fn)) yield* lockedSlow(k, t, mount, fn);
  if (!locked(k, t, dentry, fn)) yield* lockedSlow(k, t, dentry, fn);
}

/** The directories of a process that was there before the run began. */
export function firstFs(k: Kernel, t: Task): FsStruct {
  return {users: 1, line: newLine(k, t), root: k.shared.root, pwd: k.shared.pwd};
}

/** copy_fs_struct. */
export function* copy_fs_struct(k: Kernel, t: Task, old: FsStruct): Code<FsStruct> {
  const fn = k.fns.copy_fs_struct;
  newObject(k, t, FS_STRUCT_BYTES, k.costs.copyKibTicks, fn);
  yield* pathRef(k, t, old.root, fn);
  yield* pathRef(k, t, old.pwd, fn);
  return {users: 1, line: newLine(k, t), root: old.root, pwd: old.pwd};
}

/** exit_fs. */
export function* exit_fs(k: Kernel, t: Task): Code {
  const {fs} = t;
  t.fs = null;
  if (fs !== null) yield* put_fs(k, t, fs);
}

/** One user less; the last one lets go of both directories. */
export function* put_fs(k: Kernel, t: Task, fs: FsStruct): Code {
  const fn = k.fns.exit_fs;
  if (!unshare(k, t, fs, fn)) return;
  yield* pathRef(k, t, fs.root, fn);
  yield* pathRef(k, t, fs.pwd, fn);
  t.cpu.charge(k.costs.slabFreeTicks, fn);
}
