import assert from 'node:assert/strict';
import {test} from 'node:test';
import {MappedFiles} from './mapped_files.ts';

test('hard links are one file, by the first name seen', () => {
  const files = new MappedFiles();
  assert.equal(files.nameOf('/usr/bin/git', 'fe:00 7'), '/usr/bin/git');
  assert.equal(files.nameOf('/usr/lib/git-core/git', 'fe:00 7'), '/usr/bin/git');
});

test('a name that means another file now is told apart', () => {
  const files = new MappedFiles();
  assert.equal(files.nameOf('/tmp/a.out', 'fe:00 7'), '/tmp/a.out');
  assert.equal(files.nameOf('/tmp/a.out', 'fe:00 8'), '/tmp/a.out fe:00 8');
  assert.equal(files.nameOf('/tmp/a.out', 'fe:00 7'), '/tmp/a.out');
  assert.equal(files.nameOf('/tmp/a.out', 'fe:01 7'), '/tmp/a.out fe:01 7');
});

test('records without an inode say what they say', () => {
  const files = new MappedFiles();
  assert.equal(files.nameOf('//anon', ''), '//anon');
  assert.equal(files.nameOf('//anon', ''), '//anon');
});
