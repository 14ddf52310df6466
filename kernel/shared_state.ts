// What all processes of a machine have in common when one user starts them in one place: the lines
// of reference counts that every fork, exec and exit changes. Each is a real line with an owner, so
// their cost follows from who touched them last.
//
// Assumptions, stated in docs/processes.md: one user, one set of namespaces, one root and one
// working directory, one cgroup. Which of these words share a line is known for those of one struct
// only: user_struct and ucounts are two allocations, and so are nsproxy and group_info.

import type {CacheLine} from '../machine/cache_line.ts';
import {newFile, type OpenFile, STDIO_FILES} from './fs/file.ts';
import type {Path} from './fs/fs_struct.ts';
import {Programs} from './fs/program.ts';
import type {Kernel} from './kernel.ts';
import {isBefore} from './version.ts';

/** Shared lines of one kernel. */
export class SharedState {
  /** user_struct.__count. */
  readonly user: CacheLine;
  /** ucounts: UCOUNT_RLIMIT_NPROC, or user_struct.processes. */
  readonly processes: CacheLine;
  /** group_info.usage. */
  readonly groups: CacheLine;
  /** nsproxy.count. */
  readonly nsproxy: CacheLine;
  /** autogroup or task group of the session (kref). */
  readonly autogroup: CacheLine;
  /** binfmt_lock: a reader changes the lock word. */
  readonly binfmt: CacheLine;
  readonly root: Path;
  readonly pwd: Path;
  /** The terminal or log that all processes got from the shell. */
  readonly stdio: readonly OpenFile[];
  readonly programs: Programs;

  constructor(k: Kernel) {
    const node = k.machine.topology.defaultHomeNode;
    const line = (name: string): CacheLine => k.machine.line(name, node);
    this.user = line('user_struct');
    this.processes = line('ucounts');
    this.groups = line('group_info');
    this.nsproxy = line('nsproxy');
    this.autogroup = line('autogroup');
    this.binfmt = line('binfmt_lock');
    const mount = isBefore(k.facts.version, '2.6.38') ? line('vfsmount') : null;
    this.root = {dentry: line('d_lockref of /'), mount};
    this.pwd = {dentry: line('d_lockref of the working directory'), mount};
    this.stdio = Array.from({length: STDIO_FILES}, () => newFile(k, node));
    for (const file of this.stdio) file.refs++;
    this.programs = new Programs(k, mount);
  }
}
