// struct page: size, folios, counts, mappings, lists, LRU.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {
  PageTables,
  populateSlot,
  ptePopulate,
  setHuge,
  setPte,
  UserPgd,
} from '../arch/x86/mm/pgtable.ts';
import {PTE_PRESENT} from '../arch/x86/mm/pgtable_bits.ts';
import {CountArray} from './count_array.ts';
import {
  addEntireMapping,
  addPteMapping,
  entire_mapcount,
  folio_mapcount,
  folio_mapped,
  folio_maybe_dma_pinned,
  folio_put_testzero,
  nr_pages_mapped,
  page_mapcount,
  pinFolio,
  removeEntireMapping,
  removePteMapping,
  splitEntireMapping,
  unpinFolio,
} from './folio_counts.ts';
import {FolioBatch, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, Lruvecs} from './lru.ts';
import {PG_active, PG_anon_exclusive, PG_lru, PG_swapbacked, PG_uptodate} from './page_flags.ts';
import {
  compound_head,
  dissolve_compound,
  folio_nr_pages,
  folio_order,
  folio_test_anon,
  INDEX_LIMIT,
  MAPPING_ANON,
  MAPPING_FILE,
  MAPPING_KSM,
  mappingId,
  mappingKind,
  page_pgoff,
  Pages,
  prep_compound_page,
  setMapping,
  setMappingOwner,
  STRUCT_PAGE_BYTES,
} from './page.ts';
import {PageLists} from './page_list.ts';

test('a struct page is 24 bytes', () => {
  const pages = new Pages([4096]);
  const {flags, mapping, index, prev, next} = pages;
  const words = [flags, mapping, index, prev, next, pages.refcount.low, pages.mapcount.low];
  const bytes = words.reduce((sum, array) => sum + array.BYTES_PER_ELEMENT, 0);
  assert.equal(bytes, STRUCT_PAGE_BYTES);
  for (const array of words) assert.equal(array.length, pages.endPfn);
});

test('a page mapped by a PTE costs 31 bytes, tables included; by a huge entry, 24', () => {
  const pt = new PageTables();
  const pgd = new UserPgd(pt, 4, 1);
  const mapped = 2 ** 18;
  for (let vpn = 0; vpn < mapped; vpn++) setPte(pt, ptePopulate(pgd, vpn), 1024, PTE_PRESENT);
  const perTable = pt.capacityBytes / pt.level.length;
  const bytes = (pt.used * perTable) / mapped + STRUCT_PAGE_BYTES;
  assert.ok(bytes > 30 && bytes < 31, `${bytes} bytes`);
  const huge = new PageTables();
  const other = new UserPgd(huge, 4, 1);
  for (let vpn = 0; vpn < mapped; vpn += 512) {
    setHuge(huge, populateSlot(other, vpn, 1), 1024, PTE_PRESENT);
  }
  assert.ok((huge.used * perTable) / mapped < 0.1);
});

test('256 GB of memory that nobody uses costs the host next to nothing', () => {
  const before = process.memoryUsage().rss;
  const pages = new Pages([2 ** 25, 2 ** 25]);
  assert.ok(process.memoryUsage().rss - before < 100e6);
  assert.equal(pages.nodeOf(1024), 0);
  assert.equal(pages.nodeOf(pages.nodes[1].first), 1);
  assert.equal(pages.nodeOf(pages.endPfn - 1), 1);
});

test('counts of two bytes count like numbers', () => {
  const step = fc.oneof(fc.constant(1), fc.constant(-1), fc.integer({min: -70_000, max: 70_000}));
  fc.assert(
    fc.property(fc.integer({min: 0, max: 140_000}), fc.array(step), (start, steps) => {
      const counts = new CountArray(2);
      counts.set(1, start);
      let model = start;
      for (const delta of steps) {
        if (model + delta < 0) continue;
        model += delta;
        if (delta === 1) counts.increment(1);
        else if (delta === -1) counts.decrement(1);
        else counts.add(1, delta);
        assert.equal(counts.get(1), model);
        assert.equal(counts.isZero(1), model === 0);
      }
      assert.equal(counts.get(0), 0);
    }),
  );
  const counts = new CountArray(1);
  for (let i = 0; i < 65_536; i++) counts.increment(0);
  assert.equal(counts.isZero(0), false);
  for (let i = 0; i < 65_536; i++) counts.decrement(0);
  assert.ok(counts.isZero(0));
  assert.throws(() => counts.decrement(0), /below zero/);
});

test('owner, kind and index of a page survive each other', () => {
  const pages = new Pages([4096]);
  const kinds = fc.constantFrom(MAPPING_FILE, MAPPING_ANON, MAPPING_KSM);
  const index = fc.integer({min: 0, max: INDEX_LIMIT - 1});
  const id = fc.integer({min: 0, max: 2 ** 26 - 1});
  fc.assert(
    fc.property(kinds, id, index, id, (kind, first, at, second) => {
      setMapping(pages, 2000, kind, first, at);
      assert.equal(mappingKind(pages, 2000), kind);
      assert.equal(mappingId(pages, 2000), first);
      assert.equal(page_pgoff(pages, 2000), at);
      setMappingOwner(pages, 2000, MAPPING_KSM, second);
      assert.equal(mappingId(pages, 2000), second);
      assert.ok(folio_test_anon(pages, 2000));
      assert.equal(page_pgoff(pages, 2000), at);
    }),
  );
});

test('a folio knows its pages, and dissolves without a trace', () => {
  for (const order of [1, 2, 9, 10]) {
    const pages = new Pages([8192]);
    const head = 2048;
    pages.flags[head] = PG_uptodate;
    prep_compound_page(pages, head, order);
    assert.equal(folio_order(pages, head), order);
    assert.equal(folio_nr_pages(pages, head), 1 << order);
    assert.equal(pages.flags[head] & PG_uptodate, PG_uptodate);
    for (let i = 0; i < 1 << order; i++) assert.equal(compound_head(pages, head + i), head);
    assert.equal(compound_head(pages, head + (1 << order)), head + (1 << order));
    setMapping(pages, head, MAPPING_ANON, 5, 2 ** 35);
    assert.equal(page_pgoff(pages, head + 1), 2 ** 35 + 1);
    pages.flags[head + 1] |= PG_anon_exclusive;
    dissolve_compound(pages, head);
    assert.equal(pages.flags[head + 1], PG_anon_exclusive);
    assert.equal(pages.flags[head], PG_uptodate);
    for (let i = 1; i < 1 << order; i++) {
      assert.deepEqual([compound_head(pages, head + i), pages.next[head + i]], [head + i, 0]);
    }
  }
});

test('map counts of a large folio: entire, per page, and split', () => {
  const pages = new Pages([8192]);
  const head = 2048;
  prep_compound_page(pages, head, 9);
  assert.equal(folio_mapped(pages, head), false);
  assert.ok(addEntireMapping(pages, head));
  assert.equal(addEntireMapping(pages, head), false);
  assert.ok(addPteMapping(pages, head, head + 7));
  assert.equal(addPteMapping(pages, head, head + 7), false);
  assert.deepEqual(
    [folio_mapcount(pages, head), entire_mapcount(pages, head), nr_pages_mapped(pages, head)],
    [4, 2, 1],
  );
  assert.equal(page_mapcount(pages, head, head + 7), 4);
  splitEntireMapping(pages, head);
  assert.deepEqual(
    [folio_mapcount(pages, head), entire_mapcount(pages, head), nr_pages_mapped(pages, head)],
    [515, 1, 512],
  );
  assert.equal(removePteMapping(pages, head, head + 7), false);
  for (let i = 0; i < 512; i++) {
    if (i !== 7) assert.ok(removePteMapping(pages, head, head + i));
  }
  removePteMapping(pages, head, head + 7);
  removePteMapping(pages, head, head + 7);
  assert.ok(removeEntireMapping(pages, head));
  assert.equal(folio_mapped(pages, head), false);
  assert.equal(nr_pages_mapped(pages, head), 0);
});

test('pins are exact for large folios and a matter of references for small ones', () => {
  const pages = new Pages([8192]);
  prep_compound_page(pages, 2048, 9);
  for (const head of [2048, 4000]) {
    pages.refcount.set(head, 1);
    pinFolio(pages, head, 3);
    assert.ok(folio_maybe_dma_pinned(pages, head));
    assert.equal(unpinFolio(pages, head, 3), false);
    assert.equal(folio_maybe_dma_pinned(pages, head), false);
    assert.ok(folio_put_testzero(pages, head));
  }
});

test('lists keep the order of arrays', () => {
  const step = fc.record({
    kind: fc.constantFrom('head', 'tail', 'remove', 'popHead', 'popTail'),
    list: fc.constantFrom(0, 1),
    page: fc.integer({min: 1100, max: 1110}),
  });
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const lists = new PageLists(new Pages([4096]));
      lists.allocate(2);
      const models: number[][] = [[], []];
      for (const {kind, list, page} of steps) {
        const model = models[list];
        const on = models.find((other) => other.includes(page));
        if (kind === 'popHead') assert.equal(lists.popHead(list), model.shift() ?? 0);
        else if (kind === 'popTail') assert.equal(lists.popTail(list), model.pop() ?? 0);
        else if (kind === 'remove' && on === model) {
          lists.remove(list, page);
          model.splice(model.indexOf(page), 1);
        } else if (on === undefined && kind === 'head') {
          lists.addHead(list, page);
          model.unshift(page);
        } else if (on === undefined && kind === 'tail') {
          lists.addTail(list, page);
          model.push(page);
        }
      }
      for (const list of [0, 1]) {
        const found: number[] = [];
        for (let pfn = lists.head[list]; pfn !== 0; pfn = lists.pages.next[pfn]) found.push(pfn);
        assert.deepEqual(found, models[list]);
        assert.equal(lists.count[list], found.length);
      }
    }),
  );
});

test('folios are on the LRU list that their flags say, counted in pages', () => {
  const pages = new Pages([8192, 8192]);
  const lruvecs = new Lruvecs(new PageLists(pages), 2);
  prep_compound_page(pages, 2048, 9);
  pages.flags[2048] |= PG_swapbacked;
  const lruvec = lruvecs.ofFolio(2048);
  lruvec.addFolio(2048);
  assert.equal(lruvec.size[LRU_INACTIVE_ANON], 512);
  pages.flags[3000] = PG_active;
  lruvec.addFolio(3000);
  lruvec.addFolioTail(3001);
  assert.deepEqual([lruvec.size[LRU_ACTIVE_FILE], lruvec.size[LRU_INACTIVE_FILE]], [1, 1]);
  assert.equal(lruvec.oldest(LRU_INACTIVE_FILE), 3001);
  lruvec.delFolio(3000);
  assert.equal(pages.flags[3000], PG_active);
  assert.notEqual(lruvecs.ofFolio(pages.nodes[1].first), lruvec);
  // Splitting leaves the pages where the folio was.
  dissolve_compound(pages, 2048);
  for (const pfn of [2049, 2050]) {
    pages.flags[pfn] |= PG_swapbacked;
    lruvec.addSplitTail(2048, pfn);
    assert.ok((pages.flags[pfn] & PG_lru) !== 0);
  }
  assert.equal(lruvec.folios(LRU_INACTIVE_ANON), 3);
  assert.equal(lruvec.oldest(LRU_INACTIVE_ANON), 2048);
  assert.equal(lruvec.size[LRU_INACTIVE_ANON], 512);
  const batch = new FolioBatch(2);
  assert.equal(batch.add(pages, 3000), false);
  assert.equal(batch.add(pages, 3001), true);
});
