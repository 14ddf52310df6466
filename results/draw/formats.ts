// Every format of `compare --format`, by name.

import {drawBenchstat, drawBenchstatCsv} from './benchstat.ts';
import {drawCsv} from './csv.ts';
import {drawJson} from './json.ts';
import {drawLkp} from './lkp.ts';
import {drawMarkdown} from './markdown.ts';
import {drawMmtests} from './mmtests.ts';
import type {Draw} from './options.ts';
import {drawTable} from './table.ts';
import {drawWillItScale} from './will_it_scale.ts';
import {UserError} from '../errors.ts';

export const FORMATS: Readonly<Record<string, Draw>> = Object.freeze({
  table: drawTable,
  mmtests: drawMmtests,
  lkp: drawLkp,
  benchstat: drawBenchstat,
  'benchstat-csv': drawBenchstatCsv,
  'will-it-scale': drawWillItScale,
  csv: drawCsv,
  markdown: drawMarkdown,
  json: drawJson,
});

/** The drawer of that name; UserError (usage) naming the choices when there is none. */
export function formatNamed(name: string): Draw {
  if (!Object.hasOwn(FORMATS, name)) {
    throw new UserError(
      `unknown format "${name}"; choose one of ${Object.keys(FORMATS).join(', ')}`,
      2,
    );
  }
  return FORMATS[name];
}
