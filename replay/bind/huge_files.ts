// Which recorded names are files of hugetlbfs and DAX, and how large their units are. A recording
// says a name and nothing else, so the usual mount points decide:
//   /dev/hugepages*, /hugetlbfs*, /mnt/huge*, /memfd:hugetlb*   hugetlbfs, with "1G" of 1 GB pages
//   /dev/daxX.Y      device-dax with units of 2 MB; of 1 GB or 4 KB with -1g or -4k after the name
//   /mnt/pmem*, /pmem*                                         files of a DAX file system

import type {Kernel} from '../../kernel/kernel.ts';
import type {AddressSpace} from '../../kernel/mm/address_space.ts';
import {dax_create, type DaxWish} from '../../kernel/mm/dax.ts';
import {hugetlb_file_setup} from '../../kernel/mm/hugetlb_inode.ts';

const HUGETLB = /^\/(dev\/hugepages|hugetlbfs|mnt\/huge|memfd:hugetlb)/;
const DEVICE_DAX = /^\/dev\/dax\d+\.\d+(-1g|-4k)?$/;
const FS_DAX = /^\/(mnt\/)?pmem/;

/**
 * The file called `name` of at least `sizePages`, null when it is an ordinary one (or there is no
 * memory for it).
 */
export function hugeFile(kernel: Kernel, name: string, sizePages: number): AddressSpace | null {
  if (HUGETLB.test(name)) {
    const [small, large] = kernel.mm.hugetlb.hstates;
    return hugetlb_file_setup(kernel, /1G/i.test(name) ? large : small, sizePages);
  }
  const device = DEVICE_DAX.exec(name);
  if (device === null && !FS_DAX.test(name)) return null;
  const wish: DaxWish =
    device === null
      ? {kind: 'fs', pages: sizePages, alignPages: 512, node: 0}
      : {kind: 'device', pages: sizePages, alignPages: unitOf(device[1]), node: 0};
  const mapping = dax_create(kernel, wish);
  if (mapping === null) kernel.checks.warn(`${name}: no memory for a DAX file of this size`);
  return mapping;
}

function unitOf(suffix: string | undefined): DaxWish['alignPages'] {
  if (suffix === '-1g') return 262144;
  return suffix === '-4k' ? 1 : 512;
}

/** May the file still grow? The memory of a DAX file was taken as a whole. */
export function mayGrow(mapping: AddressSpace): boolean {
  return mapping.host !== 'dax';
}
