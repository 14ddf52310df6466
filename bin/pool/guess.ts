// How long a replay may take, from its size alone.

import {FIRST_ANSWER} from '../../formats/kinds.ts';
import type {LoadedTrace} from '../../formats/reader.ts';
import type {ReplayOptions} from '../../replay/options.ts';

/** Between 1 us (faults) and 25 us (forks on 80 CPUs) were seen. */
const US_PER_OPERATION = 10;

/** Host time of one replay of `trace`, ms. */
export function guessMs(
  {events}: LoadedTrace,
  {untilNs, copies}: Pick<ReplayOptions, 'untilNs' | 'copies'>,
): number {
  let operations = 0;
  for (let i = 0; i < events.count; i++) {
    if (events.kind[i] < FIRST_ANSWER && events.timeNs[i] - events.timeNs[0] <= untilNs)
      operations++;
  }
  return (operations * copies * US_PER_OPERATION) / 1000;
}
