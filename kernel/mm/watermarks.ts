// Watermarks of a node and sizes of its per-CPU lists, as mm/page_alloc.c computes them. A node is
// one zone here (ZONE_NORMAL): DMA zones are a fraction of a percent of the machines simulated.

/** Bounds of min_free_kbytes in kB. */
const MIN_FREE_LOW = 128;
const MIN_FREE_HIGH = 262144;
const KB_PER_PAGE = 4;

export interface Watermarks {
  /** Free pages at which allocators reclaim directly, kswapd wakes, and kswapd stops. */
  readonly min: number;
  readonly low: number;
  readonly high: number;
  /** The distance between them: what watermark boosting and promotion add. */
  readonly step: number;
}

/**
 * calculate_min_free_kbytes: 4 * sqrt(lowmem in kB), within bounds. The upper bound was 65536
 * before 5.10.
 */
export function minFreeKbytes(managedPages: number, upperKbytes = MIN_FREE_HIGH): number {
  const wanted = Math.floor(Math.sqrt(managedPages * KB_PER_PAGE * 16));
  return Math.min(Math.max(wanted, MIN_FREE_LOW), upperKbytes);
}

export interface WatermarkTuning {
  readonly minFreeKbytes: number;
  /**
   * vm.watermark_scale_factor in 1/10000 of the node, 10 by default; null before 4.6, when it did
   * not exist.
   */
  readonly watermarkScaleFactor: number | null;
}

/** __setup_per_zone_wmarks for a node of `managed` out of `total` pages. */
export function nodeWatermarks(
  managed: number,
  total: number,
  tuning: WatermarkTuning,
): Watermarks {
  const minPages = Math.floor(tuning.minFreeKbytes / KB_PER_PAGE);
  const min = Math.floor((minPages * managed) / total);
  const quarter = Math.floor(min / 4);
  const scale = tuning.watermarkScaleFactor;
  const scaled = scale === null ? 0 : Math.floor((managed * scale) / 10000);
  const step = Math.max(quarter, scaled);
  return {min, low: min + step, high: min + 2 * step, step};
}

export interface PcpSizes {
  /** Pages moved between a per-CPU list and the buddy lists at a time. */
  readonly batch: number;
  /** Pages at which a per-CPU list is drained. */
  readonly high: number;
  /** From 6.7 on `high` floats between high and highMax; before they are the same. */
  readonly highMax: number;
}

/** Which kernel's sizes: `fixed` to 5.13 (6 batches), `watermark` 5.14 to 6.6, `auto` since 6.7. */
export type PcpGeneration = 'fixed' | 'watermark' | 'auto';

/**
 * zone_batchsize and zone_highsize. `cpus`: CPUs of the node, or of the machine for a node without
 * CPUs.
 */
export function pcpSizes(
  managed: number,
  lowWatermark: number,
  cpus: number,
  generation: PcpGeneration,
): PcpSizes {
  const share = generation === 'auto' ? managed / 4096 : Math.min(managed / 1024, 256) / 4;
  const pages = Math.max(Math.min(Math.floor(share), 64), 1);
  const batch = Math.max(roundDownToPowerOfTwo(pages + (pages >> 1)) - 1, 1);
  if (generation === 'fixed') return {batch, high: 6 * batch, highMax: 6 * batch};
  const high = Math.max(Math.floor(lowWatermark / cpus), batch * 4);
  if (generation === 'watermark') return {batch, high, highMax: high};
  const highMax = Math.max(Math.floor(managed / 8 / cpus), batch * 4);
  return {batch, high, highMax};
}

function roundDownToPowerOfTwo(value: number): number {
  return 2 ** (31 - Math.clz32(value));
}
