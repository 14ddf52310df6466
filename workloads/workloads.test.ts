// Every workload: its traces decode, keep the laws, state what made them, and depend on the seed
// alone.

import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import fc from 'fast-check';
import {eventsOf, lawViolations} from './laws.ts';
import type {ParamSpec} from './params.ts';
import {WORKLOADS, workloadByName} from './registry.ts';
import {skeleton} from './skeleton.ts';
import {decode, generate} from './testing.ts';

/** Parameters that keep a test's traces small, beyond what the defaults of each workload do. */
const SMALL: Readonly<Record<string, readonly string[]>> = {
  'fork-storm': ['children=6', 'workers=3', 'pages=40'],
  ksm: ['pages=40', 'rounds=1'],
  locktorture: ['acquisitions=50'],
  'mmap-churn': ['size=40960', 'iterations=3'],
  oom: ['bytes=409600', 'limit=512000', 'run=16'],
  open1: ['iterations=20'],
  snapshot: ['bytes=409600'],
  'stress-vm': ['vm_bytes=81920', 'rounds=4'],
  thp: ['size=4194304', 'rounds=2'],
  swapoff: ['bytes=409600', 'limit=409600', 'touches=40', 'during=10'],
  'vmalloc-growth': ['areas=12', 'pages=10'],
  'vmalloc-sync-storm': ['live=20', 'forks=6', 'workers=3', 'pages=10'],
  skeleton: ['think=5000'],
};

const CHOICES: Readonly<Record<string, readonly string[][]>> = {
  'fork-storm': [
    ['wait=each', 'fork_max=1'],
    ['wait=each', 'fork_max=4'],
    ['wait=many', 'fork_max=3', 'exec=0.5', 'threads=2', 'placement=pinned', 'cpus=2'],
    ['think=10us', 'life=5us', 'times=uniform', 'vmas=6', 'pages=0'],
  ],
  'mmap-churn': [
    ...['page_fault2', 'page_fault3', 'mmap1', 'mmap2', 'brk1', 'brk2', 'malloc1'].map((kind) => [
      `kind=${kind}`,
    ]),
    ['kind=stress_mmap', 'threads=2', 'layout=apart'],
    ['threads=1', 'processes=3', 'placement=free', 'cpus=2'],
    ['threads=2', 'processes=2', 'iterations=0'],
  ],
  oom: [
    ['spread=equal', 'adj=ladder', 'order=largest-first', 'times=constant'],
    ['limit=0', 'swap=1G', 'rounds=3', 'hogs=1', 'hold=0'],
    ['adj=spare-largest', 'order=smallest-first', 'think=0', 'cpus=2'],
  ],
  snapshot: [
    ['lives=3', 'snapshots=2', 'writes=0.5', 'swap=1G', 'limit=1M'],
    ['snapshots=0', 'reads=0'],
  ],
  'stress-vm': [
    ['rounds=36'],
    ['vm_keep=1', 'vm_populate=1', 'vm_hang=1ms', 'vm_madvise=dontneed'],
    ['vm_method=walk-1a', 'vm_madvise=none', 'vm_locked=1', 'swap=1G', 'limit=1M'],
    ['vm_method=swap', 'vm=3', 'cpus=2'],
  ],
  ksm: [
    ['zeros=0.5', 'duplicates=0.5', 'contents=3', 'use_zero_pages=yes', 'finish=unmerge'],
    ['zeros=0', 'duplicates=0', 'processes=3', 'rounds=2', 'writes=1', 'finish=exit'],
    ['rewrite=duplicate', 'max_page_sharing=4', 'smart_scan=no', 'finish=stop', 'cpus=1'],
    ['pages=1', 'finish=unmap', 'settle=0', 'interval=0'],
  ],
  swapoff: [
    ['children=2', 'processes=3', 'access=read', 'cpus=2'],
    ['order=sequential', 'access=write', 'times=constant', 'touches=200'],
  ],
  locktorture: [['delays=none'], ['writers=1', 'long_split=1000'], ['placement=free', 'cpus=2']],
  open1: [['mode=processes'], ['tasks=1'], ['tasks=9', 'cpus=4']],
  thp: [
    ['enabled=always', 'advise=no', 'collapse=khugepaged', 'fault=read'],
    ['enabled=never', 'fault=sparse', 'collapse=none', 'give_back=munmap'],
    ['splits=1', 'split=munmap', 'forks=1', 'child_writes=1', 'processes=1'],
    ['splits=1', 'split=mprotect', 'cpus=1'],
    ['splits=1', 'split=dontneed', 'size=2097152'],
  ],
  'vmalloc-growth': [['growth=1.5'], ['free_every=0', 'fork_every=1', 'touch=0.5']],
  'vmalloc-sync-storm': [['rate=500', 'exec=0.5'], ['rate=100000', 'times=constant'], ['live=0']],
};

for (const workload of [...WORKLOADS.values(), skeleton]) {
  describe(workload.name, () => {
    const small = SMALL[workload.name] ?? [];
    const variants = [[], ...(CHOICES[workload.name] ?? [])].map((more) => {
      const names = new Set(more.map((word) => word.split('=')[0]));
      return [...small.filter((word) => !names.has(word.split('=')[0])), ...more];
    });
    for (const words of variants) {
      test(`keeps the laws: ${words.join(' ')}`, () => {
        const trace = decode(generate(workload, words));
        assert.ok(trace.events.count > 0);
        assert.deepEqual(lawViolations(trace), []);
      });
    }
    test('the same seed gives the same bytes, another seed other bytes or the same program', () => {
      const once = generate(workload, small, 7).bytes;
      assert.deepEqual(generate(workload, small, 7).bytes, once);
      assert.notDeepEqual(generate(workload, small, 8).bytes, once);
    });
    test('the header states the workload, every parameter and the seed', () => {
      const {header} = decode(generate(workload, small, 2 ** 53 - 1));
      assert.equal(header.workload.name, workload.name);
      assert.deepEqual(
        Object.keys(header.workload.params),
        workload.params.map((param) => param.name),
      );
      for (const word of small) {
        const [name, value] = word.split('=');
        assert.equal(header.workload.params[name], value);
      }
      assert.equal(header.seed, 2n ** 53n - 1n);
    });
    test('defaults are within bounds', () => {
      for (const param of workload.params) {
        const value =
          param.choices === undefined
            ? Number(param.default)
            : param.choices.indexOf(String(param.default));
        assert.ok(value >= param.min && value <= param.max, param.name);
        assert.match(param.name, /^[a-z][a-z_]*$/);
      }
    });
  });
}

/** A value near the low end of a parameter: traces stay small whatever is drawn. */
function lowValue(param: ParamSpec): fc.Arbitrary<string> {
  if (param.choices !== undefined) return fc.constantFrom(...param.choices);
  if (param.unit === 'share') return fc.constantFrom('0', '0.5', '1');
  return fc.integer({min: param.min, max: Math.min(param.max, param.min + 6)}).map(String);
}

test('any parameters near their minimum keep the laws', () => {
  for (const workload of WORKLOADS.values()) {
    const words = fc.tuple(
      ...workload.params.map((param) => lowValue(param).map((value) => `${param.name}=${value}`)),
    );
    fc.assert(
      fc.property(words, fc.nat(), (drawn, seed) => {
        assert.deepEqual(lawViolations(decode(generate(workload, drawn, seed))), []);
      }),
      {numRuns: 25, seed: 20150611},
    );
  }
});

test('fork-storm: counts follow from the parameters', () => {
  const words = ['workers=3', 'children=10', 'threads=2', 'pages=10', 'vmas=8'];
  const {operations} = generate(workloadByName('fork-storm'), words).summary;
  assert.equal(operations.fork, 3 * 10 * (1 + 2));
  assert.equal(operations.wait4, 30);
  assert.equal(operations.exit, 3 + 90);
  assert.equal(operations.map, 3 * 8);
});

test('fork-storm: wait=many never has more than fork_max children alive', () => {
  const words = ['workers=1', 'children=30', 'wait=many', 'fork_max=4', 'life=3ms', 'pages=0'];
  let live = 0;
  let most = 0;
  const trace = decode(generate(workloadByName('fork-storm'), words));
  for (const event of eventsOf(trace)) {
    if (event.name === 'fork') live++;
    if (event.name === 'wait4') live--;
    most = Math.max(most, live);
  }
  assert.equal(most, 4);
});

test('locktorture: delays are drawn with the kernel probabilities', () => {
  const words = ['writers=2', 'acquisitions=40000', 'long_split=1000'];
  const trace = decode(generate(workloadByName('locktorture'), words));
  const holds = eventsOf(trace)
    .filter((event) => event.name === 'lock_section')
    .map((event) => event.args[1]);
  const short = holds.filter((ns) => ns === 2_000 || ns === 102_000).length;
  const long = holds.filter((ns) => ns >= 100_000).length;
  assert.equal(holds.length, 80_000);
  assert.ok(Math.abs(short - 10_000) < 5 * Math.sqrt(10_000 * 0.875), `${short} short delays`);
  assert.ok(Math.abs(long - 200) < 5 * Math.sqrt(200), `${long} long delays`);
});

test('vmalloc-sync-storm: live processes are in the task table and do nothing', () => {
  const words = ['live=500', 'workers=2', 'forks=3'];
  const trace = decode(generate(workloadByName('vmalloc-sync-storm'), words));
  const acting = new Set(eventsOf(trace).map((event) => event.tid));
  assert.equal(trace.tasks.filter((task) => !acting.has(task.tid)).length, 500);
});

test('vmalloc-sync-storm: an open loop forks at its rate', () => {
  const words = ['live=0', 'workers=1', 'forks=400', 'rate=1000', 'life=20ms', 'pages=0'];
  const trace = decode(generate(workloadByName('vmalloc-sync-storm'), words));
  const forks = eventsOf(trace).filter((event) => event.name === 'fork');
  const spanNs = forks[399].timeNs - forks[0].timeNs;
  assert.ok(Math.abs(spanNs / 1e6 - 399) < 5 * Math.sqrt(399), `${spanNs / 1e6} ms`);
});

test('vmalloc-growth: sizes grow and every third area is freed', () => {
  const words = ['workers=1', 'areas=30', 'first=8K', 'step=4K'];
  const events = eventsOf(decode(generate(workloadByName('vmalloc-growth'), words)));
  const sizes = events.filter((event) => event.name === 'vmalloc').map((event) => event.args[1]);
  assert.deepEqual(sizes.slice(0, 3), [8192, 12288, 16384]);
  const freed = events.filter((event) => event.name === 'vfree').map((event) => event.args[1]);
  assert.deepEqual(freed.slice(0, 2), [sizes[2], sizes[5]]);
  assert.equal(freed.length, 10);
});

test('vmalloc-growth: more than the vmalloc area holds is refused', () => {
  const made = (): unknown => generate(workloadByName('vmalloc-growth'), ['step=1T']);
  assert.throws(made, /16 TiB of addresses together; give a smaller step/);
});

test('open1: one thread takes what was published for one thread', () => {
  const words = ['tasks=1', 'iterations=10'];
  const sections = eventsOf(decode(generate(workloadByName('open1'), words))).filter(
    (event) => event.name === 'lock_section',
  );
  const ns = sections.reduce((sum, event) => sum + event.args[1] + event.args[3], 0) / 10;
  assert.equal(Math.round(1e6 / ns), 536);
});

test('an unknown workload is refused with the list of those that exist', () => {
  assert.throws(() => workloadByName('forkstorm'), /choose one of fork-storm/);
});
