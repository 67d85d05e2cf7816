// Cases NAME/forward: hidden states, logits, loss and greedy continuations of a model.

import { scope } from '../../src/autograd/scope.js';
import { noGrad } from '../../src/autograd/tape.js';
import type { CausalLM } from '../../src/models/causalLM.js';
import { relative, type Bar, type Comparison } from './compare.js';
import { take } from './context.js';
import type { Fixture } from './fixture.js';

export interface Batch {
  readonly inputIds: Int32Array;
  readonly shape: readonly number[];
  readonly attentionMask: Int32Array;
}

export async function readBatch(fixture: Fixture): Promise<Batch> {
  const inputIds = await fixture.ints('input_ids');
  const attentionMask = fixture.has('attention_mask')
    ? await fixture.ints('attention_mask')
    : new Int32Array(inputIds.length).fill(1);
  return { inputIds, shape: fixture.shape('input_ids'), attentionMask };
}

/** Which entries of a tensor [B, T, width] belong to real tokens. */
export function unmaskedOf({ attentionMask }: Batch, entries: number): (index: number) => boolean {
  const width = entries / attentionMask.length;
  return index => attentionMask[Math.floor(index / width)] !== 0;
}

export async function checkForward(
  fixture: Fixture,
  model: CausalLM,
  tolerance: number,
  comparison: Comparison,
): Promise<void> {
  const bar = relative(tolerance);
  const batch = await readBatch(fixture);
  const states = fixture.names
    .flatMap(name => /^hidden_states\.(\d+)$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
  const output = noGrad(() =>
    scope(() => {
      const { hiddenStates, logits } = model.forward({ ...batch, hiddenStates: states.length > 0 });
      return { hiddenStates: [...hiddenStates], logits };
    }),
  );
  for (const i of states) {
    if (i >= output.hiddenStates.length)
      throw new RangeError(`hidden_states.${i}: the model has hidden states 0..${output.hiddenStates.length - 1}`);
    await masked(`hidden_states.${i}`, take(output.hiddenStates[i]), fixture, batch, bar, comparison);
  }
  if (fixture.has('logits')) await masked('logits', take(output.logits), fixture, batch, bar, comparison);
  if (fixture.has('loss')) {
    const labels = await fixture.ints('labels');
    comparison.tensor(
      'loss',
      await take(noGrad(() => model.loss(batch, labels).loss)),
      await fixture.floats('loss'),
      bar,
    );
  }
  await checkGreedy('generate.greedy', 'generate.prompt', null, fixture, model, comparison);
  const padded = 'generate.left_padded';
  await checkGreedy(`${padded}.greedy`, `${padded}.input_ids`, `${padded}.attention_mask`, fixture, model, comparison);
}

/** Compares a tensor [B, T, width] with the fixture's of that name, at real tokens. */
export async function masked(
  name: string,
  actual: Promise<ArrayLike<number>>,
  fixture: Fixture,
  batch: Batch,
  bar: Bar,
  comparison: Comparison,
): Promise<void> {
  const expected = await fixture.floats(name);
  comparison.tensor(name, await actual, expected, bar, unmaskedOf(batch, expected.length));
}

/** Greedy continuation [B, prompt + new] of prompts [B, prompt] with padding on the left, not stopped at any token. */
async function checkGreedy(
  name: string,
  promptName: string,
  maskName: string | null,
  fixture: Fixture,
  model: CausalLM,
  comparison: Comparison,
): Promise<void> {
  if (!fixture.has(name)) return;
  const [batch, width] = fixture.shape(promptName);
  const [rows, total] = fixture.shape(name);
  if (rows !== batch || !(total > width))
    throw new RangeError(`${name}: expected [${batch}, more than ${width}], got [${fixture.shape(name).join(', ')}]`);
  const [prompt, expected] = [await fixture.ints(promptName), await fixture.ints(name)];
  const mask = maskName !== null && fixture.has(maskName) ? await fixture.ints(maskName) : null;
  const padded = Array.from({ length: batch }, (_, b) => [...prompt.subarray(b * width, (b + 1) * width)]);
  const prompts = padded.map((row, b) => row.filter((_, t) => !mask || mask[b * width + t] !== 0));
  const generated = await model.generate(prompts, { maxNewTokens: total - width, stopTokenIds: [], rounded: false });
  const actual = generated.flatMap(({ ids }, b) => [...padded[b], ...ids]);
  comparison.ids(name, actual, expected);
}
