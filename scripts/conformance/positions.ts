// The case `positions`: position strings to pyreft's location lists, every one of them the same.

import { z } from 'zod';
import { pyreftLocations } from '../../src/reft/pyreftLocations.js';
import type { Comparison } from './compare.js';

const schema = z
  .array(
    z.looseObject({
      positions: z.string(),
      last_position: z.number().int(),
      share_weights: z.boolean(),
      pad_mode: z.enum(['first', 'last']),
      num_interventions: z.number().int(),
      locations: z.array(z.array(z.number().int())),
    }),
  )
  .min(1);

export function checkPositions(json: unknown, comparison: Comparison): void {
  for (const entry of schema.parse(json)) {
    const actual = pyreftLocations({
      positions: entry.positions,
      promptLength: entry.last_position,
      interventions: entry.num_interventions,
      tied: entry.share_weights,
      padMode: entry.pad_mode,
    });
    const name = `${entry.positions} of ${entry.last_position}, ${entry.share_weights ? 'tied' : 'untied'}, ${entry.pad_mode}, ${entry.num_interventions}`;
    comparison.ids(
      `${name}: widths`,
      actual.map(list => list.length),
      entry.locations.map(list => list.length),
    );
    comparison.ids(name, actual.flat(), entry.locations.flat());
  }
}
