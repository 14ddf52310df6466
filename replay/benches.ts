// The benchmarks of the simulator itself, by group. A group is a module that exports `benches`;
// each benchmark runs in a process of its own, because the first task measured in a process is
// always the fastest.

/** One benchmark: `fn` does `perCall` units of work. */
export interface Bench {
  readonly name: string;
  readonly unit: string;
  readonly perCall: number;
  /**
   * Calls before the measurement, 1 when left out: as many as V8 needs to have all code compiled.
   */
  readonly warmUps?: number;
  fn(): void;
  /** Run once, after `warmUp`, and its memory measured: `pages` simulated pages at the peak. */
  readonly once?: {readonly pages: number; warmUp(): void};
}

interface BenchModule {
  readonly benches: readonly Bench[];
}

const GROUPS: Readonly<Record<string, () => Promise<BenchModule>>> = {
  engine: () => import('../machine/engine.bench.ts'),
  locking: () => import('../kernel/locking/locking.bench.ts'),
  mm: () => import('../kernel/mm/mm.bench.ts'),
  decode: () => import('../formats/reader.bench.ts'),
  replay: () => import('./replay.bench.ts'),
  scale: () => import('./scale.bench.ts'),
};

/** The benchmark of all traces of a folder. */
export const RECORDINGS = 'replay: recordings';
/** Environment variable with that folder. */
export const RECORDINGS_VARIABLE = 'MMREPLAY_RECORDINGS';

/** Goals of the design for the benchmarks that have one, in units per second. */
export const GOALS: Readonly<Record<string, {floor: number; target: number}>> = {
  'engine: engine: 1,000 processes, one FIFO resource': {floor: 2.5e6, target: 4.5e6},
  'locking: uncontended lock + unlock': {floor: 50e6, target: 100e6},
  'decode: trace decode, streaming': {floor: 4e6, target: 15e6},
  'mm: page-table touch, sequential': {floor: 1e9 / 6, target: 1e9 / 4},
  'mm: page-table touch, random': {floor: 1e9 / 60, target: 1e9 / 45},
  'replay: fork storm': {floor: 0.5e6, target: 1e6},
  [RECORDINGS]: {floor: 0.5e6, target: 1e6},
};

/** Goals for host memory, bytes for each simulated page: less is better. */
export const MEMORY_GOALS: Readonly<Record<string, {floor: number; target: number}>> = {
  'scale: process tree of 4 M pages': {floor: 48, target: 24},
};

/** Names of all benchmarks as `group: name`. */
export async function benchNames(): Promise<string[]> {
  const names: string[] = [];
  for (const [group, load] of Object.entries(GROUPS)) {
    for (const bench of (await load()).benches) names.push(`${group}: ${bench.name}`);
  }
  return names;
}

/** The benchmark called `group: name`, undefined when there is none. */
export async function benchNamed(fullName: string): Promise<Bench | undefined> {
  const at = fullName.indexOf(': ');
  const load = GROUPS[fullName.slice(0, at)];
  if (load === undefined) return undefined;
  return (await load()).benches.find((bench) => bench.name === fullName.slice(at + 2));
}
