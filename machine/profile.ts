// Where simulated CPU time went, by kernel function: self time, in ticks, over all CPUs.

import {assert} from './assert.ts';

/** Functions that a profile has room for. */
const MOST = 4096;

/**
 * Accumulates ticks by function name; names are interned so that charging is one array addition.
 */
export class Profile {
  readonly names: string[] = [];
  /** By id. CPUs, which charge at every step, add to it themselves. */
  readonly ticks = new Float64Array(MOST);
  private readonly ids = new Map<string, number>();

  /** The number that stands for `name`. */
  id(name: string): number {
    const known = this.ids.get(name);
    if (known !== undefined) return known;
    const id = this.names.length;
    assert(id < MOST, `more than ${MOST} functions in a profile`);
    this.names.push(name);
    this.ids.set(name, id);
    return id;
  }

  add(id: number, ticks: number): void {
    this.ticks[id] += ticks;
  }

  /** Forgets all time, keeps the names. */
  reset(): void {
    this.ticks.fill(0);
  }

  ticksOf(name: string): number {
    const id = this.ids.get(name);
    return id === undefined ? 0 : this.ticks[id];
  }

  /** Every function with time, most first. */
  entries(): [name: string, ticks: number][] {
    return this.names
      .map((name, id): [string, number] => [name, this.ticks[id]])
      .filter(([, ticks]) => ticks > 0)
      .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  }
}
