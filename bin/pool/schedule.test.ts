import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {EXIT, UserError} from '../../formats/errors.ts';
import {errorOf, failureOf} from './failure.ts';
import {workersFor} from './plan.ts';
import {type Entry, Schedule} from './schedule.ts';

const entriesOf = (traces: readonly number[]): Entry[] =>
  traces.map((trace, index) => ({index, key: String(trace), guessMs: trace}));

/**
 * Hands out everything to `workers` that take turns; the job that fails, if any, when it is handed
 * out.
 */
function handOut(entries: readonly Entry[], workers: number, failing = -1): number[] {
  const schedule = new Schedule(entries);
  const last: (string | null)[] = Array.from({length: workers}, () => null);
  const given: number[] = [];
  for (let done = false; !done; ) {
    done = true;
    for (let worker = 0; worker < workers; worker++) {
      const index = schedule.next(last[worker]);
      if (index === null) continue;
      done = false;
      last[worker] = entries[index].key;
      given.push(index);
      if (index === failing) schedule.failed(index);
    }
  }
  return given;
}

const someTraces = fc.array(fc.nat({max: 5}), {minLength: 1, maxLength: 40});

test('every job is handed out once, to however many workers', () => {
  fc.assert(
    fc.property(someTraces, fc.integer({min: 1, max: 5}), (traces, workers) => {
      const given = handOut(entriesOf(traces), workers);
      assert.deepEqual(
        given.sort((a, b) => a - b),
        traces.map((_, n) => n),
      );
    }),
  );
});

test('after a failure every job before it is still handed out, and none after it', () => {
  fc.assert(
    fc.property(someTraces, fc.nat(), fc.integer({min: 1, max: 5}), (traces, n, workers) => {
      const failing = n % traces.length;
      const given = handOut(entriesOf(traces), workers, failing);
      for (let index = 0; index <= failing; index++) assert.ok(given.includes(index));
      const late = given.slice(given.indexOf(failing) + 1);
      assert.ok(late.every((index) => index < failing));
    }),
  );
});

test('a worker stays with its trace; others begin with the longest', () => {
  const entries = entriesOf([1, 1, 3, 3, 2]);
  const schedule = new Schedule(entries);
  assert.equal(schedule.next(null), 2);
  assert.equal(schedule.next(null), 4);
  assert.equal(schedule.next('3'), 3);
  assert.equal(schedule.next('2'), 0);
  assert.equal(schedule.next('3'), 1, 'the last run of a trace that another worker has at hand');
  assert.equal(schedule.next('1'), null);
});

test('short work stays in this thread; long work gets what the host has', () => {
  const host = {cpus: 8, freeBytes: 2 ** 40};
  const jobs = (count: number, guessMs: number) => Array.from({length: count}, () => ({guessMs}));
  assert.equal(workersFor(jobs(12, 60), 0, 0, host), 1);
  assert.equal(workersFor(jobs(100, 60), 0, 0, host), 8);
  assert.equal(workersFor(jobs(3, 5000), 0, 0, host), 3);
  assert.equal(workersFor(jobs(1, 5000), 0, 0, host), 1);
  assert.equal(workersFor(jobs(100, 60), 0, 0, {...host, cpus: 1}), 1);
  assert.equal(workersFor(jobs(100, 60), 0, 0, {...host, freeBytes: 2 ** 30}), 2);
  assert.equal(workersFor(jobs(100, 1), 1, 900, host), 1, 'too early to tell');
  assert.equal(workersFor(jobs(100, 1), 10, 1200, host), 8, 'it takes longer than guessed');
  assert.equal(workersFor(jobs(100, 1), 90, 1200, host), 1, 'nearly done');
});

test('an error comes out of a worker as it was', () => {
  const user = errorOf(structuredClone(failureOf(new UserError('bad', EXIT.usage))));
  assert.ok('exitCode' in user && user.exitCode === EXIT.usage);
  assert.equal(user.message, 'bad');
  const bug = new TypeError('ours');
  const back = errorOf(structuredClone(failureOf(bug)));
  assert.ok(!('exitCode' in back));
  assert.deepEqual([back.name, back.message, back.stack], [bug.name, bug.message, bug.stack]);
});
