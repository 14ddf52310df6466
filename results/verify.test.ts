import assert from 'node:assert/strict';
import {test} from 'node:test';
import {drawVerify} from './draw/verify.ts';
import {checkGolden} from './golden.ts';
import {agreementOf, VERIFY_SCHEMA, type VerifyReport} from './verify.ts';

function report(): VerifyReport {
  return {
    schema: VERIFY_SCHEMA,
    trace: {path: 'storm.mmt', hash: '0123456789abcdef', events: 384829},
    machine: {name: 'epyc-2cpu-guest', cpus: 2, hash: 'fedcba9876543210'},
    kernel: '6.18',
    design: {pgd: 'pgd-list'},
    seed: 1,
    replay: {order: 'total', time: 'asap', digest: '1122334455667788'},
    faults: {
      recorded: 1000,
      agreed: 985,
      agreement: 0.985,
      missing: 12,
      extra: 2,
      before_trace: 4,
      classes: {anon: {recorded: 400, agreed: 400}, reuse: {recorded: 600, agreed: 585}},
    },
    rss: {
      samples: 800,
      exact: 640,
      agreement: 0.8,
      mean_abs_error: 0.35,
      max_abs_error: 9,
      changes_exact: 790,
      members: {file: {samples: 300, exact: 140}, anon: {samples: 500, exact: 500}},
      records: {recorded: 2000, simulated: 1990, matched: 1985},
      before_trace: 95,
    },
    inferred: {
      file_pages: 3,
      files: 2,
      large_folios: 1,
      replays: 2,
      swap_area_pages: 262144,
      memcg_limit_pages: 0,
      reclaimed_pages: 320,
      reclaim_operations: 8,
    },
    swap: {
      written: {recorded: 318, simulated: 319},
      faults: {recorded: 200, simulated: 200},
      unused: {recorded: 120, simulated: 120},
    },
    durations: {
      fork: {
        count: 50,
        recorded_ns: 280000,
        simulated_ns: 249000,
        ratio: 249 / 280,
        recorded_mean_ns: 291000,
        simulated_mean_ns: 250000,
        mean_ratio: 250 / 291,
        records: 73.5,
        untraced_ns: 169000,
        raw_ratio: 169 / 280,
        corrected_ratio: 0.86,
      },
      brk: {
        count: 6,
        recorded_ns: 9000,
        simulated_ns: 3000,
        ratio: 1 / 3,
        recorded_mean_ns: 12000,
        simulated_mean_ns: 3000,
        mean_ratio: 0.25,
        records: 1,
        untraced_ns: 2000,
        raw_ratio: 2 / 9,
        corrected_ratio: null,
      },
    },
    record_cost_ns: 1100,
    tlb: {'local mm shootdown pages:1': {recorded: 13945, simulated: 13940}},
    unmodelled: {sys_enter_pread64: 4},
    warnings: {'vmalloc: per-node areas are not modelled': 1},
    findings: ['BUG: an example'],
    causes: [{cause: 'fault 7: reuse recorded, cow_anon here', count: 15, first_event: 812}],
    differences: [
      {
        event: 812,
        time_ns: 1_250_000,
        tid: 20741,
        comm: 'stress-ng',
        operation: 'access 0x7f97c25e1a88 7',
        cause: 'fault 7: reuse recorded, cow_anon here',
        expected: 'reuse',
        found: 'cow_anon',
      },
    ],
  };
}

test('a verification is drawn as it was', () => {
  checkGolden('verify.txt', drawVerify(report()));
});

test('the bar is met by the smaller agreement', () => {
  assert.equal(agreementOf(report()), 0.8);
});

test('a recording of which nothing can be graded is no full score', () => {
  const full = report();
  const empty = {
    ...full,
    faults: {...full.faults, recorded: 0, agreed: 0, agreement: 1},
    rss: {...full.rss, samples: 0, exact: 0, agreement: 1},
  };
  const text = drawVerify(empty);
  assert.match(text, /nothing to grade/);
  assert.doesNotMatch(text, /% agreed|% exact/);
});
