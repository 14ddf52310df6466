// mmreplay machines, designs, workloads: what can be chosen.

import Table from 'cli-table3';
import type {Command} from 'commander';
import {listDesigns, machines} from '../../replay/listings.ts';
import {WORKLOADS} from '../../workloads/registry.ts';
import type {Invocation} from '../main.ts';

const STYLE = {head: [], border: []};

export function machinesVerb(program: Command, {out}: Invocation): void {
  listing(
    program,
    'machines',
    'the machines that ship with mmreplay',
    (json) => {
      const list = machines();
      if (json) return {schema: 'mmreplay.machines/1', machines: list};
      const table = new Table({
        head: ['machine', 'CPUs', 'what it is'],
        style: STYLE,
        colWidths: [26, 6, 80],
        wordWrap: true,
      });
      for (const {name, cpus, description} of list) table.push([name, cpus, description]);
      const others = 'a file in the same form, or a shorthand like 8s18c2t or';
      return `${table.toString()}\nAny other: ${others} 2s4l16c2t@milan-2s-7763.\n`;
    },
    out,
  );
}

export function designsVerb(program: Command, {out}: Invocation): void {
  listing(
    program,
    'designs',
    'the axes of a design and which kernel picks what',
    (json) => {
      const axes = listDesigns();
      if (json) return {schema: 'mmreplay.designs/1', axes};
      const table = new Table({head: ['axis', 'choice', 'kernels'], style: STYLE});
      for (const {axis, choices} of axes) {
        choices.forEach(({choice, kernels}, i) => {
          table.push([i === 0 ? axis : '', choice, kernels.join(' ')]);
        });
      }
      return `${table.toString()}\n`;
    },
    out,
  );
}

export function workloadsVerb(program: Command, {out}: Invocation): void {
  listing(
    program,
    'workloads',
    'the workloads that `generate` knows',
    (json) => {
      const list = [...WORKLOADS.values()].map(({name, summary, imitates, params}) => ({
        name,
        summary,
        imitates,
        params,
      }));
      if (json) return {schema: 'mmreplay.workloads/1', workloads: list};
      return list
        .map(({name, summary, params}) => `${name}: ${summary}\n${params.map(paramLine).join('')}`)
        .join('\n');
    },
    out,
  );
}

function paramLine(param: {name: string; default: number | string; doc: string}): string {
  return `  ${`${param.name}=${param.default}`.padEnd(28)} ${param.doc}\n`;
}

function listing(
  program: Command,
  name: string,
  description: string,
  make: (json: boolean) => string | object,
  out: Invocation['out'],
): void {
  program
    .command(name)
    .description(description)
    .option('--json', 'print JSON', false)
    .action((flags: {json: boolean}) => {
      const made = make(flags.json);
      out.write(typeof made === 'string' ? made : `${JSON.stringify(made, null, 1)}\n`);
    });
}
