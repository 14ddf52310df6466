// Names of TLB flushes in the table of counts.

/** Name of a flush in the table of counts. */
export function flushName(pages: number, reason: number): string {
  const span = pages < 0 ? 'all' : pages > 1 ? 'n' : String(pages);
  return `${FLUSH_REASONS[reason] ?? reason} pages:${span}`;
}
const FLUSH_REASONS = [
  'task switch',
  'remote shootdown',
  'local shootdown',
  'local mm shootdown',
  'remote send ipi',
  'remote wrong cpu',
];
