// fs/file.c: the table of open files. fork copies it (dup_fd) and takes a reference to every open
// file; exit gives them back (close_files), exec those that are close-on-exec.
//
// A struct file is one line with its count (f_count, f_ref since 6.13). Parent and children share
// the files that the children inherited, and so do all children of one parent: when they fork and
// exit on different CPUs, that line is what they fight for. The last reference frees the file
// later, from task_work (3.6 on); here the task does it at once. Traces say nothing of open and
// close: a process that was there from the start has DEFAULT_FILES files (assumption), of which the
// first three are those of the shell that started all of them; the operation `open_files` changes
// that. Not modelled: file_lock (tables that threads change while one of them forks), pipes and
// sockets as what is behind a file.

import type {CacheLine} from '../../machine/cache_line.ts';
import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import {locked, lockedSlow, newLine, newObject, type Shared, unshare} from '../refcount.ts';
import type {Task} from '../task.ts';

/** Standard input, output and error. */
export const STDIO_FILES = 3;
/** Open files of a process that the trace says nothing about. Assumption: stdio and one more. */
export const DEFAULT_FILES = 4;
/** NR_OPEN_DEFAULT: as many fit into files_struct itself. */
const EMBEDDED_FILES = 64;
/** sizeof(struct files_struct), x86-64. */
const FILES_STRUCT_BYTES = 704;

/** struct file, as far as its count goes. */
export interface OpenFile {
  refs: number;
  readonly line: CacheLine;
  /** f_op->release: what else ends with the last reference (userfaultfd). */
  release?: (t: Task) => Code;
}

/** struct files_struct. */
export interface FilesStruct extends Shared {
  readonly files: OpenFile[];
  /** How many of `files`, counted from the end, are closed by exec. */
  closeOnExec: number;
}

/** A file that nobody has opened yet. */
export function newFile(k: Kernel, node: number): OpenFile {
  return {refs: 0, line: k.machine.line('f_count', node)};
}

/** The table of a process that was there before the run began. */
export function firstFiles(k: Kernel, t: Task): FilesStruct {
  const files: OpenFile[] = [...k.shared.stdio];
  while (files.length < DEFAULT_FILES) files.push(newFile(k, t.node));
  for (const file of files) file.refs++;
  return {users: 1, line: newLine(k, t), files, closeOnExec: 0};
}

/** dup_fd: a copy of `old`. */
export function* dup_fd(k: Kernel, t: Task, old: FilesStruct): Code<FilesStruct> {
  const {costs, fns} = k;
  const {files} = old;
  newObject(k, t, FILES_STRUCT_BYTES, costs.copyKibTicks, fns.dup_fd);
  t.cpu.charge(costs.fileTableTicks, fns.dup_fd);
  const slots = tableSlots(files.length);
  if (slots > EMBEDDED_FILES) newObject(k, t, slots * 8, costs.copyKibTicks, fns.dup_fd);
  for (const file of files) {
    t.cpu.charge(costs.dupFileTicks, fns.dup_fd);
    if (!locked(k, t, file.line, fns.dup_fd)) yield* lockedSlow(k, t, file.line, fns.dup_fd);
    file.refs++;
  }
  return {users: 1, line: newLine(k, t), files: files.slice(), closeOnExec: old.closeOnExec};
}

/** Slots of a table with room for `count` files: a power of two from 64 on. */
function tableSlots(count: number): number {
  return count <= EMBEDDED_FILES ? EMBEDDED_FILES : 2 ** Math.ceil(Math.log2(count));
}

/** put_files_struct: the last user closes every file. */
export function* put_files_struct(k: Kernel, t: Task, files: FilesStruct): Code {
  if (!unshare(k, t, files, k.fns.exit_files)) return;
  yield* closeLast(k, t, files, files.files.length, k.costs.closeFileTicks);
  const tables = files.files.length > EMBEDDED_FILES ? 2 : 1;
  t.cpu.charge(k.costs.fileTableTicks + tables * k.costs.slabFreeTicks, k.fns.exit_files);
}

/** exit_files. */
export function* exit_files(k: Kernel, t: Task): Code {
  const {files} = t;
  if (files === null) return;
  t.files = null;
  yield* put_files_struct(k, t, files);
}

/** do_close_on_exec. */
export function* do_close_on_exec(k: Kernel, t: Task): Code {
  const {files} = t;
  if (files === null) return;
  const words = Math.ceil(files.files.length / 64);
  t.cpu.charge(words * k.costs.scanWordTicks, k.fns.begin_new_exec);
  const each = k.costs.closeFileTicks + k.costs.closeOnExecTicks;
  yield* closeLast(k, t, files, files.closeOnExec, each);
  files.closeOnExec = 0;
}

/** filp_close of the last `count` files of a table. */
function* closeLast(k: Kernel, t: Task, table: FilesStruct, count: number, each: number): Code {
  const {files} = table;
  for (let i = 0; i < count; i++) {
    t.cpu.charge(each, k.fns.filp_close);
    yield* fput(k, t, files.pop()!, k.fns.filp_close);
  }
}

/** fput: a reference less; the last one is the end of the file. */
export function* fput(k: Kernel, t: Task, file: OpenFile, fn: number): Code {
  if (!locked(k, t, file.line, fn)) yield* lockedSlow(k, t, file.line, fn);
  if (--file.refs > 0) return;
  t.cpu.charge(k.costs.fputLastTicks, k.fns.__fput);
  if (file.release !== undefined) yield* file.release(t);
}

/** fd_install of a new file. */
export function installFile({files}: Task, file: OpenFile, closeOnExec: boolean): void {
  if (files === null) return;
  file.refs++;
  files.files.splice(files.files.length - (closeOnExec ? 0 : files.closeOnExec), 0, file);
  if (closeOnExec) files.closeOnExec++;
}

/** close(2) of this file. False: the process has not got it open. */
export function* closeFile(k: Kernel, t: Task, file: OpenFile): Code<boolean> {
  const table = t.files;
  const at = table === null ? -1 : table.files.indexOf(file);
  if (table === null || at < 0) return false;
  if (at >= table.files.length - table.closeOnExec) table.closeOnExec--;
  table.files.splice(at, 1);
  yield* fput(k, t, file, k.fns.filp_close);
  return true;
}

/** unshare_files of exec: the program gets a table of its own. */
export function* unshare_files(k: Kernel, t: Task): Code {
  const old = t.files;
  if (old === null || old.users === 1) return;
  t.files = yield* dup_fd(k, t, old);
  yield* put_files_struct(k, t, old);
}

/**
 * The process opens or closes files until it has `count`, the last `closeOnExec` of them
 * close-on-exec. Each is a system call: an open that of a regular file without the walk to it, a
 * close that of the file opened last.
 */
export function* setOpenFiles(k: Kernel, t: Task, count: number, closeOnExec: number): Code {
  const {files} = t;
  if (files === null) return;
  const excess = files.files.length - count;
  const entry = k.machine.topology.syscallEntryTicks;
  if (excess > 0) {
    t.cpu.charge(excess * entry, k.fns.syscall_entry);
    yield* closeLast(k, t, files, excess, k.costs.closeFileTicks);
  }
  while (files.files.length < count) {
    t.cpu.charge(entry, k.fns.syscall_entry);
    t.cpu.charge(k.costs.openFileTicks, k.fns.do_dentry_open);
    const file = newFile(k, k.machine.topology.nodeOf[t.cpu.id]);
    if (!locked(k, t, file.line, k.fns.do_dentry_open)) {
      yield* lockedSlow(k, t, file.line, k.fns.do_dentry_open);
    }
    file.refs++;
    files.files.push(file);
  }
  files.closeOnExec = Math.min(closeOnExec, count);
}
