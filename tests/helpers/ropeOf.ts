// The rotary settings of a configuration whose layers all have the same.

import assert from 'node:assert/strict';
import type { DecoderConfig, RopeSettings } from '../../src/models/config.js';

export function ropeOf({ ropes, layers }: Pick<DecoderConfig, 'ropes' | 'layers'>): RopeSettings {
  assert.equal(ropes.length, layers, 'one setting for each layer');
  const [first] = ropes;
  if (first === null) assert.fail('layer 0 has no rotary embeddings');
  for (const settings of ropes) assert.deepEqual(settings, first);
  return first;
}
