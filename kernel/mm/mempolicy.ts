// mm/mempolicy.c: memory policies of VMAs (mbind), 6.18: on which node a new page goes, and moving
// what is elsewhere.
//
// A policy is a number in vma.policy (0: the default, first touch on the CPU's node with fallback
// by distance, zones.ts), so that equal policies merge. MPOL_INTERLEAVE goes by the page's offset
// in its mapping. Not modelled: MPOL_BIND keeps to its nodes only as long as they have memory (a
// full one falls back by distance instead of to the OOM killer), task policies (set_mempolicy),
// cpusets, weights.

import type {Code} from '../../machine/process.ts';
import {EFAULT, EINVAL} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {do_pages_move, type MoveResult} from './migrate_move.ts';
import {enterSystemCall, mmap_write_lock, mmap_write_unlock} from './mmap_lock.ts';
import {linear_page_index, type VmArea} from './vma.ts';
import {vma_start_write, vma_start_write_near} from './vma_lock.ts';
import {vma_modify} from './vma_merge.ts';

export const MPOL_DEFAULT = 0;
export const MPOL_PREFERRED = 1;
export const MPOL_BIND = 2;
export const MPOL_INTERLEAVE = 3;
export const MPOL_LOCAL = 4;

/** A mode and its nodes, ascending. */
interface Policy {
  readonly mode: number;
  readonly nodes: readonly number[];
}

/** All policies in use, by number; 0 is the default. */
export class Mempolicies {
  private readonly byNumber: (Policy | null)[] = [null];

  constructor(readonly k: Kernel) {}

  /** Number of a policy; equal ones share it. -EINVAL for one that cannot be. */
  number(mode: number, nodes: readonly number[]): number {
    if (mode === MPOL_DEFAULT) return nodes.length === 0 ? 0 : -EINVAL;
    const {nodeCount} = this.k.machine.topology;
    if (mode < 0 || mode > MPOL_LOCAL || nodes.some((node) => node >= nodeCount)) return -EINVAL;
    if (nodes.length === 0 && mode !== MPOL_LOCAL && mode !== MPOL_PREFERRED) return -EINVAL;
    const key = nodes.join();
    const known = this.byNumber.findIndex((one) => {
      return one !== null && one.mode === mode && one.nodes.join() === key;
    });
    return known > 0 ? known : this.byNumber.push({mode, nodes}) - 1;
  }

  /** policy_nodemask and its kind: node for a new page at `vpn`. Plain. */
  nodeFor(t: Task, vma: VmArea, vpn: number): number {
    const {topology} = this.k.machine;
    const local = topology.nodeOf[t.cpu.id];
    const policy = this.byNumber[vma.policy];
    if (policy === null || policy.nodes.length === 0) return local;
    const {mode, nodes} = policy;
    if (mode === MPOL_INTERLEAVE) return nodes[linear_page_index(vma, vpn) % nodes.length];
    if (mode === MPOL_PREFERRED) return nodes[0];
    return this.k.mm.zones[local].fallback.find((node) => nodes.includes(node)) ?? local;
  }
}

/**
 * mbind of `pages` pages from `startVpn` on; `move`: MPOL_MF_MOVE, pages that are elsewhere go to
 * the policy's first node. 0, or -errno: -EFAULT for a hole, -EINVAL for a policy that cannot be.
 */
export function* do_mbind(
  k: Kernel,
  t: Task,
  startVpn: number,
  pages: number,
  mode: number,
  nodes: readonly number[],
  move: boolean,
): Code<number> {
  const {mm} = k;
  enterSystemCall(k, t);
  const policy = mm.policies.number(mode, nodes);
  if (policy < 0) return policy;
  const user = mm.userOf(t.mm!);
  const end = startVpn + pages;
  yield* mmap_write_lock(t, user, mm.migration.fns.do_pages_move);
  let result = 0;
  for (let at = startVpn; at < end && result === 0; ) {
    const vma: VmArea | null = user.space.tree.lookup(at);
    if (vma === null) {
      result = -EFAULT;
      break;
    }
    const to = Math.min(vma.end, end);
    t.cpu.charge(mm.costs.modifyVmaTicks, mm.migration.fns.do_pages_move);
    yield* vma_start_write(k, t, user, vma);
    yield* vma_start_write_near(k, t, user, vma);
    if (vma.policy !== policy) vma_modify(vma, at, to, {policy});
    at = to;
  }
  yield* mmap_write_unlock(t, user);
  if (result !== 0 || !move || nodes.length === 0) return result;
  const moved: MoveResult = yield* do_pages_move(k, t, user, startVpn, pages, nodes[0], false);
  return moved.failed === 0 ? 0 : result;
}
