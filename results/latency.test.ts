import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {build} from 'hdr-histogram-js';
import {drawHistogram} from './draw/histogram.ts';
import {LatencyRecorder, NO_LATENCY} from './latency.ts';

const latencies = fc.array(fc.integer({min: 0, max: 2 ** 40}), {minLength: 1, maxLength: 200});

test('nothing recorded is all zeros', () => {
  assert.deepEqual(new LatencyRecorder().summary(), NO_LATENCY);
  assert.equal(drawHistogram(new LatencyRecorder()), 'no samples\n');
});

test('mean and max are exact, percentiles within 0.1 % of the order statistic', () => {
  fc.assert(
    fc.property(latencies, (values) => {
      const recorder = new LatencyRecorder();
      for (const value of values) recorder.record(value);
      const xs = [...values].sort((a, b) => a - b);
      const summary = recorder.summary();
      assert.equal(summary.max, xs[xs.length - 1]);
      assert.equal(summary.mean, values.reduce((sum, x) => sum + x, 0) / values.length);
      const p50 = xs[Math.max(0, Math.ceil(xs.length * 0.5) - 1)];
      assert.ok(Math.abs(summary.p50 - p50) <= p50 * 0.001 + 1, `${summary.p50} for ${p50}`);
      assert.ok(summary.p50 <= summary.p90 && summary.p90 <= summary.p99);
      assert.ok(summary.p99 <= summary.p999 && summary.p999 <= summary.max);
    }),
  );
});

test('merging equals recording everything in one', () => {
  fc.assert(
    fc.property(latencies, latencies, (left, right) => {
      const [a, b, all] = [new LatencyRecorder(), new LatencyRecorder(), new LatencyRecorder()];
      for (const value of left) a.record(value);
      for (const value of right) b.record(value);
      for (const value of [...left, ...right]) all.record(value);
      a.merge(b);
      assert.equal(a.count, all.count);
      assert.deepEqual(a.log2Counts(), all.log2Counts());
      const [merged, whole] = [a.summary(), all.summary()];
      assert.ok(Math.abs(merged.mean - whole.mean) <= whole.mean * 1e-12);
      assert.deepEqual({...merged, mean: 0}, {...whole, mean: 0});
    }),
  );
});

test('percentiles are those of the library fed value by value', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({min: 0, max: 2 ** 50}), {minLength: 1}), (values) => {
      const recorder = new LatencyRecorder();
      const library = build({bitBucketSize: 64, autoResize: true, useWebAssembly: false});
      for (const value of values) {
        recorder.record(value);
        library.recordValue(value);
      }
      const most = Math.max(...values);
      for (const percentile of [1, 25, 50, 90, 99, 99.9]) {
        const expected = Math.min(library.getValueAtPercentile(percentile), most);
        assert.equal(recorder.percentileNs(percentile), expected);
      }
    }),
  );
});

test('ticks of 0.1 ns come out as ns', () => {
  const recorder = new LatencyRecorder(10);
  recorder.record(12345);
  recorder.record(5, 3);
  assert.equal(recorder.summary().max, 1234.5);
  assert.equal(recorder.minNs, 0.5);
  assert.equal(recorder.count, 4);
});

test('log2 histogram, drawn', () => {
  const recorder = new LatencyRecorder();
  recorder.record(0);
  recorder.record(5, 2);
  recorder.record(1500, 4);
  const bar = (n: number) => '@'.repeat(n).padEnd(52);
  assert.equal(
    drawHistogram(recorder).split('\n').slice(0, 5).join('\n'),
    [
      '@ns:',
      `[0, 1)                        1 |${bar(13)}|`,
      `[1, 2)                        0 |${bar(0)}|`,
      `[2, 4)                        0 |${bar(0)}|`,
      `[4, 8)                        2 |${bar(26)}|`,
    ].join('\n'),
  );
  assert.match(drawHistogram(recorder), /\[1K, 2K\) +4 \|@{52}\|\n$/);
});

test('a negative or fractional latency is a bug of ours', () => {
  assert.throws(() => new LatencyRecorder().record(-1), /mmreplay bug/);
  assert.throws(() => new LatencyRecorder().record(0.5), /mmreplay bug/);
});
