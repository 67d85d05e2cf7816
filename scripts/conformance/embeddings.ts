// Cases with sentence embeddings: token ids, last hidden states, and the mean over real tokens of length 1. Where the
// settings name no model it is MiniLM, by its alias.

import { z } from 'zod';
import { scope } from '../../src/autograd/scope.js';
import { noGrad } from '../../src/autograd/tape.js';
import { TextEncoder } from '../../src/models/baseEncoder.js';
import { relative, type Comparison } from './compare.js';
import { take, type RunContext } from './context.js';
import type { Fixture } from './fixture.js';
import { masked, readBatch } from './forward.js';
import { Unsupported } from './unsupported.js';

const schema = z.looseObject({ texts: z.array(z.string()).optional(), model: z.string().default('minilm-l6') });

export async function checkEmbeddings(
  fixture: Fixture,
  context: RunContext,
  tolerance: number,
  comparison: Comparison,
): Promise<void> {
  const { texts, model: name } = schema.parse(fixture.settings);
  const model = await context.model(name, 'BertModel');
  if (!(model instanceof TextEncoder)) throw new Unsupported(`${name} makes no sentence embeddings`);
  const batch = await readBatch(fixture);
  const [rows, width] = batch.shape;
  const ids = Array.from({ length: rows }, (_, b) =>
    [...batch.inputIds.subarray(b * width, (b + 1) * width)].filter(
      (__, t) => batch.attentionMask[b * width + t] !== 0,
    ),
  );
  if (texts) {
    const tokenizer = await context.tokenizer(name);
    comparison.ids(
      'input_ids',
      texts.flatMap(text => Array.from(tokenizer.encode(text))),
      ids.flat(),
    );
  }
  const bar = relative(tolerance);
  if (fixture.has('last_hidden_state')) {
    const states = noGrad(() => scope(() => model.forward({ ...batch }).lastHiddenState));
    await masked('last_hidden_state', take(states), fixture, batch, bar, comparison);
  }
  comparison.tensor('embedding', await take(model.embed(ids)), await fixture.floats('embedding'), bar);
}
