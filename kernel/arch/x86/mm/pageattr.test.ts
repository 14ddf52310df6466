import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Kernel} from '../../../kernel.ts';
import type {Task} from '../../../task.ts';
import type {Code} from '../../../../machine/process.ts';
import {efi_map_region, efi_unmap_region} from './efi.ts';
import {kernel_access, vmalloc_fault} from './fault.ts';
import {add_memory, remove_memory} from './hotplug.ts';
import {change_page_attr} from './pageattr.ts';
import type {KernelPgd} from './pgd_pool.ts';
import {LARGE} from './tables.ts';
import {bootKernel, startOn} from './testing.ts';

const SECTION = 32_768;
const PFN = 5 * 2 ** 27;

function runOn(k: Kernel, code: (t: Task) => Code<unknown>): void {
  startOn(k, 0, function* (t) {
    yield* k.sched.sleep(t, 1e7);
  });
  startOn(k, 1, code);
  k.machine.engine.run();
}

for (const paging of ['2-level', 'pae-shared', 'pae-private'] as const) {
  test(`${paging}: splitting a large page of lowmem reaches every PGD`, () => {
    const k = bootKernel({design: [`paging=${paging}`]});
    const {layout, swapper_pg_dir} = k.pageTables;
    runOn(k, function* (t) {
      const index = k.pageTables.pgd_index(layout.directMap + 5000);
      assert.ok(swapper_pg_dir[index] >= LARGE);
      yield* change_page_attr(k, t, layout.directMap + 5000, 1, 0);
      yield* k.sched.sleep(t, 1e5);
      assert.ok(swapper_pg_dir[index] < LARGE && swapper_pg_dir[index] > 0);
      k.pageTables.pool.forEach((pgd) => {
        assert.equal(pgd.cells[pgd.base + index], swapper_pg_dir[index]);
      });
      assert.equal(k.checks.counters.get('cpa_large_pages_split'), 1);
    });
    assert.deepEqual(k.checks.findings, []);
  });
}

test('64 bits: a split is below the synchronised level, level by level', () => {
  const k = bootKernel();
  const {layout} = k.pageTables;
  runOn(k, function* (t) {
    const {generation} = k.pageTables;
    yield* change_page_attr(k, t, layout.directMap + 777, 3, 0);
    assert.equal(k.checks.counters.get('cpa_large_pages_split'), 2, '1 GB to 2 MB to 4 KB');
    assert.equal(k.pageTables.generation, generation);
  });
  assert.deepEqual(k.checks.findings, []);
});

test('32 bits: vmalloc_fault repairs the PGD of the others, vmalloc_sync_all makes that needless', () => {
  for (const synced of [false, true]) {
    const k = bootKernel({design: ['paging=2-level']});
    let vpn = 0;
    startOn(k, 0, function* (t) {
      yield* k.sched.sleep(t, 1e7);
      assert.equal(yield* kernel_access(k, t, vpn), !synced);
      assert.equal(yield* kernel_access(k, t, vpn), false);
    });
    startOn(k, 1, function* (t) {
      vpn = yield* k.vmalloc.vmalloc(t, 4096, 'test');
      vpn += 2048;
      if (synced) yield* k.pgd.vmalloc_sync_all(t);
    });
    k.machine.engine.run();
    assert.equal(k.checks.counters.get('vmalloc_faults') ?? 0, synced ? 0 : 1);
    assert.deepEqual(k.checks.findings, []);
  }
});

test('vmalloc_fault: BUG on mismatch, a warning in NMI, false for a real fault', () => {
  const k = bootKernel();
  const {VMALLOC_START} = k.pageTables.layout;
  runOn(k, function* (t) {
    assert.equal(yield* vmalloc_fault(k, t, VMALLOC_START + 3 * 2 ** 27), false);
    yield* vmalloc_fault(k, t, VMALLOC_START, 'nmi');
    assert.equal(k.checks.counters.get('vmalloc_faults_in_nmi'), 1);
    const pgd = t.mm!.pgd as KernelPgd;
    k.pageTables.set_pgd(t.cpu, pgd, k.pageTables.pgd_index(VMALLOC_START), 999_999);
    yield* vmalloc_fault(k, t, VMALLOC_START);
  });
  assert.match(k.checks.findings.join('\n'), /BUG: vmalloc_fault: entry \d+ of mm \d+ differs/);
});

test('4.1: unmap_pgd_range frees a PUD page that all PGDs share; 4.13 and the series keep it', () => {
  for (const [version, design, found] of [
    ['4.1', 'pgd-list', true],
    ['4.13', 'pgd-list', false],
    ['4.1', 'lockless-2015-09', false],
  ] as const) {
    const k = bootKernel({version, design: [`pgd=${design}`]});
    runOn(k, function* (t) {
      yield* k.sched.sleep(t, 1e6);
      yield* add_memory(k, t, PFN, SECTION, 0);
      yield* efi_map_region(k, t, PFN + 2 ** 20, 16);
      yield* remove_memory(k, t, PFN, SECTION, 0);
      yield* efi_unmap_region(k, t, PFN + 2 ** 20, 16);
    });
    const text = k.checks.findings.join('\n');
    assert.equal(/unmap_pgd_range frees the PUD page of entry 21/.test(text), found, text);
  }
});

test('the EFI PGD is on no list and is brought up to date before use', () => {
  const k = bootKernel();
  runOn(k, function* (t) {
    yield* efi_map_region(k, t, 1000, 4);
    const before = k.checks.counters.get('special_pgd_synced') ?? 0;
    yield* add_memory(k, t, PFN, SECTION, 0);
    const efi = k.pageTables.pool.special('efi_pgd');
    const index = k.pageTables.pgd_index(k.pageTables.directMapVpn(PFN));
    assert.equal(k.pageTables.entry(t.cpu, efi, index), 0, 'no walk finds it');
    yield* efi_unmap_region(k, t, 1000, 4);
    assert.equal(k.checks.counters.get('special_pgd_synced'), before + 1);
  });
  assert.deepEqual(k.checks.findings, []);
});
