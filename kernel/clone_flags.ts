// Flags of clone(2) as in include/uapi/linux/sched.h, and of wait4(2), as far as the model looks at
// them.

/** Flags of clone(2). */
export const CLONE_VM = 0x100;
export const CLONE_FS = 0x200;
export const CLONE_FILES = 0x400;
export const CLONE_SIGHAND = 0x800;
export const CLONE_VFORK = 0x4000;
export const CLONE_PARENT = 0x8000;
export const CLONE_THREAD = 0x10000;

/** What pthread_create passes, without the flags that the model does not look at. */
export const PTHREAD_FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;

/** Options of wait4(2). */
export const WNOHANG = 1;

/** True when the combination is one that copy_process refuses with EINVAL. */
export function areInvalid(flags: number): boolean {
  const thread = (flags & CLONE_THREAD) !== 0;
  const sighand = (flags & CLONE_SIGHAND) !== 0;
  return (thread && !sighand) || (sighand && (flags & CLONE_VM) === 0);
}
