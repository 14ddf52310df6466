// Bindings of operations on the kernel's own address space: vmalloc, memory hotplug, page
// attributes, EFI, Xen.

import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {efi_map_region, efi_unmap_region} from '../../kernel/arch/x86/mm/efi.ts';
import {kernel_access} from '../../kernel/arch/x86/mm/fault.ts';
import {add_memory, remove_memory} from '../../kernel/arch/x86/mm/hotplug.ts';
import {change_page_attr} from '../../kernel/arch/x86/mm/pageattr.ts';
import {xen_mm_pin_all, xen_mm_unpin_all} from '../../kernel/arch/x86/xen/mmu.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import {
  type BindingContext,
  type BindingTable,
  type Outcome,
  PAGE_BYTES,
  vpnArg,
} from './binding.ts';

function pagesArg(context: BindingContext, i: number, k: number): number {
  return Math.max(1, Math.ceil(argNumber(context.events, i, k) / PAGE_BYTES));
}

function areaName(context: BindingContext, i: number): string {
  return `vmalloc ${vpnArg(context.events, i, 0)}`;
}

function* vmalloc(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const vpn = yield* context.kernel.vmalloc.vmalloc(t, pagesArg(context, i, 1), 'vmalloc');
  if (vpn <= 0) return 'failed';
  context.names.set(areaName(context, i), vpn);
  return 'done';
}

function* vfree(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const vpn = context.names.get(areaName(context, i));
  if (vpn === undefined) return 'skipped';
  context.names.delete(areaName(context, i));
  yield* context.kernel.vmalloc.vfree(t, vpn);
  return 'done';
}

/** A recorded address of an area stands for the area; any other address is taken as it is. */
function* vmalloc_touch(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const vpn = context.names.get(areaName(context, i)) ?? vpnArg(context.events, i, 0);
  const {kernel} = context;
  if (kernel.pageTables.isVmalloc(vpn)) yield* kernel.vmalloc.access(t, vpn);
  else yield* kernel_access(kernel, t, vpn);
  return 'done';
}

function* hotplug_add(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const node = argNumber(context.events, i, 2);
  yield* add_memory(context.kernel, t, vpnArg(context.events, i, 0), pagesArg(context, i, 1), node);
  return 'done';
}

function* hotplug_remove(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const node = argNumber(context.events, i, 2);
  yield* remove_memory(
    context.kernel,
    t,
    vpnArg(context.events, i, 0),
    pagesArg(context, i, 1),
    node,
  );
  return 'done';
}

function* set_memory({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  const pages = argNumber(events, i, 1);
  yield* change_page_attr(kernel, t, vpnArg(events, i, 0), pages, argNumber(events, i, 2));
  return 'done';
}

function* register_die_notifier({kernel}: BindingContext, t: Task): Code<Outcome> {
  yield* kernel.pgd.vmalloc_sync_all(t);
  return 'done';
}

function* vm_unmap_aliases({kernel}: BindingContext, t: Task): Code<Outcome> {
  yield* kernel.vmalloc.vm_unmap_aliases(t);
  return 'done';
}

function* suspend({kernel}: BindingContext, t: Task): Code<Outcome> {
  yield* xen_mm_pin_all(kernel, t);
  return 'done';
}

function* resume({kernel}: BindingContext, t: Task): Code<Outcome> {
  yield* xen_mm_unpin_all(kernel, t);
  return 'done';
}

function* efi_map({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  yield* efi_map_region(kernel, t, vpnArg(events, i, 0), argNumber(events, i, 1));
  return 'done';
}

function* efi_unmap({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  yield* efi_unmap_region(kernel, t, vpnArg(events, i, 0), argNumber(events, i, 1));
  return 'done';
}

export const KERNEL_MEMORY_BINDINGS: BindingTable = [
  [KIND.vmalloc, vmalloc],
  [KIND.vfree, vfree],
  [KIND.vmalloc_touch, vmalloc_touch],
  [KIND.hotplug_add, hotplug_add],
  [KIND.hotplug_remove, hotplug_remove],
  [KIND.set_memory, set_memory],
  [KIND.register_die_notifier, register_die_notifier],
  [KIND.vm_unmap_aliases, vm_unmap_aliases],
  [KIND.suspend, suspend],
  [KIND.resume, resume],
  [KIND.efi_map, efi_map],
  [KIND.efi_unmap, efi_unmap],
];
