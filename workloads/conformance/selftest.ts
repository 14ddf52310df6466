// How a selftest of the kernel becomes a scenario: cases, each a list of moves that a process of
// its own makes one after the other. A move is one operation of the trace, with the outcome that
// the selftest expects (expect_ kinds); replay compares. So a selftest reads here as the table that
// it is, and its trace is a file like any other.
//
// A driver process with an empty address space forks a child for each case and waits for it: cases
// cannot meet. Pages are numbered from BASE on, which every page-table level has aligned. Cases say
// `fork` for a child, which runs beside its parent, and `meet` where the two wait for each other.

import {KIND, type KindName} from '../../formats/kinds.ts';
import type {TraceSummary} from '../../formats/writer.ts';
import {TraceWriter} from '../../formats/writer.ts';
import type {Expectation, Scenario, ScenarioRun} from '../catalogue.ts';
import {forkNs, NOMINAL_NS} from '../nominal.ts';
import {type Actor, CLONE, type Gate, Stage, type Step} from '../stage.ts';
import {generatedHeader, type OpenTrace} from '../workload.ts';

export const PAGE = 4096;
/** Address of page 0 of the cases: a multiple of 512 GB. */
const BASE = 0x7000_0000_0000;
const MACHINE = '2s2c1t';
const CPUS = 4;

/** Address of a page of the cases. */
export function addr(page: number): number {
  return BASE + page * PAGE;
}

/** One thing that a process does. Without a generator it is one operation. */
export type Move = (p: Performer) => Generator<Step, void, void> | void;

/** A process while it makes its moves. */
export class Performer {
  readonly self: Actor;
  readonly children = new Map<string, Actor>();
  private readonly stage: Stage;
  private readonly label: string;
  private readonly gates: Map<string, Gate>;
  private moves = 0;

  constructor(stage: Stage, self: Actor, label: string, gates: Map<string, Gate>) {
    this.stage = stage;
    this.self = self;
    this.label = label;
    this.gates = gates;
  }

  /** String number of the name of the next step: case, number, what it does. */
  step(what: string): number {
    this.moves++;
    return this.self.intern(`${this.label} ${this.moves} ${what}`);
  }

  /** Appends an operation. */
  op(kind: number, ...args: readonly (number | bigint)[]): void {
    this.self.op(kind, NOMINAL_NS.syscall, ...args);
  }

  /** Where two processes of the case wait for each other. */
  gate(name: string, parties: number): Gate {
    let gate = this.gates.get(name);
    if (gate === undefined) {
      gate = this.stage.gate(parties);
      this.gates.set(name, gate);
    }
    return gate;
  }

  /** The moves of a process, to its exit. */
  *perform(moves: readonly Move[]): Generator<Step, void, void> {
    for (const move of moves) {
      const more = move(this);
      if (more === undefined) yield;
      else yield* more;
    }
    yield this.self.exit(this.self.tid === this.self.tgid);
  }

  /** A child that makes `moves`: a process, or a thread of this one. */
  spawn(name: string, moves: readonly Move[], flags: number = CLONE.fork): void {
    const {stage, gates} = this;
    const label = `${this.label}/${name}`;
    const script = (self: Actor) => new Performer(stage, self, label, gates).perform(moves);
    this.children.set(name, this.self.fork(script, forkNs(8, 64), flags));
  }
}

/** The kernels that a selftest is run on. */
export type SelftestRun = ScenarioRun;

/** Kernel `version` does as the selftest expects. */
export function holds(version: string, design: readonly string[] = []): SelftestRun {
  const label = design.length === 0 ? version : `${version} ${design.join(' ')}`;
  return {label, kernel: version, design, machine: MACHINE, expected: 'clean'};
}

/** Kernel `version` does not: a finding matches `pattern`, for a reason that `label` names. */
export function differs(version: string, label: string, pattern: string): SelftestRun {
  const fault: readonly Expectation[] = [{check: 'findings', matches: pattern, atLeast: 1}];
  const kernel = version;
  return {
    label: `${version} ${label}`,
    kernel,
    design: [],
    machine: MACHINE,
    expected: 'caught',
    fault,
  };
}

/** A selftest. */
export interface Selftest {
  /** Without `conformance/`. */
  readonly name: string;
  readonly summary: string;
  /** File of the selftest and where its outcomes are stated. */
  readonly source: string;
  /** Pages of a swap area that is there from the beginning. */
  readonly swapPages?: number;
  readonly cases: Readonly<Record<string, readonly Move[]>>;
  readonly on: readonly SelftestRun[];
}

/** The kinds that count in `conformance_steps`. */
const EXPECTING = [
  'expect_call',
  'expect_store',
  'expect_load',
  'expect_state',
  'expect_remote',
  'expect_pin',
  'expect_pinned',
  'expect_userfaultfd',
  'expect_uffd_ioctl',
  'expect_uffd_read',
  'expect_uffd_serve',
] as const satisfies readonly KindName[];

/** Any difference that a run shows. */
const ANY_DIFFERENCE: readonly Expectation[] = [
  {check: 'findings', matches: '^conformance: ', atLeast: 1},
];

function write(test: Selftest, open: OpenTrace, seed: number): TraceSummary {
  const writer = open(generatedHeader(`scenario/conformance/${test.name}`, {}, seed, CPUS));
  const stage = new Stage(writer);
  const {swapPages = 0} = test;
  stage.adopt({comm: test.name, cpu: 0}, function* (driver) {
    if (swapPages > 0) {
      yield driver.op(KIND.swapon, NOMINAL_NS.syscall, driver.intern('/swap'), swapPages);
    }
    for (const [name, moves] of Object.entries(test.cases)) {
      const script = (self: Actor) => new Performer(stage, self, name, new Map()).perform(moves);
      const child = driver.fork(script, forkNs(0, 0));
      yield;
      yield driver.wait(child);
    }
    yield driver.exit();
  });
  stage.run();
  return writer.finish();
}

/** How many expectations the trace holds. */
export function expectationCount(test: Selftest): number {
  const {operations} = write(test, (header) => new TraceWriter(() => {}, header), 1);
  return EXPECTING.reduce((sum, kind) => sum + (operations[kind] ?? 0), 0);
}

/** The scenario of a selftest. A clean run must have looked at every expectation. */
export function scenarioOf(test: Selftest): Scenario {
  let runs: readonly ScenarioRun[] | null = null;
  const counted = (): readonly ScenarioRun[] => {
    const path = ['counters', 'conformance_steps'];
    const all: Expectation = {check: 'metric', path, atLeast: expectationCount(test)};
    return test.on.map((run) => (run.expected === 'clean' ? {...run, also: [all]} : run));
  };
  return {
    name: `conformance/${test.name}`,
    summary: test.summary,
    source: test.source,
    fault: ANY_DIFFERENCE,
    get runs() {
      runs ??= counted();
      return runs;
    },
    // What a selftest expects does not depend on chance.
    seeds: [1],
    build: (open, seed) => write(test, open, seed),
  };
}
