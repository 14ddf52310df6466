// Runs one benchmark under tinybench in this process and prints its figures as JSON. Started by `mmreplay bench`.

import {Bench} from 'tinybench';
import {benchNamed} from '../replay/benches.ts';

const MEASURE_MS = 1500;
const WARMUP_MS = 300;

const name = process.argv[2] ?? '';
const task = await benchNamed(name);
if (task === undefined) throw new Error(`no benchmark ${name}`);
const {perCall} = task;
const bench = new Bench({
  time: MEASURE_MS,
  warmupTime: WARMUP_MS,
  iterations: 3,
  warmupIterations: 1,
});
bench.add(name, () => task.fn());
await bench.run();
const result = bench.tasks[0].result;
if (result.state !== 'completed') throw new Error(`benchmark ${name}: ${result.state}`);
const {latency} = result;
process.stdout.write(
  `${JSON.stringify({
    name,
    unit: task.unit,
    ops_per_s: (perCall * 1000) / latency.p50,
    ops_per_s_mean: (perCall * 1000) / latency.mean,
    ns_per_op: (latency.p50 * 1e6) / perCall,
    rme_percent: latency.rme,
    samples: latency.samplesCount,
  })}\n`,
);
