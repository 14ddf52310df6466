// What execve does besides address space and threads (fs/exec.c, fs/binfmt_elf.c, 6.18):
//
//   open the program -> bprm with credentials -> arguments -> header read, formats tried in turn ->
//   headers, interpreter opened -> begin_new_exec: own files, close-on-exec, signal handlers ->
//   auxiliary vector -> both files let go.
//
// Strings are counted, measured, copied below the new stack, and measured again when argv and envp
// are laid out; their pages and the faults these take are mm/exec_mmap.ts. Trying a format takes
// binfmt_lock for reading, which writes the lock word: one line for all execs of the machine.
// Assumptions: without a recorded stack there is one page of arguments; strings have STRING_BYTES
// each; no #! scripts, and no format but ELF that is a module. sched_exec's move to an idler CPU is
// not modelled.

import type {Code} from '../machine/process.ts';
import {commit_creds, type Cred, prepare_creds, put_cred} from './cred.ts';
import {do_close_on_exec, type OpenFile, unshare_files} from './fs/file.ts';
import {
  closeProgram,
  do_open_execat,
  kernel_read,
  type Program,
  set_mm_exe_file,
} from './fs/program.ts';
import {SIGHAND_BYTES} from './fork_copy.ts';
import type {Kernel} from './kernel.ts';
import {chargeHooks, chargeLsm} from './life_hooks.ts';
import type {MmStruct} from './mm_types.ts';
import {locked, lockedSlow, newLine, newObject, unshare} from './refcount.ts';
import type {Task} from './task.ts';

/** The dynamic linker of x86-64. */
export const DEFAULT_INTERPRETER = '/lib64/ld-linux-x86-64.so.2';
/** Mean length of an argument or environment string with its end. Assumption. */
const STRING_BYTES = 64;
const PAGE_BYTES = 4096;
/** struct linux_binprm, and as much of a file as is read to tell its format. */
const BINPRM_BYTES = 424 + 256;
/** Formats asked before ELF says yes: script, misc. */
const FORMATS_TRIED = 3;
/** Entries of the auxiliary vector, and words beside the pointers: argc and two ends of lists. */
const AUXV_WORDS = 2 * 21;
/**
 * Program headers of an executable and of the dynamic linker. Assumption: those of a
 * position-independent program.
 */
const PROGRAM_HEADERS = 13;
const INTERPRETER_HEADERS = 11;
/** Signal actions that are set back. */
const SIGNALS = 64;
/** Random numbers drawn: AT_RANDOM's bytes, stack, mmap base, brk, vdso. */
const RANDOM_DRAWS = 5;

/** What is executed, with what. */
export interface ExecImage {
  readonly path: string;
  /** Null: linked statically. */
  readonly interpreter: string | null;
}

/** The image of a program that only its name is known of. */
export function imageOf(comm: string): ExecImage {
  return {path: `/usr/bin/${comm}`, interpreter: DEFAULT_INTERPRETER};
}

/** The program on its way in: struct linux_binprm. */
export interface Binprm {
  readonly program: Program;
  readonly interpreter: Program | null;
  readonly file: OpenFile;
  readonly cred: Cred;
}

/** Bytes of strings in a stack of `pages`: the last page is half full on average. */
export function argBytes(pages: number): number {
  return (pages - 0.5) * PAGE_BYTES;
}

/** getname, alloc_bprm, prepare_bprm_creds: program open, nothing changed yet. */
export function* prepareBinprm(k: Kernel, t: Task, image: ExecImage): Code<Binprm> {
  const {costs, fns, shared} = k;
  const program = shared.programs.at(image.path);
  const interpreter = image.interpreter === null ? null : shared.programs.at(image.interpreter);
  const fn = fns.do_execveat_common;
  chargeBytes(k, t, program.pathBytes, fn);
  newObject(k, t, BINPRM_BYTES, costs.clearKibTicks, fns.alloc_bprm);
  chargeHooks(k, t, 'exec', fn);
  const cred = yield* prepare_creds(k, t);
  const file = yield* do_open_execat(k, t, program);
  return {program, interpreter, file, cred};
}

/** count and copy_strings of argv and envp, without the pages. */
export function chargeStrings(k: Kernel, t: Task, pages: number): void {
  const bytes = argBytes(pages);
  const {costs, fns} = k;
  t.cpu.charge(Math.round(bytes / STRING_BYTES) * costs.argStringTicks, fns.copy_strings);
  chargeBytes(k, t, bytes, fns.copy_strings);
}

function chargeBytes(k: Kernel, t: Task, bytes: number, fn: number): void {
  t.cpu.charge(Math.round((bytes * k.costs.userStringKibTicks) / 1024), fn);
}

/** exec_binprm: reads the header and finds the format that takes it. */
export function* search_binary_handler(k: Kernel, t: Task, bprm: Binprm): Code {
  const {costs, fns, shared} = k;
  const fn = fns.search_binary_handler;
  yield* kernel_read(k, t, bprm.program);
  chargeLsm(k, t, 2, fn);
  for (let n = 0; n < FORMATS_TRIED; n++) {
    if (!locked(k, t, shared.binfmt, fn)) yield* lockedSlow(k, t, shared.binfmt, fn);
    t.cpu.charge(costs.hookTicks, fn);
    if (!locked(k, t, shared.binfmt, fn)) yield* lockedSlow(k, t, shared.binfmt, fn);
  }
  t.cpu.charge(costs.xattrTicks, fns.cap_bprm_creds_from_file);
}

/** load_elf_binary before the point of no return: program headers and the interpreter. */
export function* openInterpreter(k: Kernel, t: Task, bprm: Binprm): Code<OpenFile | null> {
  const {costs, fns} = k;
  yield* kernel_read(k, t, bprm.program);
  t.cpu.charge(PROGRAM_HEADERS * costs.elfHeaderTicks, fns.load_elf_binary);
  const {interpreter} = bprm;
  if (interpreter === null) return null;
  yield* kernel_read(k, t, bprm.program);
  const file = yield* do_open_execat(k, t, interpreter);
  yield* kernel_read(k, t, interpreter);
  yield* kernel_read(k, t, interpreter);
  t.cpu.charge(INTERPRETER_HEADERS * costs.elfHeaderTicks, fns.load_elf_binary);
  return file;
}

/**
 * begin_new_exec after de_thread and before exec_mmap: a table of files of its own, and the new
 * mm's program.
 */
export function* unshareForExec(k: Kernel, t: Task, bprm: Binprm, mm: MmStruct): Code {
  yield* unshare_files(k, t);
  yield* set_mm_exe_file(k, t, mm, bprm);
}

/** begin_new_exec after exec_mmap, and setup_new_exec. */
export function* resetForExec(k: Kernel, t: Task, bprm: Binprm): Code {
  const {costs, fns} = k;
  unshare_sighand(k, t);
  t.cpu.charge(costs.fpuSwapTicks, fns.flush_thread);
  yield* do_close_on_exec(k, t);
  t.cpu.charge(Math.round(SIGNALS * costs.signalActionTicks), fns.begin_new_exec);
  t.cpu.charge(RANDOM_DRAWS * costs.randomTicks, fns.load_elf_binary);
  yield* commit_creds(k, t, bprm.cred);
}

/** A program does not share signal handlers. */
function unshare_sighand(k: Kernel, t: Task): void {
  const {sighand} = t;
  if (sighand === null || sighand.users === 1) return;
  const fn = k.fns.begin_new_exec;
  newObject(k, t, SIGHAND_BYTES, k.costs.copyKibTicks, fn);
  unshare(k, t, sighand, fn);
  t.sighand = {users: 1, line: newLine(k, t)};
}

/** create_elf_tables, and the files that exec no longer needs. */
export function* finishExec(
  k: Kernel,
  t: Task,
  bprm: Binprm,
  pages: number,
  opened: OpenFile | null,
): Code {
  const {costs, fns} = k;
  const words = AUXV_WORDS + Math.round(argBytes(pages) / STRING_BYTES) + 3;
  t.cpu.charge(words * costs.putUserTicks, fns.create_elf_tables);
  yield* free_bprm(k, t, bprm, opened, null);
}

/** exec failed: nothing has changed, everything goes back. */
export function* undoExec(k: Kernel, t: Task, bprm: Binprm, opened: OpenFile | null): Code {
  yield* free_bprm(k, t, bprm, opened, bprm.cred);
}

/**
 * Lets the files go, the interpreter's when it is `opened`, and credentials that were not
 * committed.
 */
function* free_bprm(
  k: Kernel,
  t: Task,
  {interpreter, program, file}: Binprm,
  opened: OpenFile | null,
  cred: Cred | null,
): Code {
  if (interpreter !== null && opened !== null) yield* closeProgram(k, t, interpreter, opened);
  if (cred !== null) yield* put_cred(k, t, cred);
  yield* closeProgram(k, t, program, file);
  t.cpu.charge(k.costs.slabFreeTicks, k.fns.do_execveat_common);
}
