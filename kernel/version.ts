// Kernel versions as numbers: what a generation did often hangs on "since which release".

/** Negative, zero or positive as version `a` is older than, equal to or newer than `b`; "6.6" and "6.12" as in Linux. */
export function compareVersions(a: string, b: string): number {
  const left = a.split('.').map(Number);
  const right = b.split('.').map(Number);
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** True when `version` is older than `release`. */
export function isBefore(version: string, release: string): boolean {
  return compareVersions(version, release) < 0;
}
