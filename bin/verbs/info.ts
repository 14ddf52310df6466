// mmreplay info TRACE: what a trace holds.

import Table from 'cli-table3';
import type {Command} from 'commander';
import {EXIT} from '../../formats/errors.ts';
import {KIND_BY_CODE, isOperation} from '../../formats/kinds.ts';
import {loadTrace, type LoadedTrace} from '../../formats/reader.ts';
import type {Invocation} from '../main.ts';

/** Counts by kind name, and what the file says about itself. */
function summarise(trace: LoadedTrace): Record<string, unknown> {
  const operations: Record<string, number> = {};
  const answers: Record<string, number> = {};
  const {kind, count, timeNs} = trace.events;
  let firstNs = Infinity;
  let lastNs = -Infinity;
  for (let i = 0; i < count; i++) {
    const name = KIND_BY_CODE[kind[i]]?.name ?? `kind ${kind[i]}`;
    const into = isOperation(kind[i]) ? operations : answers;
    into[name] = (into[name] ?? 0) + 1;
    firstNs = Math.min(firstNs, timeNs[i]);
    lastNs = Math.max(lastNs, timeNs[i]);
  }
  const {header, footer} = trace;
  return {
    schema: 'mmreplay.info/1',
    path: trace.path,
    hash: trace.hash,
    header: {...header, baseNs: header.baseNs.toString(), seed: header.seed.toString()},
    events: count,
    duration_ns: count === 0 ? 0 : lastNs - firstNs,
    tasks: new Set(trace.tasks.map((task) => task.tid)).size,
    operations,
    answers,
    unmodelled: footer?.unmodelled ?? {},
    source_events: footer?.sourceEvents ?? 0,
    derived: footer?.derived ?? 0,
    lost: footer?.lost ?? 0,
    reordered: footer?.reordered ?? 0,
    warnings: footer?.warnings ?? [],
    truncated: trace.truncated?.message ?? footer?.truncated ?? '',
  };
}

function draw(trace: LoadedTrace): string {
  const info = summarise(trace);
  const {header} = trace;
  const workload = Object.entries(header.workload.params).map(([key, value]) => `${key}=${value}`);
  const {cpus, model, kernelRelease} = header.machine;
  const machine = [cpus > 0 ? `${cpus} CPUs` : '', model, kernelRelease].filter((s) => s !== '');
  const seconds = (Number(info['duration_ns']) / 1e9).toFixed(6);
  const lines = [
    `trace     ${trace.path} (${trace.hash})`,
    `source    ${header.source}${header.provenance === '' ? '' : `, ${header.provenance}`}`,
    ...(machine.length > 0 ? [`machine   ${machine.join(' ')}`] : []),
    ...(header.workload.name === ''
      ? []
      : [`workload  ${header.workload.name} ${workload.join(' ')}`]),
    `events    ${info['events']} over ${seconds} s, ${info['tasks']} tasks, ${info['lost']} lost`,
  ];
  const table = new Table({
    head: ['stream', 'event', 'count'],
    style: {head: [], border: []},
    colAligns: ['left', 'left', 'right'],
  });
  for (const stream of ['operations', 'answers', 'unmodelled']) {
    const counts = Object.entries(info[stream] as Record<string, number>);
    counts.sort((a, b) => b[1] - a[1]);
    counts.forEach(([name, n], i) => {
      table.push([i === 0 ? stream : '', name, n]);
    });
  }
  return `${lines.join('\n')}\n${table.toString()}\n`;
}

export function infoVerb(program: Command, invocation: Invocation): void {
  program
    .command('info <trace>')
    .description('what a trace holds')
    .option('--json', 'print JSON', false)
    .action((path: string, flags: {json: boolean}) => {
      const trace = loadTrace(path, {tolerant: true});
      const text = flags.json ? `${JSON.stringify(summarise(trace), null, 1)}\n` : draw(trace);
      invocation.out.write(text);
      if (trace.truncated !== undefined) {
        invocation.err.write(`mmreplay: ${trace.truncated.message}\n`);
        invocation.exitCode = EXIT.partial;
      }
    });
}
