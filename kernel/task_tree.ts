// Who is whose child. task->children holds the leaders of the groups that a thread forked; all
// changes are made under tasklist_lock. Order among children is not kept: the last one takes the
// place of one that leaves.

import {assert} from '../machine/assert.ts';
import type {Task} from './task.ts';

/** Makes `child` a child of `parent`. */
export function addChild(parent: Task, child: Task): void {
  child.parent = parent;
  child.childIndex = parent.children.push(child) - 1;
}

/** Takes `child` from its parent's children. */
export function removeChild(child: Task): void {
  const {parent, childIndex} = child;
  if (parent === null) return;
  assert(parent.children[childIndex] === child, `${child.comm}/${child.tid} is no child`);
  const last = parent.children.pop()!;
  if (last !== child) {
    parent.children[childIndex] = last;
    last.childIndex = childIndex;
  }
  child.childIndex = -1;
}

/** de_thread: `t` takes the place of `leader` among its parent's children. */
export function replaceChild(leader: Task, t: Task): void {
  const {parent, childIndex} = leader;
  t.parent = parent;
  t.childIndex = childIndex;
  if (parent !== null) parent.children[childIndex] = t;
  leader.childIndex = -1;
  leader.parent = null;
}

/** Children of all threads of a group. */
export function childCount(t: Task): number {
  let count = 0;
  for (const thread of t.threads) count += thread.children.length;
  return count;
}

/** thread_group_empty: `p` is the only thread that is not released. */
export function thread_group_empty(p: Task): boolean {
  return p.threads.length === 1;
}
