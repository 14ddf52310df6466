// The kernel's selftests as scenarios: each holds where it must and fails where it must, and a
// wrong expectation of any kind is found, with the step's name.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {EXIT} from '../formats/errors.ts';
import {CONFORMANCE} from '../workloads/conformance/all.ts';
import {
  call,
  counter,
  EINVAL,
  load,
  map,
  PIN,
  pin,
  pinned,
  poke,
  protect,
  R,
  SIGSEGV,
  state,
  store,
} from '../workloads/conformance/moves.ts';
import {addr, holds, type Move, scenarioOf} from '../workloads/conformance/selftest.ts';
import {main} from './main.ts';
import {runScenario} from './scenario_runs.ts';
import {TextOutput} from './streams.ts';

for (const scenario of CONFORMANCE) {
  test(scenario.name, () => {
    const results = runScenario(scenario, {seed: scenario.seeds[0]});
    const wrong = results.filter((result) => !result.ok);
    assert.deepEqual(
      wrong.map(({command, evidence}) => [command, ...evidence]),
      [],
    );
  });
}

/** What the scenario of these moves finds on 6.18. */
function findings(moves: readonly Move[]): readonly string[] {
  const on = [holds('6.18')];
  const scenario = scenarioOf({name: 'wrong', summary: '', source: '', cases: {it: moves}, on});
  const [result] = runScenario(scenario, {seed: 1});
  assert.equal(result.ok, result.found === 'clean');
  return result.evidence.filter((line) => line.startsWith('conformance: '));
}

test('a wrong expectation is found, whatever its kind', () => {
  const memory = [map(0, 4), store(0, 4, 7)];
  const cases: readonly (readonly [Move, string])[] = [
    [protect(0, 4, R, EINVAL), 'it 3 mprotect: expected EINVAL, found 0'],
    [call('munmap', [addr(0) + 1, 4096], 0), 'it 3 munmap: expected 0, found EINVAL'],
    [load(0, 4, 8), 'it 3 load at 0: expected page 0: content 8, found page 0: content 7'],
    [
      load(0, 4, 7, {each: 1}),
      'it 3 load at 0: expected page 1: content 8, found page 1: content 7',
    ],
    [load(3, 2, 7), 'it 3 load at 3: expected page 1: no signal, found page 1: SIGSEGV'],
    [
      store(0, 1, 1, {signal: SIGSEGV}),
      'it 3 store at 0: expected page 0: SIGSEGV, found page 0: no signal',
    ],
    [state('vmas', 0, 4, 2), 'it 3 vmas: expected vmas 2, found vmas 1'],
    [counter('rss-anon', 5), 'it 3 rss-anon: expected rss-anon 5, found rss-anon 4'],
    [state('colour', 0, 4, 2), 'it 3 colour: no state is called colour'],
    [poke(3, 2, 1), 'it 3 ptrace write: expected 2, found EFAULT'],
    [pin(1, 3, 2, PIN.read), 'it 3 pin: expected 2, found EFAULT'],
    [pinned(1, 7), 'it 3 read pin 1: expected 1 pinned pages, found 0 pinned pages'],
  ];
  for (const [move, text] of cases) {
    assert.deepEqual(findings([...memory, move]), [`conformance: ${text}`]);
  }
  assert.deepEqual(findings([...memory, load(0, 4, 7)]), []);
});

test('scenario run takes a pattern', async () => {
  const runs = async (pattern: string): Promise<[number, string[]]> => {
    const out = new TextOutput();
    const args = ['scenario', 'run', pattern, '--seed', '1', '--json'];
    const code = await main(args, out, new TextOutput());
    const results =
      code === EXIT.usage ? [] : (JSON.parse(out.text).results as {scenario: string}[]);
    return [code, [...new Set(results.map((result) => result.scenario))]];
  };
  assert.deepEqual(await runs('conformance/mremap-*'), [
    0,
    ['conformance/mremap-multi-vma', 'conformance/mremap-dontunmap'],
  ]);
  assert.deepEqual(await runs('*/mse?l'), [0, ['conformance/mseal']]);
  assert.deepEqual(await runs('conformance/[a-z]*'), [EXIT.usage, []]);
});

test('a clean run must have looked at every expectation', () => {
  const on = [holds('6.18')];
  const cases = {it: [map(0, 4), store(0, 4, 7)]};
  const scenario = scenarioOf({name: 'short', summary: '', source: '', cases, on});
  const [{also}] = scenario.runs;
  assert.deepEqual(also, [{check: 'metric', path: ['counters', 'conformance_steps'], atLeast: 2}]);
});
