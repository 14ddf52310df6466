// The statistics that results/ uses, by concern; each file states what it assumes.

export {binomialCdfHalf} from './stats/binomial.ts';
export {holm, pairsNeeded} from './stats/holm.ts';
export {geometricMean, harmonicMean, mean, standardDeviation} from './stats/means.ts';
export {normalUpperTail} from './stats/normal.ts';
export {type Interval, median, medianInterval, quantile, sorted} from './stats/order.ts';
export {comparePaired, type Paired, type PairedKind} from './stats/paired.ts';
export {EXACT_MAX, signedRankTest, type TestResult} from './stats/signed_rank.ts';
export {signTest} from './stats/sign_test.ts';
