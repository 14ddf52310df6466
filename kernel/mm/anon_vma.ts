// anon_vma: which VMAs may map an anonymous page. A page names one anon_vma; the VMAs in that one's
// interval tree are the VMA that faulted the page in, what was split from it, and its copies in
// forked children. As in Linux 6.18 (rmap.c).
//
// Owners: a VMA is in the tree of its own anon_vma and of each ancestor it inherited by fork; one
// node per membership, listed in vma.anonChain. An anon_vma lives while its tree is not empty, or
// somebody holds a reference (KSM, migration, its descendants hold their root). Reuse of an
// ancestor's anon_vma that no VMA faults into any more keeps a chain of forks whose parents exit at
// constant length (since 4.0, refined in 6.0; `reuse: false` models the kernels before). Ids are
// reused like freed memory is: whoever goes from a page to its anon_vma must check that the page is
// mapped.

import {assert} from '../../machine/assert.ts';
import {IntervalForest} from './interval_tree.ts';
import type {VmArea} from './vma.ts';
import {VM_ACCESS, VM_SOFTDIRTY} from './vma_flags.ts';

/** An anon_vma. */
export class AnonVma {
  /** Root of the interval tree (rb_root). */
  root = 0;
  /** The anon_vma whose lock covers the whole family: root->rwsem. Itself for a root. */
  rootVma: AnonVma = this;
  parent: AnonVma = this;
  refcount = 1;
  /** Children and, for a root, itself. */
  numChildren = 0;
  /** VMAs whose vma.anonVma this is. */
  numActiveVmas = 0;

  constructor(readonly id: number) {}
}

/** All anon_vmas of the machine. */
export class AnonVmas {
  readonly forest = new IntervalForest<VmArea>();
  private readonly byId: (AnonVma | null)[] = [null];
  private readonly freeIds: number[] = [];

  constructor(readonly reuse = true) {}

  /** Live anon_vmas. */
  get used(): number {
    return this.byId.length - 1 - this.freeIds.length;
  }

  /** The anon_vma with this id, null when it was freed. */
  find(id: number): AnonVma | null {
    return this.byId[id] ?? null;
  }

  /** get_anon_vma. */
  get(anon: AnonVma): void {
    anon.refcount++;
  }

  /** put_anon_vma: frees it with the last reference. */
  put(anon: AnonVma): void {
    assert(anon.refcount > 0, 'anon_vma put too often');
    if (--anon.refcount > 0) return;
    this.byId[anon.id] = null;
    this.freeIds.push(anon.id);
    if (anon.rootVma !== anon) this.put(anon.rootVma);
  }

  /**
   * __anon_vma_prepare: gives the VMA an anon_vma before its first anonymous page. True when a new
   * one was allocated.
   */
  prepare(vma: VmArea): boolean {
    if (vma.anonVma !== null) return false;
    let anon = this.findMergeable(vma);
    const fresh = anon === null;
    if (anon === null) {
      anon = this.allocate();
      anon.numChildren++;
    }
    vma.anonVma = anon;
    anon.numActiveVmas++;
    this.chainLink(vma, anon);
    return fresh;
  }

  /**
   * anon_vma_clone: enters `dst` into all trees that `src` is in. `dst.anonVma` may come out set
   * (see reuse).
   */
  clone(dst: VmArea, src: VmArea): void {
    const {forest} = this;
    for (let node = src.anonChain; node !== 0; node = forest.nextInChain(node)) {
      const anon = this.byId[forest.ownerOf(node)];
      assert(anon !== null, 'anon_vma freed while a VMA is in its tree');
      this.chainLink(dst, anon);
      const reusable = anon.numChildren < 2 && anon.numActiveVmas === 0;
      if (this.reuse && dst.anonVma === null && src.anonVma !== null && reusable)
        dst.anonVma = anon;
    }
    if (dst.anonVma !== null) dst.anonVma.numActiveVmas++;
  }

  /** anon_vma_fork: `vma` is the child's copy of `parent`. */
  fork(vma: VmArea, parent: VmArea): void {
    vma.anonVma = null;
    if (parent.anonVma === null) return;
    this.clone(vma, parent);
    if (vma.anonVma !== null) return;
    const anon = this.allocate();
    anon.numActiveVmas++;
    anon.rootVma = parent.anonVma.rootVma;
    anon.parent = parent.anonVma;
    this.get(anon.rootVma);
    vma.anonVma = anon;
    this.chainLink(vma, anon);
    anon.parent.numChildren++;
  }

  /**
   * unlink_anon_vmas: takes the VMA out of all trees and frees the anon_vmas that nobody needs any
   * more.
   */
  unlink(vma: VmArea): void {
    if (vma.anonChain === 0 && vma.anonVma === null) return;
    const {forest} = this;
    for (let node = vma.anonChain; node !== 0; ) {
      const next = forest.nextInChain(node);
      const anon = this.byId[forest.ownerOf(node)];
      assert(anon !== null, 'anon_vma freed while a VMA is in its tree');
      forest.remove(anon, node);
      forest.release(node);
      node = next;
      if (anon.root !== 0) continue;
      anon.parent.numChildren--;
      this.put(anon);
    }
    vma.anonChain = 0;
    vma.anonChainTail = 0;
    vma.anonChainLength = 0;
    if (vma.anonVma !== null) vma.anonVma.numActiveVmas--;
    vma.anonVma = null;
  }

  /** The anon_vmas whose trees the VMA is in, oldest ancestor first. */
  chainOf(vma: VmArea): AnonVma[] {
    const chain: AnonVma[] = [];
    const {forest} = this;
    for (let node = vma.anonChain; node !== 0; node = forest.nextInChain(node)) {
      const anon = this.byId[forest.ownerOf(node)];
      assert(anon !== null, 'anon_vma freed while a VMA is in its tree');
      chain.push(anon);
    }
    return chain;
  }

  /**
   * Takes the VMA out of its trees while its extent changes
   * (anon_vma_interval_tree_pre_update_vma).
   */
  preUpdate(vma: VmArea): void {
    const {forest} = this;
    for (let node = vma.anonChain; node !== 0; node = forest.nextInChain(node)) {
      const anon = this.byId[forest.ownerOf(node)];
      if (anon !== null) forest.remove(anon, node);
    }
  }

  /** Puts it back, at its new extent. */
  postUpdate(vma: VmArea): void {
    const last = vma.pgoff + vma.pages - 1;
    const {forest} = this;
    for (let node = vma.anonChain; node !== 0; node = forest.nextInChain(node)) {
      const anon = this.byId[forest.ownerOf(node)];
      forest.setExtent(node, vma.pgoff, last);
      if (anon !== null) forest.insert(anon, node);
    }
  }

  /** find_mergeable_anon_vma: the anon_vma of a neighbour that this VMA could later merge with. */
  private findMergeable(vma: VmArea): AnonVma | null {
    const {next, prev} = vma;
    if (next !== null && anonVmaCompatible(vma, next)) {
      const anon = reusableAnonVma(next);
      if (anon !== null) return anon;
    }
    return prev !== null && anonVmaCompatible(prev, vma) ? reusableAnonVma(prev) : null;
  }

  private allocate(): AnonVma {
    const id = this.freeIds.pop() ?? this.byId.length;
    const anon = new AnonVma(id);
    this.byId[id] = anon;
    return anon;
  }

  /** anon_vma_chain_link. */
  private chainLink(vma: VmArea, anon: AnonVma): void {
    const node = this.forest.allocate(vma, anon.id);
    if (vma.anonChain === 0) vma.anonChain = node;
    else this.forest.chain(vma.anonChainTail, node);
    vma.anonChainTail = node;
    vma.anonChainLength++;
    this.forest.setExtent(node, vma.pgoff, vma.pgoff + vma.pages - 1);
    this.forest.insert(anon, node);
  }
}

/**
 * anon_vma_compatible: a before b, alike enough that merging them later is possible (mprotect may
 * make them equal).
 */
function anonVmaCompatible(a: VmArea, b: VmArea): boolean {
  return (
    a.end === b.start &&
    a.policy === b.policy &&
    a.file === b.file &&
    ((a.flags ^ b.flags) & ~(VM_ACCESS | VM_SOFTDIRTY)) === 0 &&
    a.flagsHigh === b.flagsHigh &&
    b.pgoff === a.pgoff + a.pages
  );
}

/** reusable_anon_vma: only from a VMA that is in one tree, so that no forked pages get mixed in. */
function reusableAnonVma(vma: VmArea): AnonVma | null {
  return vma.anonChainLength === 1 ? vma.anonVma : null;
}
