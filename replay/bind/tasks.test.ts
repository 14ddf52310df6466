import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../../formats/kinds.ts';
import {TraceWriter} from '../../formats/writer.ts';
import type {RunReport} from '../../results/run.ts';
import {traceFrom} from '../generated.ts';
import {replayTrace} from '../replay.ts';

const PAGE = 4096;
const CLONE_FORK = 17;
const MAP_PRIVATE = 2;
const STACK_FLAGS = 0x122;

/** Replays what `write` has task 7, one process on one CPU, do. */
function run(write: (w: TraceWriter) => void): RunReport {
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'generated', machine: {cpus: 2}});
    w.task(7, 7, 1, 'sh');
    write(w);
    w.finish();
  });
  return replayTrace(trace, {machine: 'epyc-2cpu-guest', kernel: '6.18', design: []});
}

/** A fork of a process with `files` files, and the child's exit. */
function forkWith(files: number): RunReport {
  return run((w) => {
    w.append(KIND.open_files, 0, 7, 0, files, 0);
    w.task(8, 8, 7, 'sh');
    w.append(KIND.fork, 10, 7, 0, 8, CLONE_FORK, 8);
    w.append(KIND.exit, 20, 8, 0, 1);
    w.append(KIND.wait4, 30, 7, 0, 8, 0);
    w.append(KIND.exit, 40, 7, 0, 1);
  });
}

test('open_files: fork is longer by what the files cost', () => {
  const [few, many] = [forkWith(3), forkWith(1003)];
  assert.equal(many.replay.operations.failed + many.replay.operations.skipped, 0);
  const perFile = (many.ops.fork.ns.p50 - few.ops.fork.ns.p50) / 1000;
  assert.ok(perFile > 10 && perFile < 30, `${perFile} ns a file`);
});

/** An exec whose mappings are `names`. */
function execWith(path: string, names: readonly string[]): number {
  const report = run((w) => {
    w.append(KIND.exec, 0, 7, 0, w.intern(path));
    names.forEach((name, n) => {
      const flags = name === '[stack]' ? STACK_FLAGS : MAP_PRIVATE;
      const at = 0x7f00_0000_0000 + n * 0x100_0000;
      w.append(KIND.map, 1 + n, 7, 0, at, 34 * PAGE, 0, 5, flags, w.intern(name));
    });
    w.append(KIND.exit, 40, 7, 0, 1);
  });
  return report.ops.exec.ns.p50;
}

test('exec opens the interpreter that the trace shows, none for a static program', () => {
  const shown = execWith('/usr/bin/ls', [
    '/usr/bin/ls',
    '/usr/lib/ld-linux-x86-64.so.2',
    '[stack]',
  ]);
  const none = execWith('/usr/bin/ls', ['/usr/bin/ls', '/usr/lib/libc.so.6', '[stack]']);
  assert.ok(shown > none + 1000, `${shown} and ${none} ns`);
  const unknown = execWith('/usr/bin/ls', []);
  const deep = execWith('/usr/bin/a/b/c/d/e/f/g/h/i/j/ls', []);
  assert.ok(deep > unknown + 10 * 30, `${deep} and ${unknown} ns`);
});

test('a mapping in the upper half of the address space, as [vsyscall], is no error', () => {
  const report = run((w) => {
    w.append(KIND.exec, 0, 7, 0, w.intern('/usr/bin/ls'));
    const name = w.intern('[vsyscall]');
    w.append(KIND.map, 1, 7, 0, 0xffff_ffff_ff60_0000n, PAGE, 0, 4, MAP_PRIVATE, name);
    w.append(KIND.exit, 40, 7, 0, 1);
  });
  assert.equal(report.ops.exec.count, 1);
});
