// A decoder's configuration from a Hugging Face config.json. Every key is read here or listed in configKeys.ts; what a
// key means, and what its absence means, is transformers' configuration_{llama,qwen2,mistral}.py.

import { z } from 'zod';
import { FormatError } from '../io/errors.js';
import { isJsonObject } from '../io/strictJson.js';
import {
  checkedConfig,
  knownModelType,
  specialId,
  type DecoderConfig,
  type ModelType,
  type RopeScaling,
} from './config.js';
import { checkKeys } from './configKeys.js';

const count = z
  .number()
  .int()
  .positive()
  .max(2 ** 31);
const token = z.number().int().nullish();
const layerTypes = ['full_attention', 'sliding_attention'] as const;

const schema = z.looseObject({
  model_type: z.string(),
  vocab_size: count,
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: count.max(1000),
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  hidden_act: z.string().default('silu'),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: z.looseObject({}).nullish(),
  rope_parameters: z.looseObject({}).nullish(),
  original_max_position_embeddings: count.nullish(),
  max_position_embeddings: count.nullish(),
  sliding_window: count.nullish(),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.number().int().nonnegative().nullish(),
  layer_types: z.array(z.enum(layerTypes)).nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  bos_token_id: token,
  pad_token_id: token,
  eos_token_id: z.union([z.number().int(), z.array(z.number().int())]).nullish(),
  quantization_config: z.looseObject({}).nullish(),
});
type HFConfig = z.infer<typeof schema>;
const read: ReadonlySet<string> = new Set(Object.keys(schema.shape));

/** What a family takes where its file has no such key. */
const defaults: Readonly<Record<ModelType, { readonly maxPositions: number; readonly window: number | null }>> = {
  llama: { maxPositions: 2048, window: null },
  qwen2: { maxPositions: 32768, window: 4096 },
  mistral: { maxPositions: 131072, window: 4096 },
};

type Fail = (text: string) => never;

/** From the content of a config.json. */
export function configFromHF(json: unknown, source: string): DecoderConfig {
  const fail: Fail = text => {
    throw new FormatError(source, text);
  };
  if (!isJsonObject(json)) return fail('expected a JSON object');
  const modelType = knownModelType(source, String(json['model_type']));
  const parsed = schema.safeParse(json);
  if (!parsed.success) return fail(parsed.error.issues.map(i => `${i.path.join('.')}: ${i.message}`).join('; '));
  const c = parsed.data;
  checkQuantization(json, fail);
  checkKeys(json, read, source);
  const positions = c.max_position_embeddings ?? defaults[modelType].maxPositions;
  const rope = ropeOf(c, positions, fail);
  const original =
    rope.ropeScaling?.rope_type === 'longrope'
      ? Number(rope.ropeScaling['original_max_position_embeddings'])
      : Infinity;
  const maxPositions = Math.min(positions, original);
  const biases = biasesOf(modelType, c, fail);
  const eos = c.eos_token_id ?? [];
  const idOf = (id: unknown): number | null => specialId(id, c.vocab_size);
  return checkedConfig(source, {
    modelType,
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    layers: c.num_hidden_layers,
    heads: c.num_attention_heads,
    kvHeads: c.num_key_value_heads ?? c.num_attention_heads,
    headDim: c.head_dim ?? c.hidden_size / c.num_attention_heads,
    normEps: c.rms_norm_eps,
    ...rope,
    ropeDivisors: null,
    maxPositions,
    windows: windowsOf(modelType, c, maxPositions, fail),
    tiedHead: c.tie_word_embeddings ?? false,
    ...biases,
    activation: c.hidden_act,
    bosTokenId: idOf(c.bos_token_id),
    eosTokenIds: (Array.isArray(eos) ? eos : [eos]).filter(id => idOf(id) !== null),
    padTokenId: idOf(c.pad_token_id),
  });
}

/** Weights must be numbers as they are, or the int8 rows with scales of bitsandbytes, which weights.ts reads. */
function checkQuantization(json: Readonly<Record<string, unknown>>, fail: Fail): void {
  for (const key of ['quantization_config', 'quantization', 'compression_config']) {
    const config = json[key];
    if (!isJsonObject(config)) continue;
    const method = config['quant_method'];
    const isInt8 = method === 'bitsandbytes' && config['load_in_8bit'] === true && config['load_in_4bit'] !== true;
    if (isInt8 && key === 'quantization_config') continue;
    const which =
      method === undefined ? '' : `quant_method '${String(method)}'${method === 'bitsandbytes' ? ' in 4 bits' : ''}: `;
    fail(
      `${key}: ${which}weights in this form are not read (bitsandbytes' int8 is); take the model in f16, bf16 or f32`,
    );
  }
}

/** The biases of a family: LLaMA's are settings, Qwen2's and Mistral's are not. */
function biasesOf(type: ModelType, c: HFConfig, fail: Fail): Pick<DecoderConfig, 'qkvBias' | 'outputBias' | 'mlpBias'> {
  const [attention, mlp] = [c.attention_bias ?? undefined, c.mlp_bias ?? undefined];
  if (type === 'llama') return { qkvBias: attention ?? false, outputBias: attention ?? false, mlpBias: mlp ?? false };
  const qkvBias = type === 'qwen2';
  if (attention !== undefined && attention !== qkvBias)
    fail(`attention_bias: ${attention}, but a ${type} ${qkvBias ? 'always' : 'never'} has biases of q, k and v`);
  if (mlp) fail(`mlp_bias: true, but a ${type} never has biases in its feed-forward`);
  return { qkvBias, outputBias: false, mlpBias: false };
}

/**
 * `rope_parameters` is transformers 5's spelling of `rope_theta` and `rope_scaling` together; what stands inside comes
 * first. The original length is `positions`, and the factor what is between them, where scalings that need them do not
 * say so.
 */
function ropeOf(c: HFConfig, positions: number, fail: Fail): Pick<DecoderConfig, 'ropeTheta' | 'ropeScaling'> {
  const key = c.rope_scaling ? 'rope_scaling' : 'rope_parameters';
  const inside: Record<string, unknown> = { ...c[key] };
  for (const type of layerTypes)
    if (type in inside) fail(`${key}.${type}: rotary embeddings that differ by layer are not supported`);
  const ropeTheta = inside['rope_theta'] ?? c.rope_theta ?? 10000;
  if (typeof ropeTheta !== 'number' || !(ropeTheta > 0))
    return fail(`${key}.rope_theta: expected a positive number, got ${JSON.stringify(ropeTheta)}`);
  const type = inside['rope_type'] ?? inside['type'] ?? 'default';
  if (typeof type !== 'string') return fail(`${key}.rope_type: expected a string, got ${JSON.stringify(type)}`);
  const originalKey = 'original_max_position_embeddings';
  if (['llama3', 'yarn', 'longrope'].includes(type))
    inside[originalKey] = c[originalKey] ?? inside[originalKey] ?? positions;
  if (['yarn', 'longrope'].includes(type)) inside['factor'] ??= positions / Number(inside[originalKey]);
  const settings = Object.keys(inside).filter(name => !['rope_theta', 'rope_type', 'type'].includes(name));
  const ropeScaling: RopeScaling | null =
    type === 'default' && settings.length === 0 ? null : { ...inside, rope_type: type };
  return { ropeTheta, ropeScaling };
}

/**
 * The window of each layer. `layer_types` decides where it is given; else Qwen2 slides from layer `max_window_layers`
 * on if `use_sliding_window` says so, Mistral in every layer, LLaMA in none. A window as long as the context is none.
 */
function windowsOf(type: ModelType, c: HFConfig, maxPositions: number, fail: Fail): (number | null)[] {
  const size = c.sliding_window === undefined ? defaults[type].window : c.sliding_window;
  const slides = (layer: number): boolean => {
    if (c.layer_types) return c.layer_types[layer] === 'sliding_attention';
    if (type === 'qwen2') return c.use_sliding_window === true && size !== null && layer >= (c.max_window_layers ?? 28);
    return type === 'mistral' && size !== null;
  };
  const layers = Array.from({ length: c.num_hidden_layers }, (_, layer) => layer);
  const some = layers.some(slides);
  if (c.layer_types && c.layer_types.length !== layers.length)
    fail(`layer_types: has ${c.layer_types.length} entries for ${layers.length} layers`);
  if (some && size === null) fail('layer_types: has sliding_attention, and there is no sliding_window');
  if (some && c.use_sliding_window === false) fail('use_sliding_window: false, but layers slide');
  if (!c.layer_types && type !== 'qwen2') {
    if (type === 'llama' && size !== null && size < maxPositions && c.use_sliding_window !== false) {
      fail(`sliding_window: ${size}, but a llama has no window; layer_types would say which layers have`);
    }
    if (type === 'llama' && c.use_sliding_window)
      fail('use_sliding_window: true, but a llama has no window; layer_types would say which layers have');
    if (some && c.max_window_layers)
      fail(
        `max_window_layers: ${c.max_window_layers}, but all layers of a ${type} slide; layer_types would say which do not`,
      );
  }
  return layers.map(layer => (slides(layer) && size !== null && size < maxPositions ? size : null));
}
