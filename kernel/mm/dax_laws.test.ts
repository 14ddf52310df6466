// Laws of DAX mappings, whatever processes do: counters end at zero, every page of the device has
// its one reference again and no mapping, page tables go, and nothing is found (with the series
// whole).

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {sys_wait4} from '../exit.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {dax_create, daxCounts} from './dax.ts';
import {GB, runDesign, SHARED_RW} from './dax_testing.ts';
import {dax_writeback_mapping_range} from './dax_writeback.ts';
import {folio_mapcount} from './folio_counts.ts';
import {child} from './hugetlb_testing.ts';
import {do_madvise} from './madvise.ts';
import {MADV_DONTNEED} from './madvise_numbers.ts';
import {access} from './mm_testing.ts';
import {sys_mmap} from './mmap.ts';
import {mmapProps} from './mmap_props.ts';
import {sys_munmap} from './mmap_unmap.ts';
import {do_mprotect} from './mprotect.ts';
import {do_mremap, MREMAP_FIXED, MREMAP_MAYMOVE} from './mremap.ts';
import {compound_head} from './page.ts';
import {VM_MAYSHARE, VM_SHARED} from './vma_flags.ts';

const BASE = 2 ** 31;
const SLOTS = 4;

const step = fc.record({
  what: fc.constantFrom(
    'map',
    'map',
    'read',
    'write',
    'write',
    'unmap',
    'protect',
    'move',
    'dontneed',
    'writeback',
    'fork',
  ),
  slot: fc.nat(SLOTS - 1),
  file: fc.nat(3),
  at: fc.constantFrom(0, 5, 512, 700, 1023, 100_000),
  n: fc.constantFrom(1, 300, 512, 1024, GB),
  prot: fc.constantFrom(0, 1, 3),
  shared: fc.boolean(),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** A device of each unit and a file. */
function makeFiles(k: Kernel): AddressSpace[] {
  const files = [
    dax_create(k, {kind: 'device', pages: GB, alignPages: 262144, node: 0}),
    dax_create(k, {kind: 'device', pages: 2048, alignPages: 512, node: 0}),
    dax_create(k, {kind: 'device', pages: 1024, alignPages: 1, node: 0}),
    dax_create(k, {kind: 'fs', pages: 2048, alignPages: 512, node: 0}),
  ];
  return files.map((file) => {
    assert.ok(file !== null);
    return file;
  });
}

function* mapFile(k: Kernel, t: Task, one: Step, file: AddressSpace): Code {
  const isPrivate = !one.shared && file.dax!.kind === 'fs';
  const vm = isPrivate ? SHARED_RW & ~(VM_SHARED | VM_MAYSHARE) : SHARED_RW;
  const pages = Math.min(file.sizePages, one.n === 1 ? file.sizePages : Math.max(one.n, 512));
  const props = mmapProps(k, vm, 1, file, pages);
  const start = BASE + one.slot * GB;
  yield* sys_mmap(k, t, {start, fixed: true, pages, pgoff: 0, props, populate: false});
}

function* apply(
  k: Kernel,
  t: Task,
  one: Step,
  files: readonly AddressSpace[],
  rest: readonly Step[],
): Code {
  const area = BASE + one.slot * GB;
  const at = area + one.at;
  switch (one.what) {
    case 'map':
      yield* mapFile(k, t, one, files[one.file]);
      break;
    case 'read':
    case 'write':
      yield* access(k, t, at, one.what === 'write');
      break;
    case 'unmap':
      yield* sys_munmap(k, t, at, at + one.n);
      break;
    case 'protect':
      yield* do_mprotect(k, t, at, one.n, one.prot);
      break;
    case 'move': {
      const to = BASE + ((one.slot + 1) % SLOTS) * GB;
      const whole = t.mm!.user?.space.tree.lookup(area)?.pages ?? 1;
      yield* do_mremap(k, t, area, whole, whole, MREMAP_FIXED | MREMAP_MAYMOVE, to);
      break;
    }
    case 'dontneed':
      yield* do_madvise(k, t, at, one.n, MADV_DONTNEED);
      break;
    case 'writeback':
      yield* dax_writeback_mapping_range(k, t, files[3], 0, 2048);
      break;
    default:
      yield* child(k, t, (c) => applyAll(k, c, rest, files));
  }
}

function* applyAll(
  k: Kernel,
  t: Task,
  steps: readonly Step[],
  files: readonly AddressSpace[],
): Code {
  for (const [n, one] of steps.entries()) yield* apply(k, t, one, files, steps.slice(n + 1, n + 5));
}

function checkPages(k: Kernel, files: readonly AddressSpace[]): void {
  const {pages} = k.mm;
  for (const {dax, sizePages, root} of files) {
    assert.equal(root, 0);
    for (let pfn = dax!.firstPfn; pfn < dax!.firstPfn + sizePages; pfn += 1) {
      const head = compound_head(pages, pfn);
      if (head !== pfn) continue;
      assert.equal(folio_mapcount(pages, head), 0, `page ${pfn} is still mapped`);
      assert.equal(pages.refcount.get(head), 1, `references of page ${pfn}`);
    }
  }
}

for (const version of ['6.18', '6.12', '5.5']) {
  test(`DAX mappings leave nothing behind (${version})`, () => {
    fc.assert(
      fc.property(fc.array(step, {maxLength: 12}), (steps) => {
        let files: AddressSpace[] = [];
        const k = runDesign(version, [], function* (k, t) {
          files = makeFiles(k);
          yield* applyAll(k, t, steps, files);
          while ((yield* sys_wait4(k, t, -1, 0)) >= 0);
          yield* sys_munmap(k, t, BASE, BASE + (SLOTS + 1) * GB);
          assert.ok([...k.mm.userOf(t.mm!).rss.counts].every((n) => n === 0));
        });
        if (daxCounts(k)) checkPages(k, files);
        if (version === '6.18' || version === '6.12') assert.deepEqual(k.checks.findings, []);
        assert.equal(k.mm.pt.used, 0);
      }),
      {numRuns: 40},
    );
  });
}
