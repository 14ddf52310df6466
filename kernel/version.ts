// Kernel versions as numbers: what a generation did often hangs on "since which release".

/** Versions seen so far as numbers that compare as they do: three parts below 1,000. */
const ranks = new Map<string, number>();

function rankOf(version: string): number {
  let rank = ranks.get(version);
  if (rank === undefined) {
    const [major = 0, minor = 0, patch = 0] = version.split('.').map(Number);
    rank = (major * 1000 + minor) * 1000 + patch;
    ranks.set(version, rank);
  }
  return rank;
}

/**
 * Negative, zero or positive as version `a` is older than, equal to or newer than `b`; "6.6" and
 * "6.12" as in Linux.
 */
export function compareVersions(a: string, b: string): number {
  return rankOf(a) - rankOf(b);
}

/** True when `version` is older than `release`. */
export function isBefore(version: string, release: string): boolean {
  return compareVersions(version, release) < 0;
}
