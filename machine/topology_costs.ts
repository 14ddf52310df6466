// The costs and flags of a machine as numbers that simulated hardware reads: ticks instead of ns,
// plain fields instead of {value, origin}. Topology adds who sits where. What each cost means is
// said at COST_KEYS in spec_types.ts.

import {COST_KEYS, type CostKey, type MachineSpec} from './spec_types.ts';
import {nsToTicks} from './time.ts';

/** Costs in ticks; one that the machine's layout cannot incur may be 0. */
export class MachineCosts {
  readonly l1HitTicks: number;
  readonly atomicLocalTicks: number;
  readonly smtTicks: number;
  readonly sameL3Ticks: number;
  readonly sameSocketTicks: number;
  readonly sameSocketRemoteHomeTicks: number;
  readonly crossSocketTicks: number;
  readonly twoHopTicks: number;
  readonly memoryLocalTicks: number;
  readonly memoryRemoteTicks: number;
  readonly memoryTwoHopTicks: number;
  readonly ipiSendTicks: number;
  readonly ipiDeliverTicks: number;
  readonly ipiHandlerEntryTicks: number;
  readonly invlpgTicks: number;
  readonly fullTlbFlushTicks: number;
  /** Broadcast invalidation (AMD INVLPGB and TLBSYNC); 0 when `hasInvlpgb` is false. */
  readonly invlpgbTicks: number;
  readonly tlbsyncTicks: number;
  readonly contextSwitchTicks: number;
  readonly storeBufferDrainTicks: number;
  readonly syscallEntryTicks: number;
  readonly pageFaultEntryTicks: number;

  readonly hasInvlpgb: boolean;
  readonly smtSlowdown: number;
  readonly serialReads: boolean;
  readonly defaultHomeNode: number;
  readonly storeBufferEntries: number;
  /** Factor on the base costs of kernel code: slower cores, mitigations, nested paging. */
  readonly kernelWork: number;
  readonly forkWork: number;

  constructor(spec: MachineSpec) {
    const {model} = spec;
    const ticks = costTicks(spec);
    this.l1HitTicks = ticks.l1Hit;
    this.atomicLocalTicks = ticks.atomicLocal;
    this.smtTicks = ticks.smt;
    this.sameL3Ticks = ticks.sameL3;
    this.sameSocketTicks = ticks.sameSocket;
    this.sameSocketRemoteHomeTicks = ticks.sameSocketRemoteHome;
    this.crossSocketTicks = ticks.crossSocket;
    this.twoHopTicks = ticks.twoHop;
    this.memoryLocalTicks = ticks.memoryLocal;
    this.memoryRemoteTicks = ticks.memoryRemote;
    this.memoryTwoHopTicks = ticks.memoryTwoHop;
    this.ipiSendTicks = ticks.ipiSend;
    this.ipiDeliverTicks = ticks.ipiDeliver;
    this.ipiHandlerEntryTicks = ticks.ipiHandlerEntry;
    this.invlpgTicks = ticks.invlpg;
    this.fullTlbFlushTicks = ticks.fullTlbFlush;
    this.invlpgbTicks = ticks.invlpgb;
    this.tlbsyncTicks = ticks.tlbsync;
    this.contextSwitchTicks = ticks.contextSwitch;
    this.storeBufferDrainTicks = ticks.storeBufferDrain;
    this.syscallEntryTicks = ticks.syscallEntry;
    this.pageFaultEntryTicks = ticks.pageFaultEntry;
    this.hasInvlpgb = spec.costsNs.invlpgb !== undefined && spec.costsNs.tlbsync !== undefined;
    this.smtSlowdown = model.smtSlowdown.value;
    this.serialReads = model.serialReads.value;
    this.defaultHomeNode = model.homeNode.value;
    this.storeBufferEntries = model.storeBufferEntries.value;
    this.kernelWork = model.kernelWork?.value ?? 1;
    this.forkWork = model.forkWork?.value ?? 1;
  }
}

/** Costs of the file as ticks; one that the file leaves out cannot occur and is 0. */
function costTicks(spec: MachineSpec): Record<CostKey, number> {
  const entries = COST_KEYS.map((key) => [key, nsToTicks(spec.costsNs[key]?.value ?? 0)]);
  return Object.fromEntries(entries) as Record<CostKey, number>;
}
