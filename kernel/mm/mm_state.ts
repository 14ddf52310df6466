// kernel.mm: the global state of memory management, as the static variables of mm/*.c are. Owns the
// arenas that all mms share (page tables, struct pages, anon_vmas, files) and what goes with them;
// made with the first thing that needs it, so that kernels which only fork empty processes do not
// pay for it.

import {PageTables, PTRS_PER_TABLE, pgdFree, pteClear, UserPgd} from '../arch/x86/mm/pgtable.ts';
import type {Uprobes} from '../events/uprobes.ts';
import type {Kernel} from '../kernel.ts';
import {Mutex} from '../locking/mutex.ts';
import {RwSemaphore} from '../locking/rwsem.ts';
import type {MmStruct} from '../mm_types.ts';
import type {NumaBalancing} from '../sched/numa.ts';
import {Srcu} from '../srcu.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {type AddressSpace, AddressSpaces} from './address_space.ts';
import type {AnonVma} from './anon_vma.ts';
import {AnonVmas} from './anon_vma.ts';
import type {Compaction} from './compaction.ts';
import {install_compaction} from './compaction_daemon.ts';
import {type CostsMm, costsMmOn} from './costs_mm.ts';
import {install_dax} from './dax_fault.ts';
import {type MmFns, mmFns} from './fault_fns.ts';
import {LargeFolios, ReadaheadMarks, UncachedRanges} from './filemap.ts';
import {LruAddBatches} from './folio_lru.ts';
import {type HugeMemory, install_huge_memory} from './huge_memory.ts';
import {type Hugetlb, install_hugetlb} from './hugetlb.ts';
import {install_ksm, type Ksm} from './ksm.ts';
import {LeafLocks} from './leaf_lock.ts';
import {type Lruvec, Lruvecs} from './lru.ts';
import {install_numa_balancing} from './memory_numa.ts';
import {Mempolicies} from './mempolicy.ts';
import {Migration} from './migrate_state.ts';
import {migration_entry_wait} from './migrate_wait.ts';
import {type MmHooks, noHooks} from './mm_hooks.ts';
import {NotifierCounts} from './mmu_notifier.ts';
import {type NotifierFacts, notifierFacts} from './mmu_notifier_facts.ts';
import {install_oom, type Oom} from './oom_kill.ts';
import {Pages} from './page.ts';
import {PG_hugetlb, PG_reserved} from './page_flags.ts';
import {PageLists} from './page_list.ts';
import type {MmProbe} from './probe.ts';
import {register_huge_shrinkers, Shrinkers} from './shrinker.ts';
import {SwapState} from './swap_state.ts';
import {install_reclaim} from './swapfile.ts';
import {install_truncate} from './truncate.ts';
import {FileHoles} from './truncate_holes.ts';
import {UserMm} from './user_mm.ts';
import {VmFault} from './vm_fault.ts';
import type {VmArea} from './vma.ts';
import type {RmapTrees} from './vma_space.ts';
import {VmaSpace} from './vma_space.ts';
import {makeZones, type Zone} from './zones.ts';

/**
 * When a page may be reused on a write fault: PG_anon_exclusive (5.19), page_count (5.9), mapcount.
 */
export type CowRule = 'exclusive' | 'refcount' | 'mapcount';

/** Room for the tables that map all memory twice, as after a fork, up to 256 GiB together. */
function tablesFor(pages: number): number {
  return Math.min(2 * Math.ceil(pages / PTRS_PER_TABLE), 2 ** 17);
}

/** Memory management of one kernel. */
export class Mm implements RmapTrees {
  readonly pt: PageTables;
  readonly pages: Pages;
  readonly lists: PageLists;
  readonly zones: Zone[];
  readonly lruvecs: Lruvecs;
  readonly lruAdd: LruAddBatches;
  readonly anon: AnonVmas;
  readonly files = new AddressSpaces();
  readonly uncached = new UncachedRanges();
  readonly holes = new FileHoles();
  /** Breakpoints, null while there never was one. */
  uprobes: Uprobes | null = null;
  /** shmem_swaplist: files of shared memory that may have swap entries. */
  readonly shmemSwaplist = new Set<AddressSpace>();
  readonly readahead = new ReadaheadMarks();
  readonly largeFolios = new LargeFolios();
  /** Fault-around and finish_fault map whole large folios of files (6.18). */
  readonly mapsWholeFolios: boolean;
  readonly costs: CostsMm;
  readonly swap: SwapState;
  readonly migration: Migration;
  readonly compaction: Compaction;
  /** NUMA balancing; it scans only machines of several nodes. */
  readonly numa: NumaBalancing;
  readonly policies: Mempolicies;
  readonly hooks: MmHooks = noHooks();
  readonly notifierFacts: NotifierFacts;
  /** mmu_notifier's srcu, one for all mms; mm_all_locks_mutex. */
  readonly srcu: Srcu;
  readonly allLocksMutex: Mutex;
  /** Lockdep's class of mmu_notifier_invalidate_range_start. */
  readonly notifierClass: number;
  readonly notifierCounts = new NotifierCounts();
  readonly fns: MmFns;
  /** Page-table locks by table number (split PTLs), zone->lock by node, lru_lock by lruvec. */
  readonly ptl: LeafLocks;
  readonly zoneLocks: LeafLocks;
  readonly lruLocks: LeafLocks;
  /** The page of zeros (ZERO_PAGE); maps are PTE_SPECIAL and not counted. */
  readonly zeroPfn = 1;
  probe: MmProbe | null = null;
  /** Per-VMA locks exist (6.4+). */
  readonly hasVmaLocks: boolean;
  /** free_pgtables takes a file's i_mmap lock once for up to 8 VMAs (6.10+). */
  readonly batchesFileUnlink: boolean;
  readonly cowRule: CowRule;
  /** Transparent huge pages (2.6.38+) and KSM (2.6.32+); their daemons are started apart. */
  readonly huge: HugeMemory | null;
  readonly hugetlb: Hugetlb;
  readonly ksm: Ksm | null;
  readonly oom: Oom;
  readonly shrinkers: Shrinkers;
  /** filemap_map_pages exists (3.15+). */
  readonly faultAround: boolean;
  /** FAULT_ class of the last handle_mm_fault. */
  lastFaultClass = 0;
  /** The fast path's fault: it is over before anything else can run. */
  readonly fastFault: VmFault;
  /** Work space of loops that run through: pages being freed. */
  readonly freeScratch = new Int32Array(64);
  private readonly iMmapLocks: RwSemaphore[] = [];
  private readonly anonVmaLocks: RwSemaphore[] = [];
  private readonly specialPages: number[] = [];
  private readonly mms = new Map<number, UserMm>();
  private readonly levels: number;

  constructor(readonly kernel: Kernel) {
    const {machine, facts} = kernel;
    this.costs = costsMmOn(machine.topology);
    const {version} = facts;
    const pagesPerNode = Math.floor(machine.topology.nodeMemoryBytes / 4096);
    this.pages = new Pages(new Array<number>(machine.topology.nodeCount).fill(pagesPerNode));
    this.pt = new PageTables(tablesFor(this.pages.endPfn));
    this.lists = new PageLists(this.pages);
    this.fastFault = new VmFault(kernel.initMm, null!, null!, 0, 0);
    this.zones = makeZones(kernel, this.pages, this.lists);
    this.lruvecs = new Lruvecs(this.lists, machine.topology.nodeCount);
    const batch = isBefore(version, '4.13') ? 14 : isBefore(version, '6.9') ? 15 : 31;
    this.lruAdd = new LruAddBatches(batch);
    this.anon = new AnonVmas(!isBefore(version, '4.0'));
    this.notifierFacts = notifierFacts(facts.design.notifier);
    this.srcu = new Srcu(kernel, 'mmu_notifier srcu');
    this.notifierClass = kernel.locks.classId('mmu_notifier_invalidate_range_start');
    this.allLocksMutex = new Mutex(kernel, 'mm_all_locks_mutex');
    this.fns = mmFns(kernel);
    this.ptl = new LeafLocks(kernel, 'ptlock_ptr(ptdesc)', 1024);
    this.zoneLocks = new LeafLocks(kernel, 'zone->lock', machine.topology.nodeCount);
    this.lruLocks = new LeafLocks(kernel, 'lruvec->lru_lock', machine.topology.nodeCount);
    this.hasVmaLocks = !isBefore(version, '6.4');
    this.batchesFileUnlink = !isBefore(version, '6.10');
    this.mapsWholeFolios = !isBefore(facts.version, '6.18');
    this.faultAround = !isBefore(version, '3.15');
    const shares = isBefore(version, '5.9') ? 'mapcount' : 'refcount';
    this.cowRule = isBefore(version, '5.19') ? shares : 'exclusive';
    const {paging} = facts.design;
    this.swap = new SwapState(kernel);
    install_reclaim(kernel, this);
    install_dax(kernel, this);
    this.hugetlb = install_hugetlb(kernel, this);
    this.migration = new Migration(kernel);
    this.compaction = install_compaction(kernel, this);
    this.hooks.migration_entry_wait = (t, f) => migration_entry_wait(kernel, t, f);
    this.numa = install_numa_balancing(kernel, this);
    this.policies = new Mempolicies(kernel);
    this.hooks.policyNode = (t, vma, vpn) => this.policies.nodeFor(t, vma, vpn);
    this.oom = install_oom(kernel, this);
    this.shrinkers = new Shrinkers(kernel);
    install_truncate(kernel, this);
    this.huge = isBefore(version, '2.6.38') ? null : install_huge_memory(kernel, this);
    if (this.huge !== null) register_huge_shrinkers(this.shrinkers, this.huge);
    this.ksm = isBefore(version, '2.6.32') ? null : install_ksm(kernel, this);
    this.levels = paging === '5-level' ? 5 : paging.startsWith('4') ? 4 : 3;
  }

  /** Index of an lruvec's lock. */
  lruLock(lruvec: Lruvec): number {
    return lruvec.memcg * this.zones.length + lruvec.node;
  }

  isHugetlb(head: number): boolean {
    return (this.pages.flags[head] & PG_hugetlb) !== 0;
  }

  /**
   * Node that a new page for this address should come from: the VMA's policy, else where the task
   * runs.
   */
  nodeFor(vma: VmArea, vpn: number, t: Task): number {
    if (vma.policy !== 0 && this.hooks.policyNode !== null)
      return this.hooks.policyNode(t, vma, vpn);
    return this.kernel.machine.topology.nodeOf[t.cpu.id];
  }

  /** Page `index` of the special mapping that all processes share (vdso code). */
  specialPage(t: Task, index: number): number {
    let pfn = this.specialPages[index] ?? 0;
    if (pfn !== 0) return pfn;
    pfn = this.zones[this.kernel.machine.topology.nodeOf[t.cpu.id]].buddy.alloc(0);
    this.pages.flags[pfn] = PG_reserved;
    this.pages.refcount.set(pfn, 1);
    this.specialPages[index] = pfn;
    return pfn;
  }

  /** Takes a marker out of its PTE. */
  clearMarker(slot: number): void {
    pteClear(this.pt, slot);
  }

  /** An invalidation pair that nobody listens to: counted, traced. */
  countPair(mm: MmStruct, event: number, start: number, end: number, site: string): void {
    const row = this.notifierCounts.site(site);
    row.start[event]++;
    row.end[event]++;
    row.pages += end - start;
    if (this.probe === null) return;
    this.probe.notifier(mm, 'start', event, site, start, end);
    this.probe.notifier(mm, 'end', event, site, start, end);
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
    const {mmlist} = this.swap;
    const at = mmlist.indexOf(mm.id);
    if (at >= 0) mmlist.splice(at, 1);
    if (mm.user !== null) pgdFree(mm.user.pgd);
    mm.user = null;
  }

  /** i_mmap_rwsem of a file, made when first needed. */
  iMmapLock(mapping: AddressSpace): RwSemaphore {
    return (
      this.iMmapLocks[mapping.id] ?? this.makeLock(this.iMmapLocks, mapping.id, 'i_mmap_rwsem')
    );
  }

  /** rwsem of an anon_vma's root. */
  anonVmaLock(anon: AnonVma): RwSemaphore {
    const {id} = anon.rootVma;
    return this.anonVmaLocks[id] ?? this.makeLock(this.anonVmaLocks, id, 'anon_vma->rwsem');
  }

  private makeLock(locks: RwSemaphore[], id: number, name: string): RwSemaphore {
    const lock = new RwSemaphore(this.kernel, name, {class: name});
    locks[id] = lock;
    return lock;
  }
}
