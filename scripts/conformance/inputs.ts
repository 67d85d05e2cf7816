// What a case gives a model, by the names transformers has for its inputs and outputs, whatever the model's task.

import type { Tensor } from '../../src/tensor/tensor.js';
import type { Backend } from '../../src/backends/backend.js';
import type { ForwardOptions, Loss, Model, ModelOutput } from '../../src/models/model.js';
import { tasks, type Task } from '../../src/models/families/family.js';
import { create } from '../../src/tensor/create.js';
import { Unsupported } from './unsupported.js';
import type { Fixture } from './fixture.js';

/** The task of a transformers class, like `BertForMaskedLM`. */
export function taskOf(className: string, modelType: string): Task {
  const endings: readonly (readonly [RegExp, Task])[] = [
    [/(ForCausalLM|LMHeadModel)$/, 'causalLM'],
    [/ForMaskedLM$/, 'maskedLM'],
    [/ForSequenceClassification$/, 'sequenceClassification'],
    [/ForImageClassification$/, 'imageClassification'],
    [/ForConditionalGeneration$/, 'seq2seqLM'],
    [/Model$/, 'base'],
  ];
  const task = endings.find(([ending]) => ending.test(className))?.[1];
  if (!task) throw new Unsupported(`models of class '${className}' are not supported`);
  if (task !== 'seq2seqLM') return task;
  return modelType === 'whisper' ? 'speechSeq2Seq' : modelType === 'llava' ? 'imageTextToText' : task;
}

export const isTask = (name: string): name is Task => Object.hasOwn(tasks, name);

/** A case's inputs as a model's forward takes them. */
export interface Inputs {
  readonly options: ForwardOptions;
  /** For each stack, by name ('' for the main one): [B, T] and which tokens are real. */
  readonly stacks: ReadonlyMap<string, { readonly shape: readonly number[]; readonly mask: Int32Array }>;
}

/** A model that makes its decoder's input from labels. */
interface FromLabels {
  decoderInputs(labels: Int32Array, shape: readonly number[]): object;
}

async function floats(fixture: Fixture, name: string, backend: Backend, dtype: 'f32' | 'f64'): Promise<Tensor> {
  return create.from(await fixture.floats(name), fixture.shape(name), { backend, dtype });
}

export async function readInputs(fixture: Fixture, model: Model): Promise<Inputs> {
  const { backend, dtype } = model;
  const options: Record<string, unknown> = {};
  const stacks = new Map<string, { shape: readonly number[]; mask: Int32Array }>();
  const full = (shape: readonly number[]): Int32Array => new Int32Array(shape[0] * shape[1]).fill(1);
  if (fixture.has('input_ids')) {
    const shape = fixture.shape('input_ids');
    const mask = fixture.has('attention_mask') ? await fixture.ints('attention_mask') : full(shape);
    Object.assign(options, { inputIds: await fixture.ints('input_ids'), shape, attentionMask: mask });
    for (const stack of ['', 'encoder', 'text']) stacks.set(stack, { shape, mask });
  }
  if (fixture.has('token_type_ids')) options['tokenTypeIds'] = await fixture.ints('token_type_ids');
  if (fixture.has('pixel_values')) options['pixelValues'] = await floats(fixture, 'pixel_values', backend, dtype);
  if (fixture.has('input_features')) options['inputFeatures'] = await floats(fixture, 'input_features', backend, dtype);
  if (fixture.has('decoder_input_ids')) {
    const shape = fixture.shape('decoder_input_ids');
    const mask = fixture.has('decoder_attention_mask') ? await fixture.ints('decoder_attention_mask') : full(shape);
    Object.assign(options, {
      decoderInputIds: await fixture.ints('decoder_input_ids'),
      decoderShape: shape,
      ...(fixture.has('decoder_attention_mask') ? { decoderAttentionMask: mask } : {}),
    });
    stacks.set('decoder', { shape, mask });
  } else if (fixture.has('labels') && 'decoderInputs' in model) {
    const shape = fixture.shape('labels');
    Object.assign(options, (model as unknown as FromLabels).decoderInputs(await fixture.ints('labels'), shape));
    stacks.set('decoder', { shape, mask: full(shape) });
  }
  return { options: options as unknown as ForwardOptions, stacks };
}

/** Labels of any task: whole numbers, or the numbers of a regression. */
export async function readLabels(fixture: Fixture): Promise<Int32Array> {
  return fixture.isWhole('labels')
    ? await fixture.ints('labels')
    : (Float64Array.from(await fixture.floats('labels')) as unknown as Int32Array);
}

export async function lossOf(fixture: Fixture, model: Model, options: ForwardOptions): Promise<() => Loss> {
  const labels = await readLabels(fixture);
  return () => model.loss(options, labels);
}

/** An output by transformers' name: `pooler_output` is `poolerOutput`. */
export function outputNamed(output: ModelOutput, name: string): Tensor | undefined {
  const key = name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  const value = (output as unknown as Record<string, unknown>)[key];
  return value === undefined ? undefined : (value as Tensor);
}
