// A verification for people: the two agreements first, then what disagrees most and the first cases
// of it, then times.

import pc from 'picocolors';
import type {CountPair, DifferenceReport, DurationReport, VerifyReport} from '../verify.ts';
import {align} from './columns.ts';
import {digits4, formatCount, formatNs, formatShare} from './number.ts';
import type {DrawOptions} from './options.ts';

const MAX_CAUSES = 25;
/** Ratios within this factor of 1 are what is hoped for. */
const GOOD_RATIO = 2;

export function drawVerify(report: VerifyReport, options: DrawOptions = {}): string {
  const colors = pc.createColors(options.color ?? false);
  const flag = (text: string, good: boolean): string =>
    good ? colors.green(text) : colors.red(text);
  const blocks = [
    header(report),
    agreement(report, flag),
    alarms(report).map(colors.red).join('\n'),
    causes(report),
    differences(report.differences),
    classTable(report),
    durationTable(report, flag),
    tlbTable(report),
    ksmTable(report),
    countsTable('unmodelled', report.unmodelled),
  ];
  return `${blocks.filter((block) => block !== '').join('\n\n')}\n`;
}

function header({trace, machine, kernel, seed, replay}: VerifyReport): string {
  return [
    `trace      ${trace.path}, ${formatCount(trace.events)} events (${trace.hash})`,
    `machine    ${machine.name}, ${machine.cpus} CPUs, kernel ${kernel}, seed ${seed}`,
    `states     order ${replay.order}, time ${replay.time}, digest ${replay.digest}`,
  ].join('\n');
}

function agreement(report: VerifyReport, flag: (text: string, good: boolean) => string): string {
  const {faults, rss, inferred} = report;
  const {records} = rss;
  const pages = `mean error ${digits4(rss.mean_abs_error)} pages, largest ${formatCount(rss.max_abs_error)}`;
  if (faults.recorded + rss.samples === 0) return nothingGraded(report);
  return [
    `faults     ${flag(formatShare(faults.agreement), faults.agreement >= 0.98)} agreed: ` +
      `${formatCount(faults.agreed)} of ${formatCount(faults.recorded)}; ${formatCount(faults.missing)} did ` +
      `not fault here, ${formatCount(faults.extra)} only here`,
    `rss        ${flag(formatShare(rss.agreement), rss.agreement >= 0.9)} exact: ` +
      `${formatCount(rss.exact)} of ${formatCount(rss.samples)} samples; ${pages}`,
    `           ${formatCount(rss.changes_exact)} changes exact; records: ${formatCount(records.recorded)} ` +
      `recorded, ${formatCount(records.simulated)} here, ${formatCount(records.matched)} match`,
    `inferred   ${formatCount(inferred.file_pages)} pages of ${formatCount(inferred.files)} files that fault-around ` +
      `passed over, ${formatCount(inferred.large_folios)} large folios, in ${formatCount(inferred.replays)} replays`,
    ...reclaim(report),
    `not graded ${formatCount(faults.before_trace)} faults and ${formatCount(rss.before_trace)} records of ` +
      'address spaces older than the recording',
  ].join('\n');
}

function nothingGraded({faults, rss}: VerifyReport): string {
  return [
    'faults     nothing to grade: the recording names no mapping of an address space that it saw the birth of',
    `not graded ${formatCount(faults.before_trace)} faults and ${formatCount(rss.before_trace)} records`,
  ].join('\n');
}

/** What of reclaim was an input, and what came of it. */
function reclaim({inferred, swap}: VerifyReport): string[] {
  const lines: string[] = [];
  if (inferred.reclaimed_pages > 0) {
    lines.push(
      `           ${formatCount(inferred.reclaimed_pages)} pages that ${formatCount(inferred.reclaim_operations)} ` +
        'operations reclaimed: when and how many by their records, which by later faults',
    );
  }
  if (inferred.memcg_limit_pages > 0)
    lines.push(`           a cgroup of ${formatCount(inferred.memcg_limit_pages)} pages`);
  if (inferred.swap_area_pages > 0) {
    const slots = formatCount(inferred.swap_area_pages);
    lines.push(`           a swap area in use before, taken to have ${slots} pages`);
  }
  if (swap !== null) {
    const pair = ({recorded, simulated}: CountPair): string =>
      `${formatCount(recorded)} recorded, ${formatCount(simulated)} here`;
    lines.push(
      `swap       written ${pair(swap.written)}; faults ${pair(swap.faults)}; ` +
        `by swapoff ${pair(swap.unused)}`,
    );
  }
  return lines;
}

function alarms(report: VerifyReport): string[] {
  const lines = report.findings.map((finding) => `FOUND ${finding}`);
  for (const [text, count] of Object.entries(report.warnings)) {
    lines.push(`WARNING ${text} (${formatCount(count)} times)`);
  }
  return lines;
}

function causes(report: VerifyReport): string {
  const rows = report.causes
    .slice(0, MAX_CAUSES)
    .map(({cause, count, first_event: event}) => [cause, formatCount(count), String(event)]);
  const more = report.causes.length - rows.length;
  if (rows.length === 0) return '';
  const table = align([['disagreement', 'count', 'first event'], ...rows]);
  return more > 0 ? `${table}\n... and ${more} more` : table;
}

function differences(list: readonly DifferenceReport[]): string {
  return list
    .map((d) =>
      [
        `event ${d.event} at ${formatNs(d.time_ns)}, ${d.comm}/${d.tid}: ${d.operation}`,
        `  ${d.cause}`,
        `  recorded ${d.expected}, here ${d.found}`,
      ].join('\n'),
    )
    .join('\n');
}

function classTable({faults}: VerifyReport): string {
  const rows = Object.entries(faults.classes).map(([name, {recorded, agreed}]) => [
    name,
    formatCount(recorded),
    formatCount(agreed),
    formatShare(agreed / recorded),
  ]);
  return rows.length === 0 ? '' : align([['fault', 'recorded', 'agreed', 'share'], ...rows]);
}

function durationTable(
  report: VerifyReport,
  flag: (text: string, good: boolean) => string,
): string {
  const rows = Object.entries(report.durations).map(([name, d]) => durationRow(name, d, flag));
  if (rows.length === 0) return '';
  const head = [
    'duration',
    'count',
    'recorded',
    'here',
    'ratio',
    'untraced',
    'raw',
    'corrected',
    'mean',
    'here',
  ];
  const cost = formatNs(report.record_cost_ns);
  const note = [
    `medians; a tracepoint costs the recorded kernel ${cost}: "here" has that too, "untraced" has not; raw: untraced over`,
    'recorded; corrected: untraced over recorded without the tracepoints; mean: recorded and here',
  ];
  return `${align([head, ...rows])}\n${note.join('\n')}`;
}

function durationRow(
  name: string,
  d: DurationReport,
  flag: (text: string, good: boolean) => string,
): string[] {
  const good = d.ratio <= GOOD_RATIO && d.ratio >= 1 / GOOD_RATIO;
  return [
    name,
    formatCount(d.count),
    formatNs(d.recorded_ns),
    formatNs(d.simulated_ns),
    flag(d.ratio.toFixed(2), good),
    formatNs(d.untraced_ns),
    d.raw_ratio.toFixed(2),
    d.corrected_ratio === null ? '-' : d.corrected_ratio.toFixed(2),
    formatNs(d.recorded_mean_ns),
    formatNs(d.simulated_mean_ns),
  ];
}

function tlbTable({tlb}: VerifyReport): string {
  const rows = Object.entries(tlb).map(([name, {recorded, simulated}]) => [
    name,
    formatCount(recorded),
    formatCount(simulated),
  ]);
  return rows.length === 0 ? '' : align([['tlb flush', 'recorded', 'here'], ...rows]);
}

function ksmTable({ksm}: VerifyReport): string {
  if (ksm === undefined) return '';
  const rows = [
    ['full scans', ksm.full_scans],
    ['pages merged', ksm.merges],
    ['new KSM pages', ksm.ksm_pages],
    ['zero pages', ksm.zero_pages],
    ['failed', ksm.failed],
  ] as const;
  const table = rows.map(([name, {recorded, simulated}]) => [
    name,
    formatCount(recorded),
    formatCount(simulated),
  ]);
  const {inferred: i} = ksm;
  const notes = [
    `inferred: pages_to_scan ${i.pages_to_scan}, sleep_millisecs ${i.sleep_ms}, max_page_sharing ${i.max_page_sharing};`,
    `contents from ${formatCount(i.contents_certain)} merges of known pages, ` +
      `${formatCount(i.contents_placed)} placed between them, ${formatCount(i.contents_unplaced)} not placed`,
  ];
  return `${align([['ksmd', 'recorded', 'here'], ...table])}\n${notes.join('\n')}`;
}

function countsTable(title: string, counts: Readonly<Record<string, number>>): string {
  const names = Object.keys(counts).sort();
  if (names.length === 0) return '';
  return align([[title, 'count'], ...names.map((name) => [name, formatCount(counts[name])])]);
}
