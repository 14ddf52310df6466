// block/blk-core.c, blk-mq.c: a reclaimer's plug. While shrink_lruvec runs, the writes that it asks
// for are held back and neighbours on the device become one request, which ends as a whole; they go
// out when the pass over the lists is over, when the task is about to sleep, when 32 requests are
// held, or when the last one has 128 KB and the next is no neighbour. So a page's write usually
// ends when the page is back on its list, where folio_rotate_reclaimable can find it.

import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {Rotate, SwapDevice} from './page_io.ts';

/** BLK_MAX_REQUEST_COUNT, BLK_PLUG_FLUSH_SIZE and max_sectors_kb in pages. */
const MAX_REQUESTS = 32;
const FLUSH_PAGES = 32;
const MAX_REQUEST_PAGES = 320;

interface HeldRequest {
  readonly device: SwapDevice;
  readonly heads: number[];
  readonly sizes: number[];
  pages: number;
  /** The slot behind its last one; -1: nothing can follow. */
  nextSlot: number;
}

/** struct blk_plug. */
export class BlkPlug {
  readonly requests: HeldRequest[] = [];
  rotate: Rotate | null = null;
}

/** blk_start_plug. False: the task has one already, which goes on. */
export function blk_start_plug({mm}: Kernel, t: Task): boolean {
  const {plugs} = mm.swap;
  if (plugs.has(t)) return false;
  plugs.set(t, new BlkPlug());
  return true;
}

/** blk_finish_plug of the one that began it. */
export function blk_finish_plug(k: Kernel, t: Task): void {
  blk_flush_plug(k, t);
  k.mm.swap.plugs.delete(t);
}

/** blk_flush_plug: what is held goes out; the plug stays. */
export function blk_flush_plug({mm}: Kernel, t: Task): void {
  const {plugs, costs, fns} = mm.swap;
  const plug = plugs.get(t);
  if (plug === undefined || plug.requests.length === 0) return;
  for (const {device, heads, sizes} of plug.requests.splice(0)) {
    t.cpu.charge(costs.swapIoTicks, fns.swap_writepage);
    device.writeRequest(t.cpu, heads, sizes, plug.rotate!);
  }
}

/** blk_add_rq_to_plug, or blk_attempt_plug_merge. `slot`: where on the device, -1 anywhere. */
export function plug_write(
  k: Kernel,
  t: Task,
  plug: BlkPlug,
  device: SwapDevice,
  write: {
    readonly head: number;
    readonly n: number;
    readonly slot: number;
    readonly rotate: Rotate;
  },
): void {
  const {head, n, slot, rotate} = write;
  plug.rotate = rotate;
  const last = plug.requests.at(-1);
  const fits = last !== undefined && last.device === device && last.nextSlot === slot;
  if (fits && slot >= 0 && last.pages + n <= MAX_REQUEST_PAGES) {
    last.heads.push(head);
    last.sizes.push(n);
    last.pages += n;
    last.nextSlot += n;
    return;
  }
  if (plug.requests.length >= MAX_REQUESTS || (last?.pages ?? 0) >= FLUSH_PAGES)
    blk_flush_plug(k, t);
  const nextSlot = slot < 0 ? -2 : slot + n;
  plug.requests.push({device, heads: [head], sizes: [n], pages: n, nextSlot});
}
