import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../machine/process.ts';
import {CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_VFORK, CLONE_VM} from './clone_flags.ts';
import {sys_execve} from './exec.ts';
import type {ExecImage} from './exec_image.ts';
import {sys_wait4} from './exit.ts';
import {sys_clone} from './fork.ts';
import {runToEnd, testKernel} from './fork_testing.ts';
import {setOpenFiles} from './fs/file.ts';
import {startProcess} from './init_task.ts';
import type {Kernel} from './kernel.ts';
import {hookCounts} from './life_hooks.ts';
import type {Task} from './task.ts';

const US = 10_000;
const VFORK = CLONE_VM | CLONE_VFORK;

interface Life {
  readonly flags?: number;
  readonly files?: number;
  readonly closeOnExec?: number;
  readonly image?: ExecImage;
  readonly argPages?: number;
  readonly version?: string;
}

/** Microseconds from vfork to wait of the third child, on a machine that does nothing else. */
function lifeUs(life: Life): number {
  const k = testKernel('2s4c1t', life.version ?? '6.18');
  let us = 0;
  const child = function* (c: Task): Code {
    const {image, argPages = 1} = life;
    if (image !== undefined) yield* sys_execve(k, c, 'x', {argPages, end: 0}, image);
  };
  const program = function* (t: Task): Code {
    if (life.files !== undefined) yield* setOpenFiles(k, t, life.files, life.closeOnExec ?? 0);
    for (let i = 0; i < 3; i++) {
      if (t.cpu.settle()) yield;
      const began = k.machine.engine.now;
      yield* sys_clone(k, t, {flags: VFORK | (life.flags ?? 0), childTid: 200 + i, program: child});
      yield* sys_wait4(k, t, -1, 0);
      if (t.cpu.settle()) yield;
      us = (k.machine.engine.now - began) / US;
    }
  };
  startProcess(k, {tid: 100, comm: 'lat', pinnedCpu: 1, program});
  runToEnd(k);
  return us;
}

const STATIC: ExecImage = {path: '/tmp/a', interpreter: null};

test('fork and exit pay for every open file, and not for those of a shared table', () => {
  const [few, many, more] = [4, 104, 204].map((files) => lifeUs({files}));
  const perFile = (many - few) / 100;
  assert.ok(perFile > 0.03 && perFile < 0.08, `${perFile} us a file`);
  assert.ok(Math.abs((more - many) / 100 / perFile - 1) < 0.1, 'linear');
  const shared = lifeUs({files: 204, flags: CLONE_FILES});
  assert.ok(shared < lifeUs({files: 4}), `${shared} us with the table shared`);
});

test('CLONE_FS and CLONE_SIGHAND are cheaper than copies', () => {
  const copies = lifeUs({});
  assert.ok(lifeUs({flags: CLONE_FS}) < copies - 0.1);
  assert.ok(lifeUs({flags: CLONE_SIGHAND}) < copies - 0.1);
});

test('exec pays for components of the path, strings, the interpreter and files that it closes', () => {
  const plain = lifeUs({image: STATIC});
  const deep = lifeUs({image: {path: `/tmp${'/dir'.repeat(20)}/a`, interpreter: null}});
  assert.ok(deep > plain + 0.6 && deep < plain + 2, `${deep - plain} us for 20 components`);
  const dynamic = lifeUs({image: {path: '/tmp/a', interpreter: '/lib64/ld.so'}});
  assert.ok(dynamic > plain + 1, `${dynamic - plain} us for an interpreter`);
  const long = lifeUs({image: STATIC, argPages: 5});
  assert.ok(long > plain + 4 * 64 * 0.1, `${long - plain} us for four pages of strings`);
  const kept = lifeUs({image: STATIC, files: 204});
  const closed = lifeUs({image: STATIC, files: 204, closeOnExec: 200});
  assert.ok(closed > kept + 200 * 0.015, `${closed - kept} us for 200 files to close`);
});

test('a file goes with its last reference', () => {
  const k = testKernel('2s4c1t', '6.18');
  const seen: number[] = [];
  const program = function* (t: Task): Code {
    yield* setOpenFiles(k, t, 6, 0);
    const own = t.files!.files[5];
    const child = function* (c: Task): Code {
      seen.push(own.refs, c.files!.files.length);
      yield* setOpenFiles(k, c, 5, 0);
      seen.push(own.refs, t.files!.files.length);
    };
    yield* sys_clone(k, t, {flags: 0, childTid: 200, program: child});
    yield* sys_wait4(k, t, -1, 0);
    seen.push(own.refs, t.files!.files[4].refs);
    const shares = function* (c: Task): Code {
      assert.equal(c.files, t.files);
      yield* k.sched.userRun(c, 10 * US);
    };
    yield* sys_clone(k, t, {flags: CLONE_FILES, childTid: 201, program: shares});
    yield* sys_wait4(k, t, -1, 0);
    seen.push(t.files!.users);
  };
  startProcess(k, {tid: 100, comm: 'files', program});
  runToEnd(k);
  assert.deepEqual(seen, [2, 6, 1, 6, 1, 1, 1]);
  for (const file of k.shared.stdio) assert.equal(file.refs, 1, 'only the shell has them');
});

const STORM_TICKS = 5000 * US;

/**
 * Ticks that `fns` took, per child, when `workers` children of one process on CPUs of their own
 * fork at once.
 */
function stormTicks(
  workers: number,
  fns: readonly string[],
  imageOf?: (worker: number) => ExecImage,
): [number, Kernel] {
  const k = testKernel('westmere-ex-8s-80c', '6.18');
  const each = 6;
  const worker = (n: number) =>
    function* (t: Task): Code {
      // All begin together, when the last of them has been forked.
      yield* k.sched.userRun(t, STORM_TICKS - k.machine.engine.now);
      for (let i = 0; i < each; i++) {
        const child = function* (c: Task): Code {
          if (imageOf !== undefined) {
            yield* sys_execve(k, c, 'true', {argPages: 1, end: 0}, imageOf(n));
          }
        };
        const childTid = 10_000 + n * each + i;
        yield* sys_clone(k, t, {flags: VFORK, childTid, pinnedCpu: t.pinnedCpu, program: child});
        yield* sys_wait4(k, t, -1, 0);
      }
    };
  const parent = function* (t: Task): Code {
    yield* setOpenFiles(k, t, 100, 0);
    for (let n = 0; n < workers; n++) {
      const args = {flags: 0, childTid: 200 + n, pinnedCpu: n, program: worker(n)};
      yield* sys_clone(k, t, args);
    }
    for (let n = 0; n < workers; n++) yield* sys_wait4(k, t, -1, 0);
  };
  startProcess(k, {tid: 100, comm: 'storm', pinnedCpu: 0, program: parent});
  const spent = (): number => fns.reduce((ticks, fn) => ticks + k.machine.profile.ticksOf(fn), 0);
  k.machine.engine.run(STORM_TICKS);
  const before = spent();
  runToEnd(k);
  return [(spent() - before) / (workers * each), k];
}

test('children of one parent fight for the lines of their files: eight sockets are worse than one', () => {
  const fns = ['dup_fd', 'filp_close'];
  const [alone] = stormTicks(1, fns);
  const [one] = stormTicks(10, fns);
  const [eight] = stormTicks(80, fns);
  assert.ok(one > 1.5 * alone, `${one} ticks with ten on one socket, ${alone} alone`);
  assert.ok(eight > 1.5 * one, `${eight} ticks on eight sockets, ${one} on one`);
});

test('exec of one program from many CPUs contends for its dentry, inode and first page', () => {
  const fns = ['do_open_execat', 'kernel_read', 'begin_new_exec', '__fput'];
  const own = (n: number): ExecImage => ({path: `/tmp/${n}`, interpreter: null});
  const [apart, a] = stormTicks(80, fns, own);
  const [same, b] = stormTicks(80, fns, () => STATIC);
  assert.ok(same > 1.2 * apart, `${same} ticks with one program, ${apart} with one each`);
  const moves = (k: Kernel, path: string, execs: number): number[] => {
    const {dentry, inode, folio} = k.shared.programs.at(path);
    return [dentry, inode, folio].map((line) => line.transfers / execs);
  };
  for (const perExec of moves(b, STATIC.path, 480)) assert.ok(perExec > 0.9, `${perExec}`);
  for (const perExec of moves(a, '/tmp/7', 6)) assert.ok(perExec < 0.5, `${perExec}`);
});

test('css_set_lock is taken twice by fork and once by exit (6.18), and is contended in a storm', () => {
  const [, k] = stormTicks(80, []);
  const report = k.locks.report().get('css_set_lock')!;
  assert.equal(report.acquired, 3 * k.forks + 1, 'the first process was not forked');
  assert.ok(report.contended > 0.05 * report.acquired, `${report.contended} of ${report.acquired}`);
});

test('releases: who takes css_set_lock, the input pool and pidmap_lock how often', () => {
  const counts = (version: string): number[] => {
    const k = testKernel('2s4c1t', version);
    const program = function* (t: Task): Code {
      yield* sys_clone(k, t, {flags: 0, childTid: 200, program: () => k.sched.userRun(t, US)});
      yield* sys_wait4(k, t, -1, 0);
    };
    startProcess(k, {tid: 100, comm: 'one', program});
    runToEnd(k);
    const report = k.locks.report();
    return ['css_set_lock', 'input_pool.lock', 'pidmap_lock'].map(
      (name) => report.get(name)?.acquired ?? 0,
    );
  };
  // The first process exits and is released too, but was not forked.
  assert.deepEqual(counts('4.1'), [1 + 2, 0, 1 + 2]);
  assert.deepEqual(counts('4.19'), [1 + 2, 2, 2 + 2]);
  assert.deepEqual(counts('6.6'), [2 + 2 + 2, 2, 2 + 2]);
  assert.deepEqual(counts('6.18'), [2 + 2, 2, 2 + 2]);
});

test('later kernels ask more', () => {
  const old = hookCounts('2.6.32');
  const now = hookCounts('6.18');
  for (const stage of ['fork', 'exit', 'release', 'exec'] as const) {
    assert.ok(now[stage] > old[stage], `${stage}: ${old[stage]} and ${now[stage]}`);
  }
});

test('writing a program that runs is not denied by 6.12: its inode is left alone', () => {
  const owner = (version: string): number => {
    const k = testKernel('2s4c1t', version);
    const program = function* (t: Task): Code {
      yield* sys_execve(k, t, 'a', {argPages: 1, end: 0}, STATIC);
    };
    startProcess(k, {tid: 100, comm: 'x', program});
    runToEnd(k);
    return k.shared.programs.at('/tmp/a').inode.owner;
  };
  assert.equal(owner('6.12'), -1);
  assert.notEqual(owner('6.6'), -1);
  assert.notEqual(owner('6.18'), -1);
});
