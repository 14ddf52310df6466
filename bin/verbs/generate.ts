// mmreplay generate WORKLOAD key=value...: writes a synthetic trace.

import type {Command} from 'commander';
import {openTraceFile} from '../../formats/sink.ts';
import {TraceWriter} from '../../formats/writer.ts';
import {workloadByName} from '../../workloads/registry.ts';
import {parseParams} from '../../workloads/workload.ts';
import type {Invocation} from '../main.ts';
import {wholeNumber} from '../replay_flags.ts';

interface Flags {
  output: string;
  seed: number;
  json: boolean;
}

export function generateVerb(program: Command, {out, err}: Invocation): void {
  program
    .command('generate <workload> [params...]')
    .description('write a synthetic trace; parameters as key=value, see `mmreplay workloads`')
    .requiredOption('-o, --output <file>', 'where to write (.gz compresses, - is standard output)')
    .option('--seed <n>', 'seed of everything random', wholeNumber(0), 1)
    .option('--json', 'print the summary as JSON', false)
    .action((name: string, words: string[], flags: Flags) => {
      const workload = workloadByName(name);
      const params = parseParams(workload, words);
      const file = openTraceFile(flags.output);
      const summary = workload.generate(
        (header) => new TraceWriter(file.sink, header),
        params,
        flags.seed,
      );
      file.close();
      const messages = flags.output === '-' ? err : out;
      const {seed} = flags;
      const report = {schema: 'mmreplay.generate/1', workload: name, params, seed, ...summary};
      messages.write(
        flags.json
          ? `${JSON.stringify(report, null, 1)}\n`
          : `${flags.output}: ${summary.events} events of ${name}, seed ${seed}\n`,
      );
    });
}
