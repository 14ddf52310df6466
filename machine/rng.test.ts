import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {Rng} from './rng.ts';

const draws = (rng: Rng, n: number): number[] => Array.from({length: n}, () => rng.nextU32());

const GOLDEN_NAMED = [799804942, 813197502, 2632882435, 1438949398];
const GOLDEN_NUMBERED = [3884769637, 1104454320, 4257988565, 1344508427];

test('the first draws never change: every stored digest hangs on them', () => {
  assert.deepEqual(draws(new Rng(1, 'engine'), 4), GOLDEN_NAMED);
  assert.deepEqual(draws(new Rng(1, 7), 4), GOLDEN_NUMBERED);
});
test('the generator is xoshiro128**: first outputs from the state 1, 2, 3, 4', () => {
  const rng = Object.assign(new Rng(0, 0), {s0: 1, s1: 2, s2: 3, s3: 4});
  assert.deepEqual(draws(rng, 4), [11520, 0, 5927040, 70819200]);
});

test('equal names give equal sequences, any difference another one', () => {
  const stream = fc.oneof(fc.string({maxLength: 12}), fc.integer({min: 0, max: 2 ** 40}));
  const seed = fc.maxSafeInteger();
  fc.assert(
    fc.property(seed, stream, seed, stream, (s1, n1, s2, n2) => {
      const a = draws(new Rng(s1, n1), 4).join();
      assert.equal(draws(new Rng(s1, n1), 4).join(), a);
      if (s1 !== s2 || n1 !== n2) assert.notEqual(draws(new Rng(s2, n2), 4).join(), a);
    }),
    {numRuns: 2000, seed: 11},
  );
});

test('neighbouring seeds and streams are independent: shared bits are half of all', () => {
  const pairs: [Rng, Rng][] = [];
  for (let i = 0; i < 64; i++) {
    pairs.push([new Rng(i, 'a'), new Rng(i + 1, 'a')]);
    pairs.push([new Rng(5, i), new Rng(5, i + 1)]);
    pairs.push([new Rng(i, 'lock'), new Rng(i, 'fork')]);
    pairs.push([new Rng(i, 3), new Rng(3, i === 3 ? 64 : i)]);
  }
  let same = 0;
  let bits = 0;
  for (const [a, b] of pairs) {
    for (let i = 0; i < 64; i++) {
      for (let x = ~(a.nextU32() ^ b.nextU32()); x !== 0; x &= x - 1) same++;
      bits += 32;
    }
  }
  const sigma = Math.sqrt(bits) / 2;
  assert.ok(Math.abs(same - bits / 2) < 4 * sigma, `${same} of ${bits}`);
});

test('every bit of a draw is fair', () => {
  const rng = new Rng(3, 'bits');
  const ones = new Float64Array(32);
  const count = 100_000;
  for (let i = 0; i < count; i++) {
    const x = rng.nextU32();
    for (let bit = 0; bit < 32; bit++) ones[bit] += (x >>> bit) & 1;
  }
  for (const [bit, n] of ones.entries())
    assert.ok(Math.abs(n - count / 2) < 4.5 * Math.sqrt(count / 4), `bit ${bit}: ${n}`);
});

test('nextInt fills its range evenly (chi-squared, 99 degrees of freedom)', () => {
  const rng = new Rng(4, 'ints');
  const cells = new Float64Array(100);
  for (let i = 0; i < 100_000; i++) cells[rng.nextInt(100)]++;
  const chi = cells.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
  assert.ok(chi > 61 && chi < 149, `chi-squared ${chi}`);
  for (let i = 0; i < 1000; i++) assert.equal(rng.nextInt(1), 0);
});

test('nextFloat and nextExp have their means and their ranges', () => {
  const rng = new Rng(5, 'reals');
  let sum = 0;
  let tail = 0;
  let floats = 0;
  const count = 200_000;
  for (let i = 0; i < count; i++) {
    const u = rng.nextFloat();
    assert.ok(u >= 0 && u < 1);
    floats += u;
    const x = rng.nextExp(250);
    assert.ok(x >= 0 && Number.isFinite(x));
    sum += x;
    if (x > 500) tail++;
  }
  assert.ok(Math.abs(floats / count - 0.5) < 0.003);
  assert.ok(Math.abs(sum / count - 250) < 3);
  assert.ok(Math.abs(tail / count - Math.exp(-2)) < 0.004);
});

test('shuffle keeps the elements and reaches every order equally', () => {
  const rng = new Rng(6, 'shuffle');
  const orders = new Map<string, number>();
  for (let i = 0; i < 24_000; i++) {
    const order = rng.shuffle([0, 1, 2, 3]).join('');
    orders.set(order, (orders.get(order) ?? 0) + 1);
  }
  assert.equal(orders.size, 24);
  for (const [order, n] of orders) assert.ok(Math.abs(n - 1000) < 130, `${order}: ${n}`);
  assert.deepEqual([...rng.shuffle(Int32Array.of(9))], [9]);
});
