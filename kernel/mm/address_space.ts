// address_space: the page cache of one file, tmpfs file, or shared anonymous memory, and who maps
// it.
//
// i_pages maps a page offset to the pfn of the page that holds it (each page of a large folio has
// its own entry, so a lookup needs no order), or to a value entry: the swap entry of a swapped-out
// shmem page, elsewhere the shadow that a reclaimed page leaves. i_mmap is the interval tree of the
// VMAs that map the file.

import {assert, bug} from '../../machine/assert.ts';
import type {DaxMemory} from './dax.ts';
import type {HugetlbInode} from './hugetlb_inode.ts';
import {IntervalForest} from './interval_tree.ts';
import type {VmArea} from './vma.ts';
import {xa_is_value, xa_mk_value, xa_to_value, XArrays} from './xarray.ts';

/** What kind of file is behind it. */
export type MappingHost = 'file' | 'shmem' | 'hugetlb' | 'dax' | 'device';

/** The pages of one file. */
export class AddressSpace {
  /** i_pages. */
  readonly pages = {node: 0, height: 0};
  /** i_mmap: root of the interval tree. */
  root = 0;
  /** Pages in the cache (nrpages), without value entries. */
  nrpages = 0;
  /** Value entries: swapped (shmem) or shadow. */
  nrValues = 0;
  /** i_mmap_writable: shared mappings that may be written. */
  mmapWritable = 0;
  /** VMAs in the i_mmap tree. */
  nrMaps = 0;
  /** No name and nobody has it open: the file goes with its last mapping. */
  unlinked = false;
  /**
   * Of a DAX file: the memory behind it (dax.ts). Of a hugetlbfs file: its inode
   * (hugetlb_inode.ts).
   */
  dax: DaxMemory | null = null;
  hugetlb: HugetlbInode | null = null;

  constructor(
    /** What page->mapping holds; below 2^26. */
    readonly id: number,
    readonly host: MappingHost,
    /** Size of the file in pages (i_size); truncation changes it. */
    public sizePages: number,
  ) {}
}

/** All files of the machine. */
export class AddressSpaces {
  readonly forest = new IntervalForest<VmArea>();
  readonly arrays = new XArrays();
  private readonly byId: (AddressSpace | null)[] = [null];
  private readonly freeIds: number[] = [];

  /** A new, empty one. */
  create(host: MappingHost, sizePages: number): AddressSpace {
    const id = this.freeIds.pop() ?? this.byId.length;
    const mapping = new AddressSpace(id, host, sizePages);
    this.byId[id] = mapping;
    return mapping;
  }

  /** The address_space with this id, null when it is gone. */
  find(id: number): AddressSpace | null {
    return this.byId[id] ?? null;
  }

  /** Evicts an inode: it must have no pages, value entries or mappings left. */
  destroy(mapping: AddressSpace): void {
    assert(mapping.nrpages === 0 && mapping.nrValues === 0, 'inode freed with pages');
    assert(mapping.root === 0, 'inode freed while mapped');
    this.byId[mapping.id] = null;
    this.freeIds.push(mapping.id);
  }

  /** pfn cached at `index`, 0 when nothing or a value entry is there. */
  page(mapping: AddressSpace, index: number): number {
    return Math.max(this.arrays.load(mapping.pages, index), 0);
  }

  /** Value entry at `index`: swap entry or shadow, -1 for none. */
  value(mapping: AddressSpace, index: number): number {
    const entry = this.arrays.load(mapping.pages, index);
    return xa_is_value(entry) ? xa_to_value(entry) : -1;
  }

  /** __filemap_add_folio for one page; returns the value entry it replaced, -1 for none. */
  addPage(mapping: AddressSpace, index: number, pfn: number): number {
    const old = this.arrays.store(mapping.pages, index, pfn);
    if (old > 0) bug(`page cache of file ${mapping.id} already has index ${index}`);
    mapping.nrpages++;
    if (old === 0) return -1;
    mapping.nrValues--;
    return xa_to_value(old);
  }

  /** Takes one page out; `value` (-1 for none) stays in its place. Returns the pfn. */
  removePage(mapping: AddressSpace, index: number, value: number): number {
    const old = this.arrays.store(mapping.pages, index, value < 0 ? 0 : xa_mk_value(value));
    if (old <= 0) bug(`page cache of file ${mapping.id} has no page at ${index}`);
    mapping.nrpages--;
    if (value >= 0) mapping.nrValues++;
    return old;
  }

  /** Puts another page in a page's place (migration, collapse, splitting); returns the old pfn. */
  replacePage(mapping: AddressSpace, index: number, pfn: number): number {
    const old = this.arrays.store(mapping.pages, index, pfn);
    if (old <= 0) bug(`page cache of file ${mapping.id} has no page at ${index}`);
    return old;
  }

  /**
   * Removes a value entry (shmem swap entry freed, shadow pruned) and returns it, -1 when there was
   * none.
   */
  removeValue(mapping: AddressSpace, index: number): number {
    const value = this.value(mapping, index);
    if (value < 0) return -1;
    this.arrays.erase(mapping.pages, index);
    mapping.nrValues--;
    return value;
  }

  /** First index in [index, last] with a page or value entry, -1 when there is none. */
  nextIndex(mapping: AddressSpace, index: number, last: number): number {
    return this.arrays.find(mapping.pages, index, last);
  }

  /**
   * __vma_link_file: enters the VMA into its file's i_mmap tree; with `after`, right behind that
   * VMA (fork).
   */
  link(vma: VmArea, after: VmArea | null = null): void {
    const {mapping} = vma;
    if (mapping === null) return;
    const node = this.forest.allocate(vma, mapping.id);
    this.forest.setExtent(node, vma.pgoff, vma.pgoff + vma.pages - 1);
    if (after === null) this.forest.insert(mapping, node);
    else this.forest.insertAfter(mapping, node, after.iMmapNode);
    vma.iMmapNode = node;
    mapping.nrMaps++;
  }

  /** unlink_file_vma. */
  unlink(vma: VmArea): void {
    const {mapping} = vma;
    if (mapping === null || vma.iMmapNode === 0) return;
    this.forest.remove(mapping, vma.iMmapNode);
    this.forest.release(vma.iMmapNode);
    vma.iMmapNode = 0;
    mapping.nrMaps--;
  }

  /** Takes the VMA out of the tree while its extent changes. */
  preUpdate(vma: VmArea): void {
    if (vma.mapping !== null) this.forest.remove(vma.mapping, vma.iMmapNode);
  }

  /** Puts it back, at its new extent. */
  postUpdate(vma: VmArea): void {
    if (vma.mapping === null) return;
    this.forest.setExtent(vma.iMmapNode, vma.pgoff, vma.pgoff + vma.pages - 1);
    this.forest.insert(vma.mapping, vma.iMmapNode);
  }
}
