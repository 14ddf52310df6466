// The program as it is installed: a bundle, while all other tests run the modules.

import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {existsSync, mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {test} from 'node:test';
import {EXIT} from '../formats/errors.ts';
import {main} from './main.ts';
import {program} from './package_info.ts';
import {TextOutput} from './streams.ts';

const skip = existsSync(program('mmreplay')) ? false : 'not built: npm run build';

function runProgram(...argv: string[]): {status: number | null; stdout: string; stderr: string} {
  return spawnSync(process.execPath, [program('mmreplay'), ...argv], {encoding: 'utf8'});
}

async function runModules(...argv: string[]): Promise<string> {
  const out = new TextOutput();
  assert.equal(await main(argv, out, new TextOutput()), EXIT.ok);
  return out.text;
}

test('the installed program prints what the modules print', {skip}, async () => {
  assert.equal(runProgram('designs').stdout, await runModules('designs'));
  assert.equal(runProgram('nosuch').status, EXIT.usage);
});

test('the installed program compares in two threads as the modules do in one', {skip}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mmreplay-'));
  try {
    const trace = join(folder, 'a.mmt');
    await runModules('generate', 'fork-storm', 'workers=2', 'children=4', '-o', trace);
    const compare = ['compare', trace, '--machine', '2s2c1t', '--seeds', '2', '--json'];
    const designs = ['--a', 'pgd=pgd-list', '--b', 'pgd=lockless-2015-09'];
    const argv = [...compare, ...designs];
    const {stdout} = runProgram(...argv, '--jobs', '2');
    assert.equal(stdout, await runModules(...argv, '--jobs', '1'));
  } finally {
    rmSync(folder, {recursive: true});
  }
});
