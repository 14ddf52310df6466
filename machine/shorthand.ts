// Machines by shorthand: `8s18c2t` is 8 sockets of 18 cores with 2 threads each, `2s4l16c2t` has 4
// L3 groups in each 16-core socket. Latencies come from a machine file,
// `8s18c2t@westmere-ex-8s-80c`, or from the default base. What such a machine says about itself:
// its layout is the user's, every latency keeps the origin it had in the base.

import type {CostKey, LinkKind, MachineSpec, Sourced} from './spec_types.ts';
import {checkMachineSpec, MachineError, requiredCosts, USAGE} from './spec.ts';

/** Machine that lends its costs to a shorthand without `@`: one L3 per socket, and several. */
export const DEFAULT_BASE = 'icelake-2s-6336y';
export const DEFAULT_BASE_SEVERAL_L3 = 'genoa-2s-9654';

/** What a shorthand says; `base` is the name of the machine that lends the costs. */
export interface Shorthand {
  readonly sockets: number;
  readonly l3PerSocket: number;
  readonly coresPerSocket: number;
  readonly threadsPerCore: number;
  readonly base: string;
}

const FORM = /^(\d+)s(?:(\d+)l)?(\d+)c(?:(\d+)t)?(?:@(.+))?$/;
const NEARLY = /^\s*(\d+)\s*[sx*]\s*(\d+)\s*[cx*]?\s*(?:(\d+)\s*t?)?\s*$/i;

/**
 * Reads a shorthand; null when `text` has another form, MachineError when the form is right and a
 * number is not.
 */
export function parseShorthand(text: string): Shorthand | null {
  const match = FORM.exec(text);
  if (match === null) return null;
  const [, sockets, l3, cores, threads, base] = match;
  const machine = {
    sockets: Number(sockets),
    l3PerSocket: Number(l3 ?? 1),
    coresPerSocket: Number(cores),
    threadsPerCore: Number(threads ?? 1),
  };
  const shape = base === undefined ? text : text.slice(0, text.indexOf('@'));
  limit(shape, machine.sockets, 's', 'sockets', 32);
  limit(shape, machine.l3PerSocket, 'l', 'L3 groups per socket', 64);
  limit(shape, machine.coresPerSocket, 'c', 'cores per socket', 512);
  limit(shape, machine.threadsPerCore, 't', 'threads per core', 8);
  if (machine.coresPerSocket % machine.l3PerSocket !== 0)
    throw new MachineError(
      `machine "${shape}": ${cores} cores do not divide into ${l3} L3 groups; ` +
        `did you mean ${respell(machine, nearestMultiple(machine))}?`,
      USAGE,
    );
  const fallback = machine.l3PerSocket > 1 ? DEFAULT_BASE_SEVERAL_L3 : DEFAULT_BASE;
  return {...machine, base: base ?? fallback};
}

function limit(shape: string, value: number, letter: string, what: string, most: number): void {
  if (value >= 1 && value <= most) return;
  throw new MachineError(
    `machine "${shape}": ${value}${letter}: expected 1 to ${most} ${what}`,
    USAGE,
  );
}

function nearestMultiple({coresPerSocket, l3PerSocket}: Omit<Shorthand, 'base'>): number {
  return Math.max(1, Math.round(coresPerSocket / l3PerSocket)) * l3PerSocket;
}

function respell(machine: Omit<Shorthand, 'base'>, coresPerSocket: number): string {
  const l3 = machine.l3PerSocket === 1 ? '' : `${machine.l3PerSocket}l`;
  return `${machine.sockets}s${l3}${coresPerSocket}c${machine.threadsPerCore}t`;
}

/** A well-formed shorthand close to `text` (`8S18C`, `2x16x2`), or null. */
export function suggestShorthand(text: string): string | null {
  const lower = text.toLowerCase().replaceAll(' ', '');
  if (lower !== text && FORM.test(lower)) return lower;
  const match = NEARLY.exec(text);
  return match === null ? null : `${match[1]}s${match[2]}c${match[3] ?? 1}t`;
}

/**
 * The machine of a shorthand with the costs of `base`. Throws MachineError when the base lacks a
 * cost it needs.
 */
export function expandShorthand(text: string, short: Shorthand, base: MachineSpec): MachineSpec {
  const given = <T>(value: T): Sourced<T> => ({value, source: `as asked for: ${text}`});
  const coresPerL3 = short.coresPerSocket / short.l3PerSocket;
  const nodes = base.layout.nodesPerSocket;
  const layout: MachineSpec['layout'] = {
    ...base.layout,
    sockets: given(short.sockets),
    l3PerSocket: given(short.l3PerSocket),
    coresPerL3: given(coresPerL3),
    threadsPerCore: given(short.threadsPerCore),
    nodesPerSocket: short.coresPerSocket % nodes.value === 0 ? nodes : given(1),
    links: {value: linksOf(short.sockets), assumption: 'usual wiring of this many sockets'},
  };
  const costsNs = {...base.costsNs, ...twoHopCosts(base)};
  for (const key of requiredCosts(layout)) {
    if (costsNs[key] === undefined)
      throw new MachineError(
        `machine "${text}": base ${base.name} has no costsNs.${key}; name another base after @`,
      );
  }
  const homeNode: Sourced<number> =
    base.model.homeNode.value < short.sockets * layout.nodesPerSocket.value
      ? base.model.homeNode
      : {value: 0, assumption: `node ${base.model.homeNode.value} of the base does not exist`};
  const description = `${text}: layout as asked for, costs of ${base.name}`;
  const model = {...base.model, homeNode};
  return checkMachineSpec({name: text, description, layout, costsNs, model}, `machine "${text}"`);
}

function linksOf(sockets: number): LinkKind {
  if (sockets <= 4) return 'full';
  return sockets === 8 ? 'twisted-hypercube' : 'ring';
}

/** Two-hop costs that the base does not state: a second link adds as much as the first. */
function twoHopCosts(base: MachineSpec): Partial<Record<CostKey, Sourced<number>>> {
  const {twoHop, memoryTwoHop, crossSocket, sameSocket, sameL3} = base.costsNs;
  const {memoryLocal, memoryRemote} = base.costsNs;
  const assumption = `a second link adds as much as the first in ${base.name}`;
  const added: Partial<Record<CostKey, Sourced<number>>> = {};
  const near = sameSocket ?? sameL3;
  const further = (one: number, none: number): Sourced<number> => ({
    value: Math.round((2 * one - none) * 10) / 10,
    assumption,
  });
  if (twoHop === undefined && crossSocket !== undefined && near !== undefined)
    added.twoHop = further(crossSocket.value, near.value);
  if (memoryTwoHop === undefined && memoryRemote !== undefined && memoryLocal !== undefined)
    added.memoryTwoHop = further(memoryRemote.value, memoryLocal.value);
  return added;
}
