import assert from 'node:assert/strict';
import {test} from 'node:test';
import {loadMachine, loadMachineSpec} from './machines.ts';
import {checkMachineSpec, MachineError, parseMachineSpec} from './spec.ts';

type Json = Record<string, Record<string, unknown>>;

/** The shipped Ice Lake file with one change, as the check's message; '' when it is accepted. */
function complaint(change: (json: Json) => void, base = 'icelake-2s-6336y'): string {
  const json = JSON.parse(JSON.stringify(loadMachineSpec(base))) as Json;
  change(json);
  try {
    checkMachineSpec(json, 'my.json');
  } catch (error) {
    assert.ok(error instanceof MachineError);
    assert.equal(error.exitCode, 3);
    return error.message;
  }
  return '';
}

test('a shipped file is accepted as it is', () => {
  assert.equal(
    complaint(() => {}),
    '',
  );
});

test('a number without an origin is refused with its path', () => {
  assert.equal(
    complaint((json) => {
      json['costsNs']['invlpg'] = 99;
    }),
    'my.json: costsNs.invlpg: expected {value, source} or {value, assumption}, found 99; ' +
      'say where it comes from',
  );
  const text = 'costsNs.smt: expected {value, source} or {value, assumption}, exactly one';
  for (const origin of [{}, {source: ' '}, {source: 1}, {source: 'a', assumption: 'b'}])
    assert.match(
      complaint((json) => {
        json['costsNs']['smt'] = {value: 7, ...origin};
      }),
      new RegExp(text),
    );
});

test('unknown and missing fields are refused with their path', () => {
  const unknown = (json: Json): void => {
    json['costsNs']['invplg'] = {value: 1, source: 'typo'};
  };
  assert.match(complaint(unknown), /^my\.json: costsNs\.invplg: unknown key; expected l1Hit, /);
  const extra = (json: Json): void => {
    json['notes'] = {};
  };
  assert.match(complaint(extra), /^my\.json: notes: unknown key; expected name, description/);
  const inField = (json: Json): void => {
    json['costsNs']['smt'] = {value: 1, source: 'a', unit: 'ns'};
  };
  assert.match(complaint(inField), /^my\.json: costsNs\.smt\.unit: unknown key/);
  const missing = (json: Json): void => {
    delete json['model']['serialReads'];
  };
  assert.match(complaint(missing), /^my\.json: model\.serialReads: missing/);
});

test('values outside their range or of another type are refused', () => {
  const cases: [section: string, key: string, value: unknown, expected: RegExp][] = [
    ['layout', 'sockets', 1.5, /sockets\.value: expected a whole number, found 1\.5/],
    ['layout', 'sockets', 0, /sockets\.value: expected a whole number from 1 to 32, found 0/],
    ['layout', 'links', 'mesh', /links\.value: expected one of full, ring, twisted-hypercube/],
    ['layout', 'links', 'twisted-hypercube', /twisted-hypercube needs 8 sockets/],
    ['layout', 'nodesPerSocket', 5, /nodesPerSocket: 24 cores per socket do not divide/],
    ['costsNs', 'smt', -1, /smt\.value: expected a number from 0 to 1000000000, found -1/],
    ['costsNs', 'smt', '7', /smt\.value: expected a number, found "7"/],
    ['model', 'serialReads', 1, /serialReads\.value: expected true or false, found 1/],
    ['model', 'homeNode', 2, /homeNode\.value: expected a node below 2/],
  ];
  for (const [section, key, value, expected] of cases)
    assert.match(
      complaint((json) => {
        json[section][key] = {value, source: 'test'};
      }),
      expected,
    );
});

test('costs that the layout can incur must be there, others may be left out', () => {
  const without = (base: string, key: string): string =>
    complaint((json) => {
      delete json['costsNs'][key];
    }, base);
  assert.match(without('icelake-2s-6336y', 'smt'), /costsNs\.smt: missing; this layout can/);
  assert.equal(without('westmere-ex-8s-80c', 'smt'), '');
  assert.match(without('westmere-ex-8s-80c', 'twoHop'), /costsNs\.twoHop: missing/);
  assert.match(without('rome-2s-7742', 'sameSocketRemoteHome'), /RemoteHome: missing/);
  assert.match(without('icelake-2s-6336y', 'crossSocket'), /crossSocket: missing/);
  assert.equal(without('milan-2s-7763', 'tlbsync'), '');
});

test('text that is not JSON, or not an object', () => {
  assert.throws(() => parseMachineSpec('{', 'my.json'), /^MachineError: my\.json: not JSON/);
  assert.throws(() => parseMachineSpec('[]', 'my.json'), /my\.json: expected an object/);
});

test('ticks are tenths of ns, and broadcast invalidation is known by its costs', () => {
  const milan = loadMachine('milan-2s-7763');
  assert.equal(milan.smtTicks, 102);
  assert.equal(milan.ipiSendTicks, 2000);
  assert.equal(milan.hasInvlpgb, true);
  const icelake = loadMachine('icelake-2s-6336y');
  assert.equal(icelake.hasInvlpgb, false);
  assert.equal(icelake.invlpgbTicks, 0);
  assert.equal(icelake.sameSocketTicks, 0);
});
