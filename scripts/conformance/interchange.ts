// Cases interchange/NAME: the logits of a base run whose hidden states, at one position a row or several, were swapped
// with those of a source run: in the span of R where the case has one, else in the first `rank` coordinates.

import { z } from 'zod';
import { noGrad } from '../../src/autograd/tape.js';
import { getInterchangeModel } from '../../src/interchange/index.js';
import type { TokenBatch } from '../../src/interchange/index.js';
import { create } from '../../src/tensor/create.js';
import { hostBackend } from '../../src/devices.js';
import { relative, type Comparison } from './compare.js';
import { take, Unsupported, type RunContext } from './context.js';
import type { Fixture } from './fixture.js';
import { unmaskedOf } from './forward.js';
import { componentOf } from './reft.js';

const schema = z.looseObject({
  model: z.string(),
  layer: z.number().int().nonnegative(),
  component: z.string().default('block_output'),
  rank: z.number().int().positive().nullish(),
});

const known = [
  'R',
  'logits',
  'base',
  'base_positions',
  'base_attention_mask',
  'source',
  'source_positions',
  'source_attention_mask',
];

/** Token ids [B, T] with their mask, where there is one. */
async function readTokens(fixture: Fixture, name: string): Promise<TokenBatch> {
  const mask = `${name}_attention_mask`;
  return {
    inputIds: await fixture.ints(name),
    shape: fixture.shape(name),
    ...(fixture.has(mask) ? { attentionMask: await fixture.ints(mask) } : {}),
  };
}

/** Columns [B] or [B, k] as positions of each row's own tokens. */
async function readPositions(
  fixture: Fixture,
  name: string,
  { shape, attentionMask }: TokenBatch,
): Promise<number[][]> {
  const [columns, [batch, count = 1]] = [await fixture.ints(name), fixture.shape(name)];
  const [rows, width] = shape;
  if (batch !== rows) throw new RangeError(`${name}: expected ${rows} rows, got ${batch}`);
  return Array.from({ length: batch }, (_, b) => {
    const start = attentionMask ? attentionMask.subarray(b * width, (b + 1) * width).indexOf(1) : 0;
    return [...columns.subarray(b * count, (b + 1) * count)].map(column => column - start);
  });
}

export async function checkInterchange(
  fixture: Fixture,
  context: RunContext,
  tolerance: number,
  comparison: Comparison,
): Promise<void> {
  const settings = schema.parse(fixture.settings);
  const strange = fixture.names.filter(name => !known.includes(name));
  if (strange.length > 0) throw new Unsupported(`interchange cases with ${strange.join(', ')} are not supported`);
  const component = componentOf(settings.component);
  const model = await context.causalLM(settings.model);
  const [base, source] = [await readTokens(fixture, 'base'), await readTokens(fixture, 'source')];
  const unitLocations = {
    base: await readPositions(fixture, 'base_positions', base),
    source: await readPositions(fixture, 'source_positions', source),
  };
  const R = fixture.has('R') ? await fixture.array('R') : null;
  const width = model.widthAt(component);
  if (R && (R.shape.length !== 2 || R.shape[1] !== width))
    throw new RangeError(`R: expected [r, ${width}], got [${R.shape.join(', ')}]`);
  const where = { layer: settings.layer, component };
  const interchange = getInterchangeModel(
    model,
    R
      ? { kind: 'lowRankRotatedSpace', lowRankDimension: R.shape[0], trainable: false, ...where }
      : { kind: 'vanilla', interchangeDim: settings.rank ?? width, ...where },
  );
  try {
    if (R)
      interchange.interventions[0].space.set(
        'R',
        create.from(R.data, R.shape, { dtype: 'f64', backend: hostBackend(model.backend) }),
      );
    const logits = noGrad(() => interchange.run({ base, sources: [source], unitLocations }).logits);
    const expected = await fixture.floats('logits');
    const batch = { ...base, attentionMask: base.attentionMask ?? new Int32Array(base.inputIds.length).fill(1) };
    comparison.tensor('logits', await take(logits), expected, relative(tolerance), unmaskedOf(batch, expected.length));
  } finally {
    interchange.dispose();
  }
}
