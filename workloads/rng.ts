// Random numbers of generated traces. Every part of a workload that draws owns a stream named by
// (seed, name, index), so that one more worker, or one more draw in one of them, leaves the others'
// numbers as they were: sweeps then compare like with like. xoshiro128** (Blackman and Vigna) over
// a splitmix-seeded state, in Int32 arithmetic.

function mix(word: number): number {
  let z = (word + 0x9e3779b9) | 0;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  return z ^ (z >>> 15);
}

/** How times are drawn around a mean: all equal, even over [0, 2 mean), or exponential. */
export type Distribution = 'constant' | 'uniform' | 'exponential';

/** One deterministic stream of random numbers. */
export class Stream {
  private readonly state = new Int32Array(4);

  /** `seed` is any safe integer. Equal triples give equal sequences on every host. */
  constructor(seed: number, name: string, index = 0) {
    let hash = mix(mix(seed | 0) ^ Math.floor(seed / 2 ** 32));
    for (let i = 0; i < name.length; i++) hash = mix(hash ^ name.charCodeAt(i));
    hash = mix(hash ^ index);
    for (let i = 0; i < 4; i++) this.state[i] = hash = mix(hash + i);
    this.state[3] |= 1; // the all-zero state is never left
  }

  /** Integer in [0, 2^32). */
  u32(): number {
    const s = this.state;
    const scaled = Math.imul(s[1], 5);
    const result = Math.imul((scaled << 7) | (scaled >>> 25), 9);
    const shifted = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = (s[3] << 11) | (s[3] >>> 21);
    return result >>> 0;
  }

  /** Number in [0, 1). */
  float(): number {
    return this.u32() / 2 ** 32;
  }

  /** Integer in [0, n), n from 1 to 2^32; bias below n / 2^32. */
  below(n: number): number {
    return Math.floor(this.float() * n);
  }

  /** True with probability p. */
  chance(p: number): boolean {
    return this.float() < p;
  }

  /** Whole ns around a mean, >= 0. */
  timeNs(meanNs: number, distribution: Distribution): number {
    if (meanNs === 0 || distribution === 'constant') return Math.round(meanNs);
    const unit = this.float();
    return Math.round(meanNs * (distribution === 'uniform' ? 2 * unit : -Math.log(1 - unit)));
  }

  /** A permutation of 0..n-1. */
  permutation(n: number): number[] {
    const order = Array.from({length: n}, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }
}
