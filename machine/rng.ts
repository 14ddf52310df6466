// Random numbers of the simulated machine. Every part that draws owns a named stream, so that
// adding a draw in one part does not shift the numbers of another: an A/B comparison by seed then
// compares like with like. The generator is xoshiro128** (Blackman and Vigna): 128 bits of state,
// 32 bits out, all in Int32 arithmetic. The four state words come from splitmix steps over the seed
// and a hash of the stream's name. `Math.log` in `nextExp` is the only function that the language
// does not pin to the last bit; its result is therefore rounded by callers to ticks.

/** FNV-1a over the UTF-16 units of a name, two bytes each. */
function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) {
    const unit = name.charCodeAt(i);
    hash = Math.imul(hash ^ (unit & 0xff), 0x01000193);
    hash = Math.imul(hash ^ (unit >>> 8), 0x01000193);
  }
  return hash | 0;
}

/** Finalizer of 32-bit splitmix: every input bit reaches every output bit. */
function mix(word: number): number {
  word = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
  word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
  return (word ^ (word >>> 15)) | 0;
}

/** One deterministic stream of random numbers, named by (seed, stream). */
export class Rng {
  private s0: number;
  private s1: number;
  private s2: number;
  private s3: number;

  /**
   * `seed` is any integer that a double holds exactly (both 32-bit halves count); `stream` is a
   * name or an integer. Equal pairs give equal sequences on every host; the number 7 and the name
   * '7' are two streams.
   */
  constructor(seed: number, stream: string | number) {
    const low = seed | 0;
    const high = Math.floor(seed / 0x100000000) | 0;
    const isName = typeof stream === 'string';
    const id = isName ? hashName(stream) : stream | 0;
    const idHigh = isName ? stream.length : Math.floor(stream / 0x100000000) | 0;
    let state = mix(mix(mix(mix(low) ^ high) + (isName ? 1 : 2)) ^ id);
    state = mix((state + idHigh) | 0);
    const second = mix(id ^ mix(low + 0x3c6ef372) ^ mix(high ^ idHigh));
    const next = (salt: number): number => {
      state = (state + 0x9e3779b9) | 0;
      return mix(state ^ Math.imul(second, salt));
    };
    this.s0 = next(1);
    this.s1 = next(0x6c8e9cf5);
    this.s2 = next(0x2545f491);
    this.s3 = next(0x5851f42d) | 1; // the all-zero state is the one that xoshiro never leaves
  }

  /** Integer in [0, 2^32). */
  nextU32(): number {
    const s1 = this.s1;
    const product = Math.imul(s1, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9);
    this.s2 ^= this.s0;
    this.s3 ^= s1;
    this.s1 = s1 ^ this.s2;
    this.s0 ^= this.s3;
    this.s2 ^= s1 << 9;
    this.s3 = (this.s3 << 11) | (this.s3 >>> 21);
    return result >>> 0;
  }

  /** Number in [0, 1) with 32 random bits. */
  nextFloat(): number {
    return this.nextU32() * 2.3283064365386963e-10;
  }

  /** Integer in [0, n), n from 1 to 2^32. The bias is below n / 2^32 and needs no second draw. */
  nextInt(n: number): number {
    return Math.floor(this.nextFloat() * n);
  }

  /**
   * Exponentially distributed number >= 0 with the given mean; round it before it becomes a time.
   */
  nextExp(mean: number): number {
    return -Math.log(1 - this.nextFloat()) * mean;
  }

  /** Shuffles in place (Fisher-Yates) and returns the same array. */
  shuffle<T extends Int32Array | Uint32Array | Float64Array | unknown[]>(array: T): T {
    const cells: {[index: number]: unknown} = array;
    for (let i = array.length - 1; i > 0; i--) {
      const j = this.nextInt(i + 1);
      const kept = cells[i];
      cells[i] = cells[j];
      cells[j] = kept;
    }
    return array;
  }
}
