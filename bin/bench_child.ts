// Runs one benchmark under tinybench in this process and prints its figures as JSON. Started by
// `mmreplay bench`.

import {Bench} from 'tinybench';
import {type Bench as Task, benchNamed} from '../replay/benches.ts';

const MEASURE_MS = 1500;
const WARMUP_MS = 300;
const MEASURE_CALLS = 7;

const name = process.argv[2] ?? '';
const task = await benchNamed(name);
if (task === undefined) throw new Error(`no benchmark ${name}`);
if (task.once === undefined) await repeat(task);
else runOnce(task, task.once);

/** Median over many calls. */
async function repeat({perCall, unit, warmUps = 1, fn}: Task): Promise<void> {
  const bench = new Bench({
    time: MEASURE_MS,
    warmupTime: WARMUP_MS,
    iterations: MEASURE_CALLS,
    warmupIterations: warmUps,
  });
  bench.add(name, () => fn());
  await bench.run();
  const result = bench.tasks[0].result;
  if (result.state !== 'completed') throw new Error(`benchmark ${name}: ${result.state}`);
  const {latency} = result;
  print({
    unit,
    ops_per_s: (perCall * 1000) / latency.p50,
    ops_per_s_mean: (perCall * 1000) / latency.mean,
    ns_per_op: (latency.p50 * 1e6) / perCall,
    rme_percent: latency.rme,
    samples: latency.samplesCount,
  });
}

/** One call: its CPU time, which other load on this host stretches least, and its memory. */
function runOnce({perCall, unit, fn}: Task, {pages, warmUp}: NonNullable<Task['once']>): void {
  warmUp();
  const baseBytes = process.memoryUsage().rss;
  const began = process.cpuUsage();
  fn();
  const {user, system} = process.cpuUsage(began);
  const peakBytes = process.resourceUsage().maxRSS * 1024;
  const seconds = (user + system) / 1e6;
  print({
    unit,
    ops_per_s: perCall / seconds,
    ops_per_s_mean: perCall / seconds,
    ns_per_op: (seconds * 1e9) / perCall,
    rme_percent: 0,
    samples: 1,
    bytes_per_page: (peakBytes - baseBytes) / pages,
  });
}

function print(figures: object): void {
  process.stdout.write(`${JSON.stringify({name, ...figures})}\n`);
}
