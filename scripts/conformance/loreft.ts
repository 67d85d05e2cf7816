// Cases NAME/loreft of families: one edit h + R^T (W h + b - R h) at the output of a block, its logits, loss and
// gradients, on a model of any task.

import { z } from 'zod';
import { scope } from '../../src/autograd/scope.js';
import { noGrad } from '../../src/autograd/tape.js';
import type { Model, ModelOutput } from '../../src/models/model.js';
import type { SiteEdit } from '../../src/models/patch.js';
import { edit } from '../../src/reft/editOp.js';
import { create } from '../../src/tensor/create.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { relative, type Comparison } from './compare.js';
import { take } from './context.js';
import type { Fixture } from './fixture.js';
import { realOf } from './forward.js';
import { lossOf, outputNamed, readInputs } from './inputs.js';
import { Unsupported } from './unsupported.js';

const schema = z.looseObject({
  blocks: z.string(),
  layer: z.number().int(),
  site: z.literal('block_output'),
  positions: z.array(z.array(z.number().int())),
});

/** Outputs that a case may hold; the first one there is the main one, which a cotangent weighs. */
const outputs = ['logits', 'logits_per_image', 'last_hidden_state', 'encoder_last_hidden_state'] as const;
const others = ['pooler_output', 'image_embeds', 'text_embeds'] as const;

export async function checkLoreft(
  fixture: Fixture,
  model: Model,
  tolerance: number,
  comparison: Comparison,
): Promise<void> {
  const bar = relative(tolerance);
  const { blocks, layer, positions } = schema.parse(fixture.settings);
  const site = model.site(`${blocks}.${layer}.output`);
  const { backend, dtype } = model;
  const inputs = await readInputs(fixture, model);
  const leaf = async (name: string): Promise<Tensor> =>
    create.from(await fixture.floats(name), fixture.shape(name), { backend, dtype }).requireGrad();
  const [R, W, b] = [await leaf('R'), await leaf('W'), await leaf('b')];
  const apply: SiteEdit['apply'] = (h, rows) => {
    const [, width] = rows.shape;
    const tokens = Int32Array.from(positions.flatMap((list, row) => list.map(t => row * width + t)));
    const { places } = rows.find(tokens);
    const bank = { A: W.unsqueeze(0), b: b.unsqueeze(0), C: R.unsqueeze(0), P: R.unsqueeze(0) };
    return edit(h, bank, { indices: places, slots: new Int32Array(places.length) });
  };
  const options = { ...inputs.options, edits: [{ site, apply }] };
  const output = noGrad(() => scope(() => ({ ...model.forward(options), collected: null }))) as unknown as ModelOutput;
  for (const name of [...outputs, ...others]) {
    if (!fixture.has(name)) continue;
    const tensor = outputNamed(output, name);
    if (!tensor) throw new Unsupported(`the model has no output '${name}'`);
    const stack = name.startsWith('encoder_') ? 'encoder' : name.includes('pooler') ? null : '';
    const real = realOf(inputs, stack, fixture.shape(name));
    comparison.tensor(name, await take(tensor), await fixture.floats(name), bar, real);
  }
  const loss = fixture.has('labels') ? await lossOf(fixture, model, options) : null;
  const main = outputs.find(name => fixture.has(name));
  const cotangent = fixture.has('cotangent')
    ? create.from(await fixture.floats('cotangent'), fixture.shape('cotangent'), { backend, dtype })
    : null;
  const value = scope(() => {
    const weighed = (): Tensor => {
      if (!cotangent || !main) throw new Unsupported('holds neither labels nor a cotangent');
      return (outputNamed(model.forward(options), main) as Tensor).mul(cotangent).sum();
    };
    const total = loss ? loss().loss : weighed();
    total.backward();
    return total.detach();
  });
  const computed = await take(value);
  if (fixture.has('loss')) comparison.tensor('loss', computed, await fixture.floats('loss'), bar);
  for (const [name, tensor] of Object.entries({ R, W, b })) {
    if (!tensor.grad) throw new Error(`grad.${name}: the loss does not depend on it`);
    comparison.tensor(`grad.${name}`, await take(tensor.grad), await fixture.floats(`grad.${name}`), bar);
  }
}
