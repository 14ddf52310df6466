// Files that exec opens: the program and its interpreter.
//
// do_open_execat walks the path under RCU, which writes nothing, and takes one reference at the
// end: the dentry's lockref. Opening makes a struct file; deny_write_access counts the inode's
// i_writecount down (not in 6.11 and 6.12) and up again when exec is done; reading the headers
// takes and gives back a reference to the first page of the file. All three are lines that
// everybody shares who execs the same program. Not modelled: a path that is not in the dentry
// cache, a first page that is not in the page cache (verify's docs/verification.md has what that
// means for the first exec of a program), symlinks beyond those in the path.

import type {CacheLine} from '../../machine/cache_line.ts';
import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import {chargeLsm} from '../life_hooks.ts';
import type {MmStruct} from '../mm_types.ts';
import {locked, lockedSlow} from '../refcount.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {fput, newFile, type OpenFile} from './file.ts';
import {pathRef, type Path} from './fs_struct.ts';

/** A file that somebody execs. */
export interface Program extends Path {
  /** i_writecount. */
  readonly inode: CacheLine;
  /** _refcount of the folio with the headers. */
  readonly folio: CacheLine;
  /** Names between slashes. */
  readonly components: number;
  readonly pathBytes: number;
}

/** A program with the open file that processes run it from (mm->exe_file). */
export interface ExeFile {
  readonly program: Program;
  readonly file: OpenFile;
}

/** Programs of one machine by path. */
export class Programs {
  readonly deniesWrite: boolean;
  private readonly byPath = new Map<string, Program>();
  private readonly firstExes = new Map<string, ExeFile>();

  constructor(
    private readonly kernel: Kernel,
    private readonly mount: CacheLine | null,
  ) {
    const {version} = kernel.facts;
    this.deniesWrite = isBefore(version, '6.11') || !isBefore(version, '6.13');
  }

  /** The file at `path`. */
  at(path: string): Program {
    let program = this.byPath.get(path);
    if (program === undefined) {
      const {machine} = this.kernel;
      const node = machine.topology.defaultHomeNode;
      program = {
        dentry: machine.line('d_lockref of a program', node),
        mount: this.mount,
        inode: machine.line('i_writecount', node),
        folio: machine.line('folio _refcount', node),
        components: path.split('/').filter((name) => name !== '').length,
        pathBytes: path.length + 1,
      };
      this.byPath.set(path, program);
    }
    return program;
  }

  /**
   * What processes run that were there before the run began: one open file for all of a name, as
   * after fork.
   */
  firstExe(comm: string): ExeFile {
    let exe = this.firstExes.get(comm);
    if (exe === undefined) {
      const file = newFile(this.kernel, this.kernel.machine.topology.defaultHomeNode);
      file.refs++;
      exe = {program: this.at(`/usr/bin/${comm}`), file};
      this.firstExes.set(comm, exe);
    }
    exe.file.refs++;
    return exe;
  }
}

/** A reference to an mm's program: its file, and that nobody may write it. */
function* getExe(k: Kernel, t: Task, {program, file}: ExeFile, fn: number): Code {
  yield* writeCount(k, t, program, fn);
  if (!locked(k, t, file.line, fn)) yield* lockedSlow(k, t, file.line, fn);
  file.refs++;
}

/** set_mm_exe_file of an mm that has none. */
export function* set_mm_exe_file(k: Kernel, t: Task, mm: MmStruct, exe: ExeFile): Code {
  yield* getExe(k, t, exe, k.fns.begin_new_exec);
  mm.exe = exe;
}

/** dup_mm_exe_file: fork's copy runs the same program. */
export function* dup_mm_exe_file(k: Kernel, t: Task, mm: MmStruct, oldmm: MmStruct): Code {
  if (oldmm.exe === null) return;
  mm.exe = oldmm.exe;
  yield* getExe(k, t, oldmm.exe, k.fns.dup_mm);
}

/** set_mm_exe_file(mm, NULL), when the mm has no users left. */
export function* put_mm_exe_file(k: Kernel, t: Task, mm: MmStruct): Code {
  const {exe} = mm;
  if (exe === null) return;
  mm.exe = null;
  yield* closeProgram(k, t, exe.program, exe.file);
}

/** deny_write_access and allow_write_access. */
function* writeCount(k: Kernel, t: Task, program: Program, fn: number): Code {
  if (!k.shared.programs.deniesWrite) return;
  if (!locked(k, t, program.inode, fn)) yield* lockedSlow(k, t, program.inode, fn);
}

/** do_open_execat: walk, open, deny writing. */
export function* do_open_execat(k: Kernel, t: Task, program: Program): Code<OpenFile> {
  const {costs, fns} = k;
  t.cpu.charge(program.components * costs.pathComponentTicks, fns.link_path_walk);
  yield* pathRef(k, t, program, fns.do_open_execat);
  t.cpu.charge(costs.openFileTicks, fns.do_dentry_open);
  chargeLsm(k, t, 2, fns.do_open_execat);
  yield* writeCount(k, t, program, fns.do_open_execat);
  const file = newFile(k, k.machine.topology.nodeOf[t.cpu.id]);
  file.refs++;
  return file;
}

/** kernel_read of some bytes of the first page. */
export function* kernel_read(k: Kernel, t: Task, program: Program): Code {
  const {costs, fns} = k;
  const fn = fns.kernel_read;
  t.cpu.charge(costs.kernelReadTicks, fn);
  if (!locked(k, t, program.folio, fn)) yield* lockedSlow(k, t, program.folio, fn);
  if (!locked(k, t, program.folio, fn)) yield* lockedSlow(k, t, program.folio, fn);
}

/** allow_write_access and fput; the last reference to the file lets go of its path. */
export function* closeProgram(k: Kernel, t: Task, program: Program, file: OpenFile): Code {
  const fn = k.fns.__fput;
  yield* writeCount(k, t, program, fn);
  yield* fput(k, t, file, fn);
  if (file.refs === 0) yield* pathRef(k, t, program, fn);
}
