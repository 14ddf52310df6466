// The conformance scenarios, in the order of the listings.

import type {Scenario} from '../catalogue.ts';
import {COW, COW_COLLAPSE, COW_HUGETLB, COW_THP} from './cow.ts';
import {COW_FILES} from './cow_files.ts';
import {GUARD_REGIONS} from './guard_regions.ts';
import {KHUGEPAGED, MADV_COLLAPSE} from './khugepaged.ts';
import {KSM, KSM_PRCTL} from './ksm.ts';
import {MADV_POPULATE} from './madv_populate.ts';
import {MERGE} from './merge.ts';
import {MIGRATION, RMAP} from './migration.ts';
import {MKDIRTY} from './mkdirty.ts';
import {MREMAP, MREMAP_DONTUNMAP, MREMAP_MULTI} from './mremap.ts';
import {MSEAL} from './mseal.ts';
import {PROCESS_MADVISE} from './process_madvise.ts';
import {PROT_NONE} from './prot_none.ts';
import {scenarioOf} from './selftest.ts';
import {SOFT_DIRTY, SOFT_DIRTY_POPULATE} from './soft_dirty.ts';
import {UFFD, UFFD_COPY} from './uffd.ts';
import {UFFD_EVENTS} from './uffd_events.ts';
import {UFFD_MOVE} from './uffd_move.ts';
import {UFFD_WP} from './uffd_wp.ts';

export const CONFORMANCE: readonly Scenario[] = [
  MREMAP,
  MREMAP_MULTI,
  MREMAP_DONTUNMAP,
  MADV_POPULATE,
  MERGE,
  GUARD_REGIONS,
  PROCESS_MADVISE,
  MSEAL,
  COW,
  COW_THP,
  COW_COLLAPSE,
  COW_HUGETLB,
  COW_FILES,
  MKDIRTY,
  PROT_NONE,
  SOFT_DIRTY,
  SOFT_DIRTY_POPULATE,
  KHUGEPAGED,
  MADV_COLLAPSE,
  KSM,
  KSM_PRCTL,
  MIGRATION,
  RMAP,
  UFFD,
  UFFD_COPY,
  UFFD_WP,
  UFFD_MOVE,
  UFFD_EVENTS,
].map(scenarioOf);
