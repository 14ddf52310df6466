import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {Rng} from '../../machine/rng.ts';
import {LockRig} from './rig.ts';

test('a reader never sees a torn pair, whatever the store buffers do', () => {
  fc.assert(
    fc.property(fc.integer({min: 1, max: 7}), fc.integer({min: 0, max: 1e6}), (readers, seed) => {
      const rig = new LockRig('2s4c1t', 'qspinlock', seed);
      const seqcount = rig.locks.seqcount('timekeeper');
      const {storeBuffers, engine} = rig.machine;
      const cells = new Uint32Array(2);
      const rng = new Rng(seed, 'writer');
      let reads = 0;
      rig.start(0, function* (t) {
        for (let value = 1; value <= 20; value++) {
          if (rig.work(t, rng.nextInt(4000))) yield;
          seqcount.writeBegin(t, rig.fn);
          for (let i = 0; i < 2; i++) {
            if (t.cpu.settle()) yield;
            storeBuffers.store(0, cells, i, value, engine.now);
            if (rig.work(t, rng.nextInt(800))) yield;
          }
          seqcount.writeEnd(t, rig.fn);
        }
      });
      for (let cpu = 1; cpu <= readers; cpu++) {
        const own = new Rng(seed, cpu);
        rig.start(cpu, function* (t) {
          for (let round = 0; round < 15; round++) {
            if (rig.work(t, own.nextInt(3000))) yield;
            const pair = [0, 0];
            let seq: number;
            do {
              if (t.cpu.settle()) yield;
              seq = seqcount.readBegin(t, rig.fn);
              if (seq < 0) seq = yield* seqcount.readBeginSlow(t, rig.fn);
              for (let i = 0; i < 2; i++) {
                if (rig.work(t, own.nextInt(400))) yield;
                pair[i] = storeBuffers.load(cpu, cells, i, engine.now);
              }
              if (t.cpu.settle()) yield;
            } while (seqcount.readRetry(t, seq, rig.fn));
            assert.equal(pair[0], pair[1]);
            reads++;
          }
        });
      }
      engine.run();
      assert.equal(reads, readers * 15);
    }),
    {numRuns: 80},
  );
});
