// mmreplay scenario run NAME|--all: the catalogue of bugs and fixes, each caught or clean as it
// must be.

import Table from 'cli-table3';
import type {Command} from 'commander';
import {EXIT, UserError} from '../../formats/errors.ts';
import {CATALOGUE, scenarioByName, type Scenario} from '../../workloads/catalogue.ts';
import type {Invocation} from '../main.ts';
import {replayGroups} from '../pool/replay_all.ts';
import {addJobsFlag, wholeNumber} from '../replay_flags.ts';
import {judgeScenario, scenarioJobs, type ScenarioResult} from '../scenario_runs.ts';

/** Name and version of what `scenario run --json` prints. */
const SCENARIO_SCHEMA = 'mmreplay.scenario/1';

interface RunFlags {
  all: boolean;
  design?: string;
  seed?: number;
  json: boolean;
  jobs?: number;
}

export function scenarioVerb(program: Command, invocation: Invocation): void {
  const scenario = program
    .command('scenario')
    .description('bugs and fixes of the mailing lists, reproduced');
  scenario
    .command('list')
    .description('the scenarios and where they come from')
    .option('--json', 'print JSON', false)
    .action((flags: {json: boolean}) => invocation.out.write(listing(flags.json)));
  const command = scenario
    .command('run [name]')
    .description('run one scenario, those whose name matches a pattern with * or ?, or all of them')
    .option('--all', 'every scenario', false)
    .option('--design <label>', 'only the design with this label')
    .option('--seed <n>', 'only this seed', wholeNumber(0))
    .option('--json', 'print JSON', false);
  addJobsFlag(command).action((name: string | undefined, flags: RunFlags) =>
    run(named(name, flags.all), flags, invocation),
  );
}

function named(name: string | undefined, all: boolean): Scenario[] {
  if (all) return [...CATALOGUE.values()];
  if (name === undefined) {
    const remedy = '`mmreplay scenario list` shows the names';
    throw new UserError(`scenario run: expected a name or --all; ${remedy}`, EXIT.usage);
  }
  if (!/[*?]/.test(name)) return [scenarioByName(name)];
  const pattern = globPattern(name);
  const matching = [...CATALOGUE.values()].filter((one) => pattern.test(one.name));
  if (matching.length > 0) return matching;
  throw new UserError(`scenario ${name}: nothing matches; see mmreplay scenario list`, EXIT.usage);
}

/** A shell pattern as a regular expression: `*` is anything, `?` one character. */
function globPattern(glob: string): RegExp {
  const escaped = glob.replace(/[.+^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`);
}

async function run(
  scenarios: readonly Scenario[],
  flags: RunFlags,
  invocation: Invocation,
): Promise<void> {
  const filter = {
    ...(flags.design === undefined ? {} : {label: flags.design}),
    ...(flags.seed === undefined ? {} : {seed: flags.seed}),
  };
  const chosen = flags.design === undefined ? scenarios : withDesign(scenarios, flags.design);
  const jobs = chosen.map((one) => scenarioJobs(one, filter));
  const reports = await replayGroups(jobs, {threads: flags.jobs, err: invocation.err});
  const results = chosen.flatMap((one, n) => judgeScenario(one, filter, reports[n]));
  if (results.some((result) => !result.ok)) invocation.exitCode = EXIT.failed;
  invocation.out.write(
    flags.json ? `${JSON.stringify({schema: SCENARIO_SCHEMA, results}, null, 1)}\n` : draw(results),
  );
}

/** Those that have a design with this label; UserError when there are none. */
function withDesign(scenarios: readonly Scenario[], wanted: string): Scenario[] {
  const having = scenarios.filter((one) => one.runs.some((run) => run.label === wanted));
  if (having.length > 0) return having;
  const labels = new Set(scenarios.flatMap((one) => one.runs.map((run) => run.label)));
  const text = `scenario run: no design has the label "${wanted}"`;
  throw new UserError(`${text}; choose one of ${[...labels].join(', ')}`, EXIT.usage);
}

function draw(results: readonly ScenarioResult[]): string {
  const table = new Table({
    head: ['scenario', 'design', 'kernel', 'expected', 'found', 'seeds', ''],
    style: {head: [], border: []},
  });
  for (const group of groups(results)) {
    const [first] = group;
    const found = [...new Set(group.map((result) => result.found))].join('/');
    const ok = group.every((result) => result.ok) ? 'ok' : 'NOT OK';
    table.push([
      first.scenario,
      first.label,
      first.kernel,
      first.expected,
      found,
      group.length,
      ok,
    ]);
  }
  const bad = results.filter((result) => !result.ok);
  const caught = results.filter((result) => result.ok && result.found === 'caught');
  const replays = (bad.length > 0 ? bad : caught.slice(0, 1)).map(
    (result) => `  ${result.command}\n${result.evidence.map((line) => `    ${line}\n`).join('')}`,
  );
  const ok = results.length - bad.length;
  const sum = `${ok} of ${results.length} runs as expected; to replay one:`;
  return `${table.toString()}\n${sum}\n${replays.join('')}`;
}

/** Results of one scenario and design together, in order. */
function groups(results: readonly ScenarioResult[]): ScenarioResult[][] {
  const byDesign = new Map<string, ScenarioResult[]>();
  for (const result of results) {
    const key = `${result.scenario} ${result.label}`;
    const group = byDesign.get(key);
    if (group === undefined) byDesign.set(key, [result]);
    else group.push(result);
  }
  return [...byDesign.values()];
}

function listing(asJson: boolean): string {
  const scenarios = [...CATALOGUE.values()].map(({name, summary, source, runs}) => ({
    name,
    summary,
    source,
    designs: runs.map(({label, kernel, expected}) => ({label, kernel, expected})),
  }));
  if (asJson) return `${JSON.stringify({schema: 'mmreplay.scenarios/1', scenarios}, null, 1)}\n`;
  return scenarios
    .map(({name, summary, source, designs}) => {
      const outcomes = designs.map(({label, expected}) => `${label} ${expected}`).join(', ');
      return `${name}: ${summary}\n  ${outcomes}\n  from ${source}\n`;
    })
    .join('');
}
