// The program as it is installed: a bundle, while all other tests run the modules.

import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {existsSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {EXIT} from '../formats/errors.ts';
import {programPath} from './package_info.ts';
import {inScratch, type Result, run} from './testing.ts';

const PROGRAM = programPath('mmreplay');
const skip = existsSync(PROGRAM) ? false : 'not built: npm run build';

function runProgram(...argv: string[]): Result {
  const {status, stdout, stderr} = spawnSync(process.execPath, [PROGRAM, ...argv], {
    encoding: 'utf8',
  });
  return {code: status ?? -1, out: stdout, err: stderr};
}

/** The same command carried out by the modules, which must succeed. */
async function runModules(...argv: string[]): Promise<Result> {
  const result = await run(...argv);
  assert.equal(result.code, EXIT.ok, result.err);
  return result;
}

test('the installed program prints what the modules print', {skip}, async () => {
  assert.deepEqual(runProgram('designs'), await runModules('designs'));
  assert.equal(runProgram('nosuch').code, EXIT.usage);
});

test('the installed program compares in two threads as the modules do in one', {skip}, () =>
  inScratch(async (folder) => {
    const trace = join(folder, 'a.mmt');
    await runModules('generate', 'fork-storm', 'workers=2', 'children=4', '-o', trace);
    const compare = ['compare', trace, '--machine', '2s2c1t', '--seeds', '2', '--json'];
    const designs = ['--a', 'pgd=pgd-list', '--b', 'pgd=lockless-2015-09'];
    const argv = [...compare, ...designs];
    assert.deepEqual(runProgram(...argv, '--jobs', '2'), await runModules(...argv, '--jobs', '1'));
  }),
);
