import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {blk_finish_plug, blk_flush_plug, blk_start_plug} from './blk_plug.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {access, mapAnon, runProcess} from './mm_testing.ts';
import {sys_swapon} from './swapfile.ts';
import {reclaim_mapped} from './vmscan_pages.ts';

const BASE = 0x5_5555_0000;
const PAGES = 16;

/** A process with an area of one device; `body` gets the pages' numbers. */
function reclaimer(
  body: (k: Kernel, t: Task, vpns: number[], requests: number[][]) => Code<unknown>,
): void {
  runProcess(function* (k, t) {
    const type = yield* sys_swapon(k, t, 4096);
    mapAnon(k, t.mm!, BASE, PAGES);
    const vpns = Array.from({length: PAGES}, (_, i) => BASE + i);
    for (const vpn of vpns) yield* access(k, t, vpn, true);
    const requests: number[][] = [];
    const device = k.mm.swap.devices[type]!;
    const write = device.writeRequest.bind(device);
    device.writeRequest = (cpu, heads, sizes, rotate) => {
      requests.push([...heads]);
      write(cpu, heads, sizes, rotate);
    };
    yield* body(k, t, vpns, requests);
  });
}

test('writes wait for the end of the plug, and neighbours are one request that ends as a whole', () => {
  reclaimer(function* (k, t, vpns, requests) {
    const {swap} = k.mm;
    assert.equal(blk_start_plug(k, t), true);
    assert.equal(blk_start_plug(k, t), false, 'a plug inside a plug is the same');
    const {unmapped, written} = yield* reclaim_mapped(k, t, t.mm!.user!, vpns);
    assert.deepEqual([unmapped, written.length], [PAGES, PAGES]);
    assert.equal(swap.writebacks, PAGES);
    yield* k.sched.sleep(t, 1e7);
    assert.equal(swap.writebacks, PAGES, 'nothing has gone out');
    assert.equal(requests.length, 0);
    blk_finish_plug(k, t);
    assert.equal(requests.length, 1);
    assert.equal(requests[0].length, PAGES);
    const counts: number[] = [];
    for (let i = 0; i < 400 && swap.writebacks > 0; i++) {
      yield* k.sched.sleep(t, 5000);
      if (counts.at(-1) !== swap.writebacks) counts.push(swap.writebacks);
    }
    assert.deepEqual(counts, [PAGES, 0]);
    assert.equal(swap.plugs.size, 0);
  });
});

test('slots that are no neighbours are requests of their own; a flush keeps the plug', () => {
  reclaimer(function* (k, t, vpns, requests) {
    const {areas} = k.mm.swap;
    blk_start_plug(k, t);
    const user = t.mm!.user!;
    yield* reclaim_mapped(k, t, user, vpns.slice(0, 4));
    // Somebody else takes the slot that would be next.
    areas.alloc(t.cpu.id, 1);
    yield* reclaim_mapped(k, t, user, vpns.slice(4, 6));
    blk_flush_plug(k, t);
    assert.deepEqual(
      requests.map((heads) => heads.length),
      [4, 2],
    );
    yield* reclaim_mapped(k, t, user, vpns.slice(6, 7));
    assert.equal(requests.length, 2);
    blk_finish_plug(k, t);
    assert.equal(requests.length, 3);
    yield* k.sched.sleep(t, 1e7);
    assert.equal(k.mm.swap.writebacks, 0);
  });
});
