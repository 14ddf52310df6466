// What a machine file says, and the check that it says it. Every number in a file carries where it
// comes from: a `source`, or the word `assumption` and the reason. A file with a bare number, an
// unknown key or a missing cost is refused with the path of the field, because a silently ignored
// field is a wrong result that nobody will look for. Costs that a machine cannot incur (no SMT, one
// L3 per socket, one socket) may be left out; `requiredCosts` says which.

import type {MachineSpec} from './spec_types.ts';
import {COST_KEYS, type CostKey, LINK_KINDS, socketHops} from './spec_types.ts';

/** Exit codes of the command line: a name or shorthand of no machine, and a bad machine file. */
export const USAGE = 2;
const BAD_INPUT = 3;

/** Bad machine file or name: `message` names file, field and remedy. */
export class MachineError extends Error {
  constructor(
    message: string,
    readonly exitCode: typeof USAGE | typeof BAD_INPUT = BAD_INPUT,
  ) {
    super(message);
    this.name = 'MachineError';
  }
}

/** Most CPUs that one machine may have. */
export const MAX_CPUS = 1024;

type Check = (value: unknown) => string | null;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function numberIn(min: number, max: number, whole = false): Check {
  return (value) => {
    const kind = whole ? 'a whole number' : 'a number';
    if (typeof value !== 'number' || !Number.isFinite(value)) return kind;
    if (whole && !Number.isInteger(value)) return kind;
    return value < min || value > max ? `${kind} from ${min} to ${max}` : null;
  };
}

const isBoolean: Check = (value) => (typeof value === 'boolean' ? null : 'true or false');
const isLinks: Check = (value) =>
  LINK_KINDS.some((kind) => kind === value) ? null : `one of ${LINK_KINDS.join(', ')}`;

const count = numberIn(1, MAX_CPUS, true);
const costNs = numberIn(0, 1e9);

const LAYOUT: Record<keyof MachineSpec['layout'], Check> = {
  sockets: numberIn(1, 32, true),
  l3PerSocket: count,
  coresPerL3: count,
  threadsPerCore: numberIn(1, 8, true),
  nodesPerSocket: numberIn(1, 8, true),
  nodeMemoryGib: numberIn(0.001, 65536),
  ghz: numberIn(0.1, 10),
  links: isLinks,
};

const MODEL: Record<keyof Required<MachineSpec['model']>, Check> = {
  smtSlowdown: numberIn(1, 8),
  serialReads: isBoolean,
  homeNode: numberIn(0, MAX_CPUS, true),
  storeBufferEntries: numberIn(1, 512, true),
  kernelWork: numberIn(0.1, 20),
  forkWork: numberIn(0.1, 20),
};
const OPTIONAL_MODEL: readonly string[] = ['kernelWork', 'forkWork'];

const COSTS: Record<string, Check> = Object.fromEntries(COST_KEYS.map((key) => [key, costNs]));

/** Reads one file's JSON. Throws MachineError naming `file` and the field. */
export function parseMachineSpec(text: string, file: string): MachineSpec {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new MachineError(`${file}: not JSON (${why}); a machine file is one JSON object`);
  }
  return checkMachineSpec(json, file);
}

/**
 * Checks an object that should be a machine file's content. Throws MachineError naming `file` and
 * the field.
 */
export function checkMachineSpec(json: unknown, file: string): MachineSpec {
  const top = section(json, file, '', ['name', 'description', 'layout', 'costsNs', 'model']);
  for (const key of ['name', 'description']) {
    const value = top[key];
    if (typeof value !== 'string' || value === '')
      throw new MachineError(`${file}: ${key}: expected a non-empty text; add it`);
  }
  sourcedSection(top['layout'], file, 'layout', LAYOUT, Object.keys(LAYOUT));
  const required = Object.keys(MODEL).filter((key) => !OPTIONAL_MODEL.includes(key));
  sourcedSection(top['model'], file, 'model', MODEL, required);
  sourcedSection(top['costsNs'], file, 'costsNs', COSTS, []);
  const spec = json as MachineSpec;
  checkWhole(spec, file);
  return spec;
}

function section(
  value: unknown,
  file: string,
  path: string,
  keys: readonly string[],
): Record<string, unknown> {
  const at = path === '' ? file : `${file}: ${path}`;
  if (!isRecord(value)) throw new MachineError(`${at}: expected an object`);
  for (const key of Object.keys(value)) {
    if (keys.includes(key)) continue;
    const where = path === '' ? key : `${path}.${key}`;
    throw new MachineError(`${file}: ${where}: unknown key; expected ${keys.join(', ')}`);
  }
  return value;
}

function sourcedSection(
  value: unknown,
  file: string,
  path: string,
  checks: Readonly<Record<string, Check>>,
  required: readonly string[],
): void {
  const fields = section(value, file, path, Object.keys(checks));
  for (const key of required) {
    if (fields[key] === undefined)
      throw new MachineError(`${file}: ${path}.${key}: missing; add {value, source}`);
  }
  for (const [key, field] of Object.entries(fields))
    checkSourced(field, file, `${path}.${key}`, checks[key]);
}

function checkSourced(field: unknown, file: string, path: string, check: Check): void {
  const form = '{value, source} or {value, assumption}';
  if (!isRecord(field))
    throw new MachineError(
      `${file}: ${path}: expected ${form}, found ${JSON.stringify(field)}; say where it comes from`,
    );
  const entry = section(field, file, path, ['value', 'source', 'assumption']);
  const wrong = check(entry['value']);
  if (wrong !== null)
    throw new MachineError(
      `${file}: ${path}.value: expected ${wrong}, found ${JSON.stringify(entry['value'])}`,
    );
  const origins = [entry['source'], entry['assumption']].filter((text) => text !== undefined);
  if (origins.length !== 1 || typeof origins[0] !== 'string' || origins[0].trim() === '')
    throw new MachineError(`${file}: ${path}: expected ${form}, exactly one of them, as text`);
}

/** The costs this machine's layout can incur; the others may be left out of its file. */
export function requiredCosts(layout: MachineSpec['layout']): CostKey[] {
  const far = socketHops(layout.links.value, layout.sockets.value).reduce((a, b) => Math.max(a, b));
  const absent = new Set<CostKey>(['invlpgb', 'tlbsync']);
  if (layout.threadsPerCore.value === 1) absent.add('smt');
  if (layout.l3PerSocket.value === 1) absent.add('sameSocket').add('sameSocketRemoteHome');
  if (far < 1) absent.add('crossSocket').add('memoryRemote');
  if (far < 2) absent.add('twoHop').add('memoryTwoHop');
  return COST_KEYS.filter((key) => !absent.has(key));
}

function checkWhole(spec: MachineSpec, file: string): void {
  const {layout, costsNs, model} = spec;
  const cpus =
    layout.sockets.value *
    layout.l3PerSocket.value *
    layout.coresPerL3.value *
    layout.threadsPerCore.value;
  if (cpus > MAX_CPUS)
    throw new MachineError(`${file}: layout: ${cpus} CPUs; at most ${MAX_CPUS} are supported`);
  if (layout.links.value === 'twisted-hypercube' && layout.sockets.value !== 8)
    throw new MachineError(
      `${file}: layout.links: twisted-hypercube needs 8 sockets; use full or ring`,
    );
  for (const key of requiredCosts(layout)) {
    if (costsNs[key] === undefined)
      throw new MachineError(
        `${file}: costsNs.${key}: missing; this layout can incur it, so add it`,
      );
  }
  const nodes = layout.sockets.value * layout.nodesPerSocket.value;
  if (model.homeNode.value >= nodes)
    throw new MachineError(`${file}: model.homeNode.value: expected a node below ${nodes}`);
  const coresPerSocket = layout.l3PerSocket.value * layout.coresPerL3.value;
  if (coresPerSocket % layout.nodesPerSocket.value !== 0)
    throw new MachineError(
      `${file}: layout.nodesPerSocket: ${coresPerSocket} cores per socket do not divide into it`,
    );
}
