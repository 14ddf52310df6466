import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {compareRuns} from './compare.ts';
import {fixtureRun, fixtureRuns} from './fixture.ts';
import {resultsFolder} from './golden.ts';
import {type Published, shippedPublished} from './published.ts';
import {buildSweep} from './sweep.ts';
import {type Simulated, validate, validationOf} from './validation.ts';

const text = readFileSync(join(resultsFolder(), '..', 'docs', 'json-schemas.md'), 'utf8');

/** Objects whose keys are names of things (locks, operations, series), not fields. */
const OPEN = new Set([
  ...['design', 'edges', 'ops', 'functions', 'locks', 'handoff', 'wait_ns_by_caller', 'calls'],
  ...['tlb', 'faults', 'counters', 'warnings', 'notes', 'failures', 'params'],
]);

function fieldsOf(value: unknown, into: Set<string>, isOpen = false): void {
  if (Array.isArray(value)) {
    for (const item of value) fieldsOf(item, into);
  } else if (typeof value === 'object' && value !== null) {
    for (const [name, inner] of Object.entries(value)) {
      if (!isOpen) into.add(name);
      fieldsOf(inner, into, !isOpen && OPEN.has(name));
    }
  }
}

/** The part of the document about one schema. */
function section(schema: string): string {
  const start = text.indexOf(`\n## ${schema}`);
  assert.ok(start >= 0, `no section on ${schema}`);
  const end = text.indexOf('\n## ', start + 1);
  return text.slice(start, end < 0 ? undefined : end);
}

function itself({series}: Published): Simulated[] {
  return series.map(({name, points}) => ({series: name, points}));
}

const objects: readonly {readonly schema: string}[] = [
  fixtureRun(),
  compareRuns([
    {label: 'a', runs: fixtureRuns(12)},
    {label: 'b', runs: fixtureRuns(12, {pgd: 'lockless-2015-09', speed: 0.5})},
    {label: 'c', runs: fixtureRuns(12, {traceHash: 'other'})},
  ]),
  buildSweep([{label: 'a', x: 1, runs: [fixtureRun()]}]),
  ...shippedPublished(),
  validationOf(shippedPublished().map((published) => validate(published, itself(published)))),
];

for (const object of objects) {
  const name = 'name' in object ? `${object.schema} (${object.name})` : object.schema;
  test(`docs/json-schemas.md names every field of ${name}`, () => {
    const about = section(object.schema) + text.slice(0, text.indexOf('\n## '));
    const fields = new Set<string>();
    fieldsOf(object, fields);
    const spans = about.match(/`[^`]+`/g) ?? [];
    const named = new Set(spans.flatMap((span) => span.match(/\w+/g) ?? []));
    const unnamed = [...fields].filter((field) => !named.has(field));
    assert.deepEqual(unnamed, []);
  });
}
