// vmalloc-sync-storm: a login server under load, after the report of the PTT bulletin board
// (Chen-Yu Tsai, stable@, 12 Dec 2019): v4.19.88 with VMAP_STACK, a fork per login, up to 15,000
// users at once. Two thirds of the machine went into pgd_lock: every fork takes a kernel stack from
// vmalloc, and where that kernel then synchronises the vmalloc range it walks the PGDs of all live
// processes under the lock that each pgd_alloc and pgd_free needs.
//
// The users already logged in are entries of the task table without an operation: replay adopts
// them as processes that exist and sleep. Login workers fork sessions, open loop at a rate or
// closed loop with `sessions` at once. The master reaps as a SIGCHLD handler does, with WNOHANG for
// any child, so a slow replay never stalls an open loop's arrivals.

import {KIND} from '../formats/kinds.ts';
import {FIXED_VMAS, Image} from './address_space.ts';
import {NOMINAL_NS, forkNs} from './nominal.ts';
import {Stream} from './rng.ts';
import type {Actor, Gate, Script, Stage, Step} from './stage.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const PARAMS = {
  live: number('count', 15_000, 0, 1_000_000, 'processes that exist at the start and sleep'),
  workers: number('count', 8, 1, 4096, 'login daemons that fork'),
  forks: number('count', 50, 1, 10_000_000, 'logins of each worker'),
  rate: number('per_s', 0, 0, 1e6, 'logins per second of each worker; 0: closed loop'),
  sessions: number('count', 4, 1, 100_000, 'closed loop: sessions of a worker at once'),
  life: number('ns', 500_000, 0, 1e13, 'mean time that a session sleeps before it exits'),
  exec: number('share', 0, 0, 1, 'share of sessions that start a program'),
  pages: number('pages', 300, 0, 1_000_000, 'anonymous pages present in a worker'),
  child_pages: number('pages', 40, 0, 1_000_000, 'pages that a session writes'),
  times: choice(['exponential', 'uniform', 'constant'], 'how life and arrivals spread'),
  cpus: number('count', 0, 0, 65_536, 'CPUs to spread over; 0: one per worker'),
};

type Values = ValuesOf<typeof PARAMS>;

const DAEMON = '/usr/sbin/logind-bbs';
const SESSION = '/usr/bin/bbs';
const ANY_CHILD = -1;
const WNOHANG = 1;

function sessionScript(values: Values, image: Image, random: Stream): Script {
  const execs = random.chance(values.exec);
  const lifeNs = random.timeNs(values.life, values.times);
  return function* (self) {
    yield* image.write(self, Math.min(values.child_pages, values.pages));
    if (execs) yield* new Image(SESSION, 12, 30).exec(self, SESSION, 30);
    yield self.sleep(lifeNs);
    yield self.exit();
  };
}

/** Arrivals at a rate, whatever becomes of the sessions. */
function* openLoop(self: Actor, values: Values, image: Image, random: Stream): Generator<Step> {
  const sessions: Actor[] = [];
  let reaped = 0;
  let arrivalNs = self.nowNs;
  for (let i = 0; i < values.forks; i++) {
    arrivalNs += random.timeNs(1e9 / values.rate, values.times);
    yield self.sleep(Math.max(0, arrivalNs - self.nowNs));
    while (reaped < sessions.length && sessions[reaped].done) {
      yield self.op(KIND.wait4, NOMINAL_NS.syscall, ANY_CHILD, WNOHANG);
      reaped++;
    }
    const script = sessionScript(values, image, random);
    sessions.push(self.fork(script, forkNs(FIXED_VMAS, values.pages)));
    yield;
  }
  for (const session of sessions.slice(reaped)) {
    yield self.op(KIND.wait4, NOMINAL_NS.wait4, ANY_CHILD, 0);
    yield session;
  }
}

/** A new login as soon as one of `sessions` has ended. */
function* closedLoop(self: Actor, values: Values, image: Image, random: Stream): Generator<Step> {
  const live: Actor[] = [];
  for (let i = 0; i < values.forks; i++) {
    if (live.length === values.sessions) yield self.wait(live.splice(0, 1)[0]);
    live.push(self.fork(sessionScript(values, image, random), forkNs(FIXED_VMAS, values.pages)));
    yield;
  }
  for (const session of live) yield self.wait(session);
}

function workerScript(values: Values, random: Stream, start: Gate): Script {
  return function* (self) {
    const image = new Image(DAEMON, FIXED_VMAS, values.pages);
    yield* image.map(self);
    yield* image.write(self, values.pages);
    yield self.arrive(start);
    const loop = values.rate > 0 ? openLoop : closedLoop;
    yield* loop(self, values, image, random);
    yield self.exit();
  };
}

function cpus(values: Values): number {
  return values.cpus === 0 ? values.workers : values.cpus;
}

/** Puts the storm on a stage; the catalogue uses it with other parameters. */
export function putStorm(stage: Stage, values: Values, seed: number): void {
  for (let i = 0; i < values.live; i++) {
    stage.create({comm: 'bbs', cpu: i % cpus(values)});
  }
  const start = stage.gate(values.workers);
  for (let i = 0; i < values.workers; i++) {
    const init = {comm: 'logind', cpu: i % cpus(values)};
    stage.adopt(init, workerScript(values, new Stream(seed, 'login', i), start));
  }
}

export const vmallocSyncStorm = defineWorkload({
  name: 'vmalloc-sync-storm',
  summary: 'a fork per login among thousands of live processes',
  imitates: 'PTT bulletin board on v4.19.88, VMAP_STACK (Chen-Yu Tsai, stable@, 12 Dec 2019)',
  params: PARAMS,
  cpus,
  script: putStorm,
});
