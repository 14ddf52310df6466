// The columns of a comparison: what each design was run on, and whether that is the same thing as
// the baseline.

import {checkCounts} from './metrics.ts';
import type {Column} from './comparison.ts';
import {UserError} from './errors.ts';
import type {RunReport} from './run.ts';

/** One design to compare: a label for the reader and its runs, one per seed. */
export interface Input {
  readonly label: string;
  readonly runs: readonly RunReport[];
}

/**
 * Checks every input and describes it; throws UserError when an input is not one design over
 * distinct seeds.
 */
export function buildColumns(inputs: readonly Input[]): Column[] {
  if (inputs.length < 2) {
    throw new UserError('a comparison needs a baseline and at least one other design', 2);
  }
  const labels = new Set(inputs.map((input) => input.label));
  if (labels.size !== inputs.length) {
    throw new UserError('two designs of the comparison have the same label; give each its own', 2);
  }
  return inputs.map((input) => columnOf(input, inputs[0]));
}

function columnOf(input: Input, baseline: Input): Column {
  checkInput(input);
  const first = input.runs[0];
  const reason = input === baseline ? undefined : whyIncomparable(input, baseline);
  return {
    label: input.label,
    trace: first.trace,
    machine: first.machine,
    kernel: first.kernel,
    design: first.design,
    copies: first.replay.copies,
    seeds: input.runs.map((run) => run.seed),
    digests: input.runs.map((run) => run.digest),
    ...(reason === undefined ? {} : {incomparable: reason}),
    failures: failuresOf(input.runs),
    warnings: textsOf(input.runs.map((run) => run.checks.warnings)),
    notes: textsOf(input.runs.map((run) => run.checks.notes ?? {})),
  };
}

function checkInput(input: Input): void {
  if (input.runs.length === 0) throw new UserError(`design "${input.label}" has no runs`, 2);
  const [first] = input.runs;
  const seen = new Set<number>();
  for (const run of input.runs) {
    if (seen.has(run.seed)) {
      throw new UserError(
        `design "${input.label}" has seed ${run.seed} twice; keep one run per seed`,
      );
    }
    seen.add(run.seed);
    if (designText(run) !== designText(first)) {
      throw new UserError(
        `design "${input.label}" mixes ${designText(first)} and ${designText(run)}; ` +
          'give each design its own label',
      );
    }
  }
}

/** `kernel 4.19, pgd=pgd-list spinlock=qspinlock`: the same text for the same design. */
export function designText(run: Pick<RunReport, 'kernel' | 'design'>): string {
  const axes = Object.keys(run.design).sort();
  return `kernel ${run.kernel}, ${axes.map((axis) => `${axis}=${run.design[axis]}`).join(' ')}`;
}

function whyIncomparable(input: Input, baseline: Input): string | undefined {
  let common = 0;
  for (const run of input.runs) {
    const other = baseline.runs.find((candidate) => candidate.seed === run.seed);
    if (other === undefined) continue;
    common++;
    if (other.trace.hash !== run.trace.hash) {
      return `trace ${run.trace.hash} is not the baseline's ${other.trace.hash} (seed ${run.seed})`;
    }
    if (other.machine.hash !== run.machine.hash) {
      return (
        `machine ${run.machine.name} (${run.machine.hash}) is not the baseline's ` +
        `${other.machine.name} (${other.machine.hash})`
      );
    }
  }
  return common === 0 ? 'no seed in common with the baseline' : undefined;
}

function failuresOf(runs: readonly RunReport[]): Record<string, number> {
  const failures: Record<string, number> = {};
  for (const run of runs) {
    for (const [name, count] of Object.entries(checkCounts(run))) {
      if (count > 0) failures[name] = (failures[name] ?? 0) + 1;
    }
  }
  return failures;
}

/** Texts of all runs, with how often each came. */
function textsOf(runs: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const texts: Record<string, number> = {};
  for (const run of runs) {
    for (const [text, count] of Object.entries(run)) texts[text] = (texts[text] ?? 0) + count;
  }
  return texts;
}
