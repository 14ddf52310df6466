// The conformance scenarios, in the order of the listings.

import type {Scenario} from '../catalogue.ts';
import {MREMAP, MREMAP_DONTUNMAP, MREMAP_MULTI} from './mremap.ts';
import {scenarioOf} from './selftest.ts';

export const CONFORMANCE: readonly Scenario[] = [MREMAP, MREMAP_MULTI, MREMAP_DONTUNMAP].map(
  scenarioOf,
);
