// The catalogue is data: it names only what exists, its traces are small, keep the laws and depend
// on the seed alone. What a design does under them is tested where there is a kernel, in replay/.

import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import {CATALOGUE, scenarioByName} from './catalogue.ts';
import {eventsOf, lawViolations} from './laws.ts';
import {dealStrata} from './scenarios/pieces.ts';
import {Stream} from './rng.ts';
import {decode, inMemory} from './testing.ts';
import {judge, numberAt} from './verdict.ts';

/** The names of the design document: they are stable. */
const PGD_SCENARIOS = [
  'pgd-late-init-barrier',
  'pgd-null-mm',
  'pgd-index',
  'pgd-leader-exit',
  'pgd-walk-without-rcu',
  'pgd-fork-race',
  'hotplug-remove-window',
  'unmap-frees-pud',
  'xen-pin-race',
  'xen-raw-store',
  'vmalloc-fault-context',
  'pgd-lock-false-sharing',
  'vmalloc-sync-storm',
  'efi-trampoline-pgds',
];
const PUD_SCENARIOS = ['pud-leaf-prot-none', 'pud-dirty-race', 'shadow-stack-zap'];

test('has every scenario under its name', () => {
  const names = [...CATALOGUE.keys()].filter((name) => !name.startsWith('conformance/'));
  assert.deepEqual(names.sort(), [...PGD_SCENARIOS, ...PUD_SCENARIOS].sort());
  assert.throws(() => scenarioByName('pgd'), /choose one of pgd-late-init-barrier/);
});

for (const scenario of CATALOGUE.values()) {
  describe(scenario.name, () => {
    test('is small and keeps the laws on every seed', () => {
      const selftest = scenario.name.startsWith('conformance/');
      assert.ok(scenario.seeds.length >= (selftest ? 1 : 3));
      for (const seed of scenario.seeds) {
        const made = inMemory((open) => scenario.build(open, seed));
        assert.ok(
          made.summary.events > 0 && made.summary.events < 10_000,
          `${made.summary.events}`,
        );
        assert.deepEqual(lawViolations(decode(made)), []);
        assert.equal(made.summary.header.seed, BigInt(seed));
      }
    });
    test('the same seed gives the same bytes', () => {
      const made = (): Uint8Array => inMemory((open) => scenario.build(open, 9)).bytes;
      assert.deepEqual(made(), made());
    });
    test('runs are labelled apart, and have something to be caught and something clean', () => {
      const labels = scenario.runs.map((run) => run.label);
      assert.equal(new Set(labels).size, labels.length);
      // A selftest may hold on every kernel; that it can fail is tested in workloads/conformance.
      const mayHold = scenario.name.startsWith('conformance/');
      assert.ok(mayHold || scenario.runs.some((run) => run.expected === 'caught'));
      assert.ok(scenario.runs.some((run) => run.expected === 'clean'));
      const all = scenario.runs.flatMap((run) => [...(run.fault ?? []), ...(run.also ?? [])]);
      for (const one of [...scenario.fault, ...all]) {
        assert.ok(one.atLeast !== undefined || one.atMost !== undefined);
        if (one.check === 'findings') assert.doesNotThrow(() => new RegExp(one.matches));
        if (one.check === 'against')
          assert.equal(labels[0], one.run, 'compared with the first run');
      }
    });
  });
}

test('pgd-late-init-barrier: forks of a round start at spread times', () => {
  const made = inMemory((open) => scenarioByName('pgd-late-init-barrier').build(open, 1));
  const thinks = eventsOf(decode(made)).filter((event) => event.name === 'think');
  const forker = thinks.filter((event) => event.cpu === 1).map((event) => event.args[0]);
  const sorted = forker.sort((a, b) => a - b);
  const widest = Math.max(...sorted.map((ns, i) => (i === 0 ? ns : ns - sorted[i - 1])));
  assert.ok(widest <= 2 * Math.ceil(40_000 / 112), `${widest} ns without a fork`);
});

test('strata: one time in each, dealt evenly', () => {
  const hands = dealStrata(60, 6000, 4, new Stream(3, 'test'));
  assert.deepEqual(
    hands.map((hand) => hand.length),
    [15, 15, 15, 15],
  );
  const strata = hands.flat().map((ns) => Math.floor(ns / 100));
  assert.equal(new Set(strata).size, 60);
});

describe('judge', () => {
  const scenario = scenarioByName('pgd-late-init-barrier');
  const [faulty] = scenario.runs;
  const fixed = scenario.runs[2];
  const report = (unseen: number, ...findings: string[]) => ({
    checks: {missed_pgd_entries: unseen, lockdep: 0, findings},
    counters: {pgd_missed_unseen: unseen},
  });
  test('caught, clean and other', () => {
    assert.deepEqual(judge(scenario, faulty, report(2)), {
      found: 'caught',
      ok: true,
      evidence: ['counters.pgd_missed_unseen: 2, >= 1'],
    });
    assert.deepEqual(judge(scenario, faulty, report(0)), {
      found: 'clean',
      ok: false,
      evidence: ['counters.pgd_missed_unseen: 0, not >= 1'],
    });
    assert.equal(judge(scenario, fixed, report(0)).ok, true);
    assert.equal(judge(scenario, fixed, report(1)).ok, false);
    const other = judge(scenario, fixed, report(0, 'BUG: something else'));
    assert.equal(other.found, 'other');
    assert.equal(other.ok, false);
    assert.ok(other.evidence.includes('BUG: something else'));
  });
  test('ratios and comparisons with another run', () => {
    const storm = scenarioByName('vmalloc-sync-storm');
    const wait = (sync: number, alloc: number) => ({
      locks: {pgd_lock: {wait_ns_by_caller: {sync_global_pgds: sync, pgd_alloc: alloc}}},
    });
    assert.equal(judge(storm, storm.runs[0], wait(150, 100)).found, 'caught');
    assert.equal(judge(storm, storm.runs[0], wait(300, 100)).found, 'clean');
    assert.equal(judge(storm, storm.runs[1], wait(0, 100)).ok, true);
    assert.equal(judge(storm, storm.runs[1], wait(1, 100)).ok, false);
    const sharing = scenarioByName('pgd-lock-false-sharing');
    const padded = {locks: {pgd_lock: {wait_ns: 100}}};
    const others = new Map([['pgd-list-padded', padded]]);
    const shared = {locks: {pgd_lock: {wait_ns: 110}}};
    assert.equal(judge(sharing, sharing.runs[1], shared, others).found, 'caught');
    assert.equal(judge(sharing, sharing.runs[1], padded, others).found, 'clean');
    assert.equal(judge(sharing, sharing.runs[0], padded).ok, true);
    assert.equal(judge(sharing, sharing.runs[0], {}).ok, false);
  });
  test('a number that is not there is 0', () => {
    assert.equal(numberAt({}, ['locks', 'pgd_lock', 'wait_ns']), 0);
    assert.equal(numberAt({locks: null as unknown}, ['locks']), 0);
  });
});
