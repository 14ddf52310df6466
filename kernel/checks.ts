// What a run found out about itself: kernel bugs that happened in the model (findings), counters,
// and everything that was not modelled (warnings: "check before trusting this"; notes, when it is
// no part of what the run measures). Bounded: a storm of one finding is kept as a count.

const MAX_FINDINGS = 100;

/** The checks of one run. */
export class Checks {
  missedPgdEntries = 0;
  staleMappings = 0;
  softLockups = 0;
  lockdep = 0;
  sleepInAtomic = 0;
  readonly warnings = new Map<string, number>();
  readonly notes = new Map<string, number>();
  readonly findings: string[] = [];
  readonly counters = new Map<string, number>();

  /** Something that is not modelled, or modelled with an assumption that matters here. */
  warn(text: string, count = 1): void {
    this.warnings.set(text, (this.warnings.get(text) ?? 0) + count);
  }

  /** Something that was left out and does not touch the result. */
  note(text: string): void {
    this.notes.set(text, (this.notes.get(text) ?? 0) + 1);
  }

  /** A kernel bug as the kernel would show it (BUG, oops, a missed entry), one line. */
  finding(text: string): void {
    if (this.findings.length < MAX_FINDINGS) this.findings.push(text);
    this.count('findings');
  }

  count(name: string, by = 1): void {
    this.counters.set(name, (this.counters.get(name) ?? 0) + by);
  }
}

/**
 * The simulated kernel hit a BUG or an oops in the running task: the task dies, the machine goes
 * on.
 */
export class KernelBug extends Error {}
