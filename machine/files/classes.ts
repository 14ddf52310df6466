// Reads a core-to-core latency matrix and reduces it to what a machine file needs: the 10th, 50th
// and 90th percentile of each class of distance. A matrix is the lower triangle in ns as CSV, row
// and column by CPU number; which CPUs share a core, an L3 or a socket is not in the file and has
// to be told. Run it over a matrix of your own machine:
//   npx tsx machine/files/classes.ts matrix.csv CORES_PER_SOCKET [CORES_PER_L3]
//   [high|adjacent|none]
// `high`: CPUs n and n + cores are siblings (Linux on most machines); `adjacent`: 2n and 2n + 1;
// `none`: no SMT.

import {readFileSync} from 'node:fs';
import {pathToFileURL} from 'node:url';
import {MachineError} from '../spec.ts';

/** How the CPUs of a matrix are numbered. */
export interface MatrixLayout {
  readonly coresPerSocket: number;
  /** Equal to `coresPerSocket` where the socket has one L3. */
  readonly coresPerL3: number;
  readonly siblings: 'high' | 'adjacent' | 'none';
}

/** Percentiles of one class in ns, over `count` pairs of CPUs. */
export interface ClassStatistics {
  readonly p10: number;
  readonly p50: number;
  readonly p90: number;
  readonly count: number;
}

/**
 * Matrix and layout behind a shipped machine file; `standIn` where the matrix is of a similar
 * machine.
 */
export interface MatrixSource extends MatrixLayout {
  readonly csv: string;
  readonly standIn?: boolean;
}

/** Which matrix each shipped machine's transfer costs were reduced from. */
export const MATRICES: Readonly<Record<string, MatrixSource>> = {
  'westmere-2s-x5650': {
    csv: 'Dual_Intel_R_Xeon_R_CPU_X5650_2.67GHz_by_nviennot.csv',
    coresPerSocket: 6,
    coresPerL3: 6,
    siblings: 'high',
  },
  'westmere-ex-8s-80c': {
    csv: 'Dual_Intel_R_Xeon_R_CPU_X5650_2.67GHz_by_nviennot.csv',
    coresPerSocket: 6,
    coresPerL3: 6,
    siblings: 'high',
    standIn: true,
  },
  'broadwell-2s-e5-2680v4': {
    csv: 'Dual_Intel_R_Xeon_R_CPU_E5_2680_v4_2.40GHz_by_nviennot.csv',
    coresPerSocket: 14,
    coresPerL3: 14,
    siblings: 'high',
  },
  'haswell-ex-4s-e7-8895v3': {
    csv: 'Dual_Intel_Xeon_E5_2698v3_2.3GHz_by_MaxKingPor.csv',
    coresPerSocket: 16,
    coresPerL3: 16,
    siblings: 'adjacent',
    standIn: true,
  },
  'icelake-2s-6336y': {
    csv: 'Dual_Intel_Xeon_Gold_6336Y_2.40GHz_by_herver.csv',
    coresPerSocket: 24,
    coresPerL3: 24,
    siblings: 'high',
  },
  'icelake-2s-64t': {
    csv: 'Dual_Intel_Xeon_Gold_6336Y_2.40GHz_by_herver.csv',
    coresPerSocket: 24,
    coresPerL3: 24,
    siblings: 'high',
    standIn: true,
  },
  'rome-2s-7742': {
    csv: 'Dual_AMD_EPYC_7742_64_Core_Processor_by_nviennot.csv',
    coresPerSocket: 64,
    coresPerL3: 4,
    siblings: 'high',
  },
  'milan-2s-7763': {
    csv: 'Dual_AMD_EPYC_7763_64_Core_Processor_by_fwyzard.csv',
    coresPerSocket: 64,
    coresPerL3: 8,
    siblings: 'high',
  },
  'milan-1s-36c': {
    csv: 'AMD_EPYC_7R13_48_Core_Processor_from_AWS_c6a.metal_by_nviennot.csv',
    coresPerSocket: 48,
    coresPerL3: 8,
    siblings: 'high',
    standIn: true,
  },
  'genoa-2s-9654': {
    csv: 'Dual_AMD_EPYC_9654_96_Core_Processor_by_leavelet.csv',
    coresPerSocket: 96,
    coresPerL3: 8,
    siblings: 'none',
  },
};

/**
 * Parses a lower-triangular matrix: entry [a][b] for b < a is set. Throws MachineError naming file
 * and line.
 */
export function readMatrix(text: string, file: string): number[][] {
  const lines = text.split(/\r?\n/).filter((line) => line !== '');
  return lines.map((line, row) => {
    const cells = line.split(',').slice(0, row);
    return cells.map((cell, column) => {
      const ns = Number(cell);
      if (cell.trim() === '' || !(ns > 0))
        throw new MachineError(
          `${file}:${row + 1}: expected a latency in ns in column ${column + 1}, found "${cell}"`,
        );
      return ns;
    });
  });
}

/**
 * Percentiles by class: smt, same_l3, same_socket0, same_socket1, ..., cross_socket. Absent classes
 * are left out.
 */
export function classStatistics(
  matrix: readonly (readonly number[])[],
  layout: MatrixLayout,
): Record<string, ClassStatistics> {
  const threads = layout.siblings === 'none' ? 1 : 2;
  const cores = matrix.length / threads;
  const coreOf = (cpu: number): number =>
    layout.siblings === 'adjacent' ? Math.floor(cpu / 2) : cpu % cores;
  const samples: Record<string, number[]> = {};
  for (const [a, row] of matrix.entries()) {
    for (const [b, ns] of row.entries()) {
      const name = className(coreOf(a), coreOf(b), layout);
      samples[name] ??= [];
      samples[name].push(ns);
    }
  }
  return Object.fromEntries(
    Object.entries(samples).map(([name, values]) => [name, statisticsOf(values)]),
  );
}

function className(a: number, b: number, layout: MatrixLayout): string {
  if (a === b) return 'smt';
  const group = (core: number, size: number): number => Math.floor(core / size);
  if (group(a, layout.coresPerL3) === group(b, layout.coresPerL3)) return 'same_l3';
  const socket = group(a, layout.coresPerSocket);
  return socket === group(b, layout.coresPerSocket) ? `same_socket${socket}` : 'cross_socket';
}

function statisticsOf(values: number[]): ClassStatistics {
  const sorted = values.sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.floor(share * sorted.length)];
  return {p10: at(0.1), p50: at(0.5), p90: at(0.9), count: sorted.length};
}

/** The classes as an aligned table, one row per class. */
export function classTable(classes: Readonly<Record<string, ClassStatistics>>): string {
  const cells = [['class', 'p10_ns', 'p50_ns', 'p90_ns', 'pairs']];
  for (const [name, {p10, p50, p90, count}] of Object.entries(classes))
    cells.push([name, p10.toFixed(1), p50.toFixed(1), p90.toFixed(1), String(count)]);
  return cells
    .map(([name, ...numbers]) => name.padEnd(14) + numbers.map((n) => n.padStart(9)).join(''))
    .join('\n');
}

function main(args: readonly string[]): void {
  const [file, cores, l3 = cores, siblings = 'high'] = args;
  const known = siblings === 'high' || siblings === 'adjacent' || siblings === 'none';
  if (file === undefined || !(Number(cores) > 0) || !(Number(l3) > 0) || !known) {
    process.stderr.write(
      'usage: classes.ts matrix.csv CORES_PER_SOCKET [CORES_PER_L3] [high|adjacent|none]\n',
    );
    process.exitCode = 2;
    return;
  }
  const layout = {coresPerSocket: Number(cores), coresPerL3: Number(l3), siblings} as const;
  const matrix = readMatrix(readFileSync(file, 'utf8'), file);
  process.stdout.write(`${classTable(classStatistics(matrix, layout))}\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) main(process.argv.slice(2));
