// One line of progress on a terminal, rewritten in place; nothing elsewhere.

import type {Output} from './streams.ts';

/** Shows how far a verb is. */
export class Progress {
  private shown = 0;
  constructor(private readonly err: Output) {}

  show(text: string): void {
    if (!this.err.isTerminal) return;
    this.err.write(`\r${text.padEnd(this.shown)}`);
    this.shown = text.length;
  }

  clear(): void {
    if (this.shown > 0) this.err.write(`\r${' '.repeat(this.shown)}\r`);
    this.shown = 0;
  }
}
