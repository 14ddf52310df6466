// kernel/cred.c: credentials, and what is counted per user.
//
// A thread shares the credentials of its creator, a process gets a copy. A copy takes references to
// what it points to: user_struct, its ucounts, the user namespace, the supplementary groups. The
// number of a user's processes (UCOUNT_RLIMIT_NPROC, user->processes before 5.14) is one atomic
// counter that each fork and each release changes. Assumption: all processes belong to one user in
// one user namespace, so these lines are the whole machine's. Old credentials are freed after a
// grace period; whoever drops the last reference is charged for it.

import type {Code} from '../machine/process.ts';
import {CLONE_THREAD} from './clone_flags.ts';
import {chargeLsm} from './life_hooks.ts';
import type {Kernel} from './kernel.ts';
import {locked, lockedSlow, newLine, newObject, type Shared, share, unshare} from './refcount.ts';
import type {Task} from './task.ts';

/** struct cred with the blob of the security modules (lsm_blob_alloc is a second object). */
const CRED_BYTES = 184;
const LSM_BLOB_BYTES = 64;

/** struct cred. */
export type Cred = Shared;

/** The credentials of a process that was there before the run began. */
export function firstCred(k: Kernel, t: Task): Cred {
  return {users: 1, line: newLine(k, t)};
}

/** References of a copy to user, user namespace and groups: one locked operation on each. */
function* credRefs(k: Kernel, t: Task, fn: number): Code {
  const {user, groups} = k.shared;
  if (!locked(k, t, user, fn)) yield* lockedSlow(k, t, user, fn);
  if (!locked(k, t, user, fn)) yield* lockedSlow(k, t, user, fn);
  if (!locked(k, t, groups, fn)) yield* lockedSlow(k, t, groups, fn);
}

/** prepare_creds: a copy of the caller's. */
export function* prepare_creds(k: Kernel, t: Task): Code<Cred> {
  const fn = k.fns.prepare_creds;
  newObject(k, t, CRED_BYTES, k.costs.copyKibTicks, fn);
  newObject(k, t, LSM_BLOB_BYTES, k.costs.clearKibTicks, fn);
  yield* credRefs(k, t, fn);
  chargeLsm(k, t, 1, fn);
  return {users: 1, line: newLine(k, t)};
}

/** put_cred: the last one frees them. */
export function* put_cred(k: Kernel, t: Task, cred: Cred): Code {
  const fn = k.fns.put_cred_rcu;
  if (!unshare(k, t, cred, fn)) return;
  yield* credRefs(k, t, fn);
  chargeLsm(k, t, 1, fn);
  t.cpu.charge(2 * k.costs.slabFreeTicks + k.costs.rcuFreeTicks, fn);
}

/** One process more, or less, of this user. */
export function* countProcess(k: Kernel, t: Task, fn: number): Code {
  const {processes} = k.shared;
  if (!locked(k, t, processes, fn)) yield* lockedSlow(k, t, processes, fn);
}

/** copy_creds. */
export function* copy_creds(k: Kernel, t: Task, p: Task, flags: number): Code {
  const thread = (flags & CLONE_THREAD) !== 0;
  if (t.cred !== null && thread) p.cred = share(k, t, t.cred, k.fns.copy_creds);
  else p.cred = yield* prepare_creds(k, t);
  yield* countProcess(k, t, k.fns.copy_creds);
}

/** commit_creds of exec: the new ones take effect, the old ones go. */
export function* commit_creds(k: Kernel, t: Task, cred: Cred): Code {
  const old = t.cred;
  t.cred = cred;
  chargeLsm(k, t, 2, k.fns.commit_creds);
  if (old !== null) yield* put_cred(k, t, old);
}
