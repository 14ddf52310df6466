// kernel.mm: the global state of memory management, as the static variables of mm/*.c are. Owns the arenas that all mms
// share (page tables, struct pages, anon_vmas, files) and what goes with them; made with the first thing that needs it, so
// that kernels which only fork empty processes do not pay for it.

import type {AnonVma} from './anon_vma.ts';
import {AnonVmas} from './anon_vma.ts';
import {type AddressSpace, AddressSpaces} from './address_space.ts';
import {PageTables, UserPgd} from '../arch/x86/mm/pgtable.ts';
import type {Kernel} from '../kernel.ts';
import {RwSemaphore} from '../locking/rwsem.ts';
import type {MmStruct} from '../mm_types.ts';
import {isBefore} from '../version.ts';
import {LeafLocks} from './leaf_lock.ts';
import {type MmFns, mmFns} from './fault_fns.ts';
import {type MmHooks, noHooks} from './mm_hooks.ts';
import {NotifierCounts} from './mmu_notifier.ts';
import {type NotifierFacts, notifierFacts} from './mmu_notifier_facts.ts';
import {Pages} from './page.ts';
import type {MmProbe} from './probe.ts';
import {UserMm} from './user_mm.ts';
import type {RmapTrees} from './vma_space.ts';
import {VmaSpace} from './vma_space.ts';

/** Memory management of one kernel. */
export class Mm implements RmapTrees {
  readonly pt = new PageTables();
  readonly pages: Pages;
  readonly anon: AnonVmas;
  readonly files = new AddressSpaces();
  readonly hooks: MmHooks = noHooks();
  readonly notifierFacts: NotifierFacts;
  readonly notifierCounts = new NotifierCounts();
  readonly fns: MmFns;
  /** Page-table locks by table number (split PTLs). */
  readonly ptl: LeafLocks;
  /** The page of zeros (ZERO_PAGE); maps are PTE_SPECIAL and not counted. */
  readonly zeroPfn = 1;
  probe: MmProbe | null = null;
  /** Per-VMA locks exist (6.4+). */
  readonly hasVmaLocks: boolean;
  private readonly iMmapLocks: RwSemaphore[] = [];
  private readonly anonVmaLocks: RwSemaphore[] = [];
  private readonly mms = new Map<number, UserMm>();
  private readonly levels: number;

  constructor(readonly kernel: Kernel) {
    const {machine, facts} = kernel;
    const pagesPerNode = Math.floor(machine.topology.nodeMemoryBytes / 4096);
    this.pages = new Pages(new Array<number>(machine.topology.nodeCount).fill(pagesPerNode));
    this.anon = new AnonVmas(!isBefore(facts.version, '4.0'));
    this.notifierFacts = notifierFacts(facts.design.notifier);
    this.fns = mmFns(kernel);
    this.ptl = new LeafLocks(kernel, 'ptlock_ptr(ptdesc)', 1024);
    this.hasVmaLocks = !isBefore(facts.version, '6.4');
    const {paging} = facts.design;
    this.levels = paging === '5-level' ? 5 : paging.startsWith('4') ? 4 : 3;
  }

  /** The user half of `mm`, made when it is not there yet. */
  userOf(mm: MmStruct): UserMm {
    if (mm.user !== null) return mm.user;
    const {kernel} = this;
    const pgd = new UserPgd(this.pt, this.levels, mm.id);
    const lock = new RwSemaphore(kernel, 'mmap_lock', {class: 'mmap_lock'});
    const user = new UserMm(mm, pgd, new VmaSpace(mm.id, this), lock);
    mm.user = user;
    this.mms.set(mm.id, user);
    return user;
  }

  /** From the id in a page table, VMA or rmap entry to its mm. */
  byId(id: number): UserMm | null {
    return this.mms.get(id) ?? null;
  }

  /** All mms with a user half, in order of creation. */
  users(): IterableIterator<UserMm> {
    return this.mms.values();
  }

  /** __mmdrop: the user half goes with the mm; exit_mmap has emptied it. */
  forget(mm: MmStruct): void {
    this.mms.delete(mm.id);
    mm.user = null;
  }

  /** i_mmap_rwsem of a file, made when first needed. */
  iMmapLock(mapping: AddressSpace): RwSemaphore {
    const {iMmapLocks, kernel} = this;
    iMmapLocks[mapping.id] ??= new RwSemaphore(kernel, 'i_mmap_rwsem', {class: 'i_mmap_rwsem'});
    return iMmapLocks[mapping.id];
  }

  /** rwsem of an anon_vma's root. */
  anonVmaLock(anon: AnonVma): RwSemaphore {
    const {anonVmaLocks, kernel} = this;
    const {id} = anon.rootVma;
    anonVmaLocks[id] ??= new RwSemaphore(kernel, 'anon_vma->rwsem', {class: 'anon_vma->rwsem'});
    return anonVmaLocks[id];
  }
}
