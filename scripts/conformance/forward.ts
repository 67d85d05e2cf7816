// Cases NAME/forward: hidden states, logits, loss and greedy continuations of a model.

import { scope } from '../../src/autograd/scope.js';
import { noGrad } from '../../src/autograd/tape.js';
import { CausalLM } from '../../src/models/causalLM.js';
import { Seq2SeqLM, type Seq2SeqOptions } from '../../src/models/seq2seqLM.js';
import type { Model, ModelOutput } from '../../src/models/model.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { relative, type Bar, type Comparison } from './compare.js';
import { take } from './context.js';
import type { Fixture } from './fixture.js';
import { lossOf, outputNamed, readInputs, type Inputs } from './inputs.js';
import { Unsupported } from './unsupported.js';

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

/** Outputs and which stack's padding they have; null: none. */
const outputs: readonly (readonly [pattern: RegExp, stack: string | null])[] = [
  [/^logits$/, ''],
  [/^(last_hidden_state|hidden_states\.\d+)$/, ''],
  [/^(encoder_last_hidden_state|encoder_hidden_states\.\d+)$/, 'encoder'],
  [/^decoder_hidden_states\.\d+$/, 'decoder'],
  [/^(pooler_output|image_embeds|text_embeds|logits_per_image|logits_per_text)$/, null],
];

export async function checkForward(
  fixture: Fixture,
  model: Model,
  tolerance: number,
  comparison: Comparison,
): Promise<void> {
  const bar = relative(tolerance);
  const inputs = await readInputs(fixture, model);
  const wantsStates = fixture.names.some(name => /hidden_states\.\d+$/.test(name));
  const output = noGrad(() =>
    scope(() => ({ ...model.forward({ ...inputs.options, hiddenStates: wantsStates }), collected: null })),
  ) as unknown as ModelOutput;
  for (const name of fixture.names) {
    const kind = outputs.find(([pattern]) => pattern.test(name));
    if (!kind) continue;
    const [, index] = /hidden_states\.(\d+)$/.exec(name) ?? [];
    const states = index === undefined ? null : statesOf(output, name);
    if (states && Number(index) >= states.length)
      throw new RangeError(`${name}: the model has hidden states 0..${states.length - 1}`);
    const tensor = states ? states[Number(index)] : outputNamed(output, name);
    if (!tensor) throw new Unsupported(`the model has no output '${name}'`);
    const expected = await fixture.floats(name);
    const stack = states && states !== output.hiddenStates ? 'encoder' : kind[1];
    // Outputs may share memory, so that none is given back.
    comparison.tensor(name, await tensor.data(), expected, bar, realOf(inputs, stack, fixture.shape(name)));
  }
  if (fixture.has('loss')) {
    const loss = await lossOf(fixture, model, inputs.options);
    comparison.tensor('loss', await take(noGrad(() => loss().loss)), await fixture.floats('loss'), bar);
  }
  await checkGreedy('generate.greedy', 'generate.prompt', null, fixture, model, comparison);
  const padded = 'generate.left_padded';
  await checkGreedy(`${padded}.greedy`, `${padded}.input_ids`, `${padded}.attention_mask`, fixture, model, comparison);
}

/** The list of hidden states that a tensor's name is of; without a stack's name the first one's. */
function statesOf(output: ModelOutput, name: string): readonly Tensor[] {
  const { encoderHiddenStates } = output as ModelOutput & { encoderHiddenStates?: readonly Tensor[] };
  if (name.startsWith('decoder_')) return output.hiddenStates;
  return encoderHiddenStates ?? (name.startsWith('encoder_') ? [] : output.hiddenStates);
}

/** Which entries of an output [B, T, ..] belong to real tokens of its stack; all where it has none. */
export function realOf(
  { stacks }: Inputs,
  stack: string | null,
  shape: readonly number[],
): ((index: number) => boolean) | undefined {
  const tokens = stack === null ? undefined : stacks.get(stack === '' && stacks.has('decoder') ? 'decoder' : stack);
  if (!tokens || shape.length < 3 || shape[0] !== tokens.shape[0] || shape[1] !== tokens.shape[1]) return undefined;
  const width = shape.slice(2).reduce((a, b) => a * b, 1);
  return index => tokens.mask[Math.floor(index / width)] !== 0;
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
  const byToken = fixture.shape(name).length > 2;
  comparison.tensor(name, await actual, expected, bar, byToken ? unmaskedOf(batch, expected.length) : undefined);
}

/**
 * Greedy continuation, not stopped at any token: [B, prompt + new] of prompts [B, prompt] with padding on the left, or
 * [B, 1 + new] with the decoder's start token in front, from the encoder's first rows.
 */
async function checkGreedy(
  name: string,
  promptName: string,
  maskName: string | null,
  fixture: Fixture,
  model: Model,
  comparison: Comparison,
): Promise<void> {
  if (!fixture.has(name)) return;
  const expected = await fixture.ints(name);
  if (model instanceof Seq2SeqLM) {
    comparison.ids(name, await greedyFrom(model, fixture, expected, fixture.shape(name)), expected);
    return;
  }
  if (!(model instanceof CausalLM)) throw new Unsupported('the model does not generate');
  const [batch, width] = fixture.shape(promptName);
  const [rows, total] = fixture.shape(name);
  if (rows !== batch || !(total > width))
    throw new RangeError(`${name}: expected [${batch}, more than ${width}], got [${fixture.shape(name).join(', ')}]`);
  const prompt = await fixture.ints(promptName);
  const mask = maskName !== null && fixture.has(maskName) ? await fixture.ints(maskName) : null;
  const padded = Array.from({ length: batch }, (_, b) => [...prompt.subarray(b * width, (b + 1) * width)]);
  const prompts = padded.map((row, b) => row.filter((_, t) => !mask || mask[b * width + t] !== 0));
  const generated = await model.generate(prompts, { maxNewTokens: total - width, stopTokenIds: [], rounded: false });
  const actual = generated.flatMap(({ ids }, b) => [...padded[b], ...ids]);
  comparison.ids(name, actual, expected);
}

/** What a decoder writes, [rows, length], the start token in front where the fixture has it, from the first rows. */
async function greedyFrom(
  model: Seq2SeqLM,
  fixture: Fixture,
  expected: Int32Array,
  [rows, length]: readonly number[],
): Promise<number[]> {
  const { options } = await readInputs(fixture, model);
  const { decoderStartTokenId } = model.config;
  const front = expected[0] === decoderStartTokenId ? [decoderStartTokenId] : [];
  const own = fixture.has('generate.prompt');
  const ids = own ? await fixture.ints('generate.prompt') : options.inputIds;
  const [, width] = own ? fixture.shape('generate.prompt') : (options.shape ?? [0, 0]);
  const mask = own ? undefined : options.attentionMask;
  const prompts = Array.from({ length: rows }, (_, b) =>
    [...(ids ?? [])].slice(b * width, (b + 1) * width).filter((_id, t) => mask?.[b * width + t] !== 0),
  );
  const { inputFeatures } = options as Seq2SeqOptions;
  const generated = await model.generate(inputFeatures ? inputFeatures.slice(0, 0, rows) : prompts, {
    maxNewTokens: length - front.length,
    stopTokenIds: [],
    rounded: false,
  });
  return generated.flatMap(row => [...front, ...row.ids]);
}
