// What a recorded mapping maps: from the name in the recorder's record, or from mmap's flags, to
// the properties of a VMA.

import {argNumber} from '../../formats/columns.ts';
import {isOperation, KIND} from '../../formats/kinds.ts';
import type {AddressSpace} from '../../kernel/mm/address_space.ts';
import {shmem_zero_setup} from '../../kernel/mm/mmap.ts';
import {
  MAP_ANONYMOUS,
  MAP_HUGETLB,
  MAP_SHARED,
  propsFor,
  vdsoProps,
  vmFlags,
  vvarProps,
} from '../../kernel/mm/mmap_prot.ts';
import {mmapProps} from '../../kernel/mm/mmap_props.ts';
import type {VmaProps} from '../../kernel/mm/vma.ts';
import {type BindingContext, vpnArg} from './binding.ts';

const MAP_TYPE = 0xf;
/** What the recorder calls the file behind MAP_ANONYMOUS | MAP_HUGETLB. */
const ANON_HUGEPAGE = /^\/anon_hugepage/;
/** Events after which the record of a mapping is not looked for any more. */
const LOOK_AHEAD = 4096;

/** A mapping as a trace has it. */
export interface RecordedMapping {
  readonly pages: number;
  readonly pgoff: number;
  readonly prot: number;
  readonly flags: number;
  /** The recorder's name; empty when there is none. */
  readonly name: string;
}

function isAnonymous({name, flags}: RecordedMapping): boolean {
  if (name === '' || name === '//anon') return (flags & MAP_ANONYMOUS) !== 0 || name === '//anon';
  return name.startsWith('[') || name.startsWith('/dev/zero');
}

/** Properties of the VMA that `mapping` makes. */
export function propsOfMapping(context: BindingContext, mapping: RecordedMapping): VmaProps {
  const {kernel} = context;
  const {name, prot, flags, pages, pgoff} = mapping;
  if (name === '[vdso]') return vdsoProps();
  if (name.startsWith('[vvar')) return vvarProps();
  const vm = vmFlags(kernel, prot, flags);
  if ((flags & MAP_HUGETLB) !== 0 || ANON_HUGEPAGE.test(name)) {
    return mmapProps(kernel, vm, flags | MAP_HUGETLB, null, pages);
  }
  if (isAnonymous(mapping)) {
    const shared = (flags & MAP_TYPE) !== 0 && (flags & MAP_SHARED) !== 0;
    const props = propsFor(vm, null);
    return shared ? shmem_zero_setup(kernel, props, pages) : props;
  }
  return mmapProps(kernel, vm, flags, fileOf(context, name, pgoff + pages), pages);
}

function fileOf({files}: BindingContext, name: string, sizePages: number): AddressSpace {
  return files.named(name === '' ? 'a file without a name' : name, sizePages);
}

/**
 * The name that the recorder gave to what operation event `i`, an mmap, mapped; empty when it wrote
 * nothing.
 */
export function recordedName({events, strings}: BindingContext, i: number): string {
  const tid = events.tid[i];
  const end = Math.min(i + LOOK_AHEAD, events.count);
  for (let at = i + 1; at < end; at++) {
    if (events.tid[at] !== tid) continue;
    const kind = events.kind[at];
    if (kind === KIND.mapped) return strings[argNumber(events, at, 5)] ?? '';
    if (kind === KIND.sys_exit || isOperation(kind)) return '';
  }
  return '';
}

/**
 * Event of the mapping that becomes the stack of the exec which event `i` is; -1 when the trace has
 * none.
 */
export function stackMapping({events}: BindingContext, i: number): number {
  const tid = events.tid[i];
  const end = Math.min(i + LOOK_AHEAD, events.count);
  for (let at = i + 1; at < end; at++) {
    if (events.tid[at] !== tid) continue;
    const kind = events.kind[at];
    if (kind === KIND.map && isStack(argNumber(events, at, 4))) return at;
    if (kind === KIND.sys_exit) return -1;
    if (isOperation(kind) && kind !== KIND.map && kind !== KIND.access) return -1;
  }
  return -1;
}

/**
 * Names of what the exec that event `i` is has mapped; empty when the trace has none of its
 * mappings.
 */
export function execMappings({events, strings}: BindingContext, i: number): string[] {
  const tid = events.tid[i];
  const end = Math.min(i + LOOK_AHEAD, events.count);
  const names: string[] = [];
  for (let at = i + 1; at < end; at++) {
    if (events.tid[at] !== tid) continue;
    const kind = events.kind[at];
    if (kind === KIND.map) names.push(strings[argNumber(events, at, 5)] ?? '');
    else if (kind === KIND.sys_exit || (isOperation(kind) && kind !== KIND.access)) break;
  }
  return names;
}

/**
 * Pages that the mapping of event `i` keeps. exec maps the first segment of a program or
 * interpreter over all of its segments, and then unmaps what is not the segment's (elf_load): the
 * recorder shows only the whole, and after it the next segment inside it. A hole between segments
 * stays empty.
 */
export function segmentPages({events}: BindingContext, i: number, pages: number): number {
  const tid = events.tid[i];
  const start = vpnArg(events, i, 0);
  const file = argNumber(events, i, 5);
  const end = Math.min(i + LOOK_AHEAD, events.count);
  for (let at = i + 1; at < end; at++) {
    if (events.tid[at] !== tid) continue;
    const kind = events.kind[at];
    if (kind === KIND.sys_exit) break;
    if (kind === KIND.map) {
      const inside = vpnArg(events, at, 0) - start;
      const follows = argNumber(events, at, 5) === file && inside > 0 && inside < pages;
      return follows ? inside : pages;
    }
    if (isOperation(kind) && kind !== KIND.access) break;
  }
  return pages;
}

/** MAP_GROWSDOWN. */
export function isStack(flags: number): boolean {
  return (flags & 0x100) !== 0;
}
