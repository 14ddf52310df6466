// Finds machines: by the name of a shipped file, by the path of a file, or by shorthand. Shipped
// files live in machine/files under the package root, which is the nearest folder upwards that
// holds package.json, so that the sources and the compiled package find the same files.

import {existsSync, readdirSync, readFileSync} from 'node:fs';
import {basename, dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {assert} from './assert.ts';
import {expandShorthand, parseShorthand, suggestShorthand} from './shorthand.ts';
import {checkMachineSpec, MachineError, parseMachineSpec, USAGE} from './spec.ts';
import type {MachineSpec} from './spec_types.ts';
import {Topology} from './topology.ts';

/** One row of `mmreplay machines`. */
export interface MachineListing {
  readonly name: string;
  readonly description: string;
  readonly cpus: number;
  readonly sockets: number;
  readonly nodes: number;
  readonly hash: string;
  /** Numbers and flags of the file that were measured or published for this machine. */
  readonly sourced: number;
  /** Those that are assumptions, stand-ins included. */
  readonly assumed: number;
  /** The distinct origins of the first kind. */
  readonly sources: readonly string[];
}

/** Folder of the shipped machine files. */
export function machineFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    assert(parent !== folder, 'no package.json above machine/machines');
    folder = parent;
  }
  return join(folder, 'machine', 'files');
}

/** Names of the shipped machines, sorted. */
export function machineNames(): string[] {
  return readdirSync(machineFolder())
    .filter((file) => file.endsWith('.json'))
    .map((file) => basename(file, '.json'))
    .sort();
}

/** Every shipped machine. */
export function listMachines(): MachineListing[] {
  return machineNames().map((name) => {
    const spec = loadMachineSpec(name);
    const topology = new Topology(spec);
    const fields = [spec.layout, spec.costsNs, spec.model].flatMap((group) => Object.values(group));
    const sources = fields.flatMap((field) => (field.source === undefined ? [] : [field.source]));
    return {
      name,
      description: spec.description,
      cpus: topology.cpuCount,
      sockets: topology.socketCount,
      nodes: topology.nodeCount,
      hash: topology.hash,
      sourced: sources.length,
      assumed: fields.length - sources.length,
      sources: [...new Set(sources)],
    };
  });
}

/**
 * The machine that `text` names: a shipped machine, a path (with `/` or ending in `.json`) or a
 * shorthand such as `8s18c2t@westmere-ex-8s-80c`; `costsNs` changes some of its costs. Throws
 * MachineError.
 */
export function loadMachine(text: string, costsNs: CostOverrides = {}): Topology {
  const spec = loadMachineSpec(text);
  const overrides = Object.entries(costsNs);
  if (overrides.length === 0) return new Topology(spec);
  const costs: Record<string, unknown> = {...spec.costsNs};
  for (const [key, value] of overrides) costs[key] = {value, assumption: 'set for this run'};
  const name = `${spec.name} ${overrides.map(([key, value]) => `${key}=${value}`).join(' ')}`;
  return new Topology(checkMachineSpec({...spec, name, costsNs: costs}, name));
}

/** Costs in ns that a run changes, by the names of the machine file. */
export type CostOverrides = Readonly<Record<string, number>>;

/** As `loadMachine`, but what the file says instead of the machine built from it. */
export function loadMachineSpec(text: string): MachineSpec {
  if (machineNames().includes(text)) return readSpec(join(machineFolder(), `${text}.json`));
  const short = parseShorthand(text);
  if (short !== null) return expandShorthand(text, short, loadMachineSpec(short.base));
  if (text.includes('/') || text.endsWith('.json')) return readSpec(text);
  throw new MachineError(unknownMachine(text), USAGE);
}

function readSpec(path: string): MachineSpec {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new MachineError(`${path}: cannot be read (${code}); give a machine file or its name`);
  }
  return parseMachineSpec(text, path);
}

function unknownMachine(text: string): string {
  const names = machineNames();
  const near = names
    .map((name) => ({name, edits: editDistance(text.toLowerCase(), name)}))
    .sort((a, b) => a.edits - b.edits)
    .filter(({name, edits}) => edits <= Math.max(2, name.length / 3) || name.startsWith(text));
  const guess = suggestShorthand(text) ?? near[0]?.name;
  const hint = guess === undefined ? '' : ` did you mean ${guess}?`;
  return (
    `machine "${text}" is not known;${hint} Known: ${names.join(', ')}, ` +
    'a path to a machine file, or a shorthand such as 2s16c2t or 8s10c1t@westmere-ex-8s-80c'
  );
}

/**
 * Insertions, deletions and replacements between two short names (Levenshtein, one row at a time).
 */
function editDistance(a: string, b: string): number {
  let row = Array.from({length: b.length + 1}, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[b.length];
}
