import assert from 'node:assert/strict';
import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {after, test} from 'node:test';
import {drawRun} from './draw/run.ts';
import {UserError} from './errors.ts';
import {fixtureRun, fixtureRuns} from './fixture.ts';
import {checkGolden} from './golden.ts';
import {checkRunReport} from './run_check.ts';
import {loadRun, loadRuns, saveRun, saveRuns} from './store.ts';

const folder = mkdtempSync(join(tmpdir(), 'mmreplay-store-'));
after(() => rmSync(folder, {recursive: true}));

test('what is saved is what is loaded', () => {
  const one = join(folder, 'one.json');
  saveRun(one, fixtureRun({seed: 7}));
  assert.deepEqual(loadRun(one), fixtureRun({seed: 7}));
  const many = join(folder, 'many.jsonl');
  saveRuns(many, fixtureRuns(3));
  assert.deepEqual(loadRuns(many), fixtureRuns(3));
  assert.deepEqual(loadRuns(folder), [...fixtureRuns(3), fixtureRun({seed: 7})]);
});

test('an array of reports is read too', () => {
  const path = join(folder, 'array.json');
  writeFileSync(path, JSON.stringify(fixtureRuns(2)));
  assert.equal(loadRuns(path).length, 2);
  assert.throws(() => loadRun(path), /expected one run, found 2/);
  rmSync(path);
});

function broken(change: (run: Record<string, unknown>) => void): unknown {
  const run = JSON.parse(JSON.stringify(fixtureRun())) as Record<string, unknown>;
  change(run);
  return run;
}

test('a file that is no run report says where it is wrong', () => {
  const cases: readonly (readonly [unknown, RegExp])[] = [
    [
      broken((r) => Object.assign(r, {schema: 'mmreplay.run/0'})),
      /\$\.schema: .*give what replay --json/,
    ],
    [broken((r) => delete r['locks']), /\$\.locks: expected a field "locks"/],
    [broken((r) => Object.assign(r, {seed: 1.5})), /\$\.seed: expected an integer, found 1\.5/],
    [broken((r) => Object.assign(r, {tlb: {ipis: '9'}})), /\$\.tlb\.ipis: expected a number/],
    [[], /\$: expected an object, found \[\]/],
  ];
  for (const [value, message] of cases) {
    assert.throws(() => checkRunReport(value, 'r.json'), message);
    assert.throws(() => checkRunReport(value, 'r.json'), UserError);
  }
});

test('a hand-off over an unknown distance is refused', () => {
  const run = fixtureRun();
  const locks = {l: {...run.locks['pgd_lock'], handoff: {moon: 1}}};
  assert.throws(() => checkRunReport({...run, locks}, 'r'), /handoff\.moon: expected one of self/);
});

test('a syntax error names its line', () => {
  const path = join(folder, 'bad.json');
  writeFileSync(path, '{\n  "schema": "mmreplay.run/1",\n  oops\n}\n');
  assert.throws(() => loadRuns(path), /bad\.json:3: not JSON/);
  assert.throws(() => loadRuns(join(folder, 'absent.json')), /cannot read: no such file or folder/);
  rmSync(path);
});

test('a run, drawn', () => {
  checkGolden('run.clean.txt', drawRun(fixtureRun()));
  const warnings = {'huge pages are not modelled': 12};
  checkGolden('run.failed.txt', drawRun(fixtureRun({missed: 1, warnings})));
});
