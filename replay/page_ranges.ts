// A set of pages as sorted, disjoint ranges [start, end).

/** Which pages have some property. Cost: one look at each range. */
export class PageRanges {
  private ranges: (readonly [start: number, end: number])[] = [];

  has(vpn: number): boolean {
    return this.ranges.some(([start, end]) => vpn >= start && vpn < end);
  }

  add(start: number, end: number): void {
    this.remove(start, end);
    this.ranges.push([start, end]);
    this.ranges.sort((a, b) => a[0] - b[0]);
  }

  remove(start: number, end: number): void {
    this.ranges = this.ranges.flatMap(([from, to]) => {
      const left = [from, Math.min(to, start)] as const;
      const right = [Math.max(from, end), to] as const;
      return [left, right].filter(([a, b]) => a < b);
    });
  }

  copy(other: PageRanges): void {
    this.ranges = [...other.ranges];
  }
}
