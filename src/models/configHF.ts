// A decoder's configuration from a Hugging Face config.json. Every key is read here or listed in configKeys.ts; what a
// key means, and what its absence means, is transformers' configuration_{llama,qwen2,mistral}.py.

import { z } from 'zod';
import { FormatError } from '../io/errors.js';
import { isJsonObject } from '../io/strictJson.js';
import {
  checkedConfig,
  plainSwitches,
  specialId,
  type DecoderConfig,
  type RopeScaling,
  type RopeSettings,
} from './config.js';
import { checkKeys } from './configKeys.js';

const count = z
  .number()
  .int()
  .positive()
  .max(2 ** 31);
const token = z.number().int().nullish();
const layerTypes = ['full_attention', 'sliding_attention'] as const;
type LayerType = (typeof layerTypes)[number];

/** What decoders have in common, by the names of LLaMA's configuration. */
const schema = z.looseObject({
  model_type: z.string(),
  vocab_size: count,
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: count.max(1000),
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  hidden_act: z.string().nullish(),
  rms_norm_eps: z.number().positive().nullish(),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: z.looseObject({}).nullish(),
  rope_parameters: z.looseObject({}).nullish(),
  partial_rotary_factor: z.number().positive().max(1).nullish(),
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
export type HFConfig = z.infer<typeof schema>;

export type Fail = (text: string) => never;

/** What a family's file says of its config.json, beside what all decoders have. */
export interface DecoderReader {
  /** Keys of this family alone; any other one is refused by name. */
  readonly keys?: z.ZodRawShape;
  /** Keys by the names that LLaMA's configuration has for them: `{ n_embd: 'hidden_size' }`. */
  readonly renamed?: Readonly<Record<string, string>>;
  /** Fills in what follows from other keys. */
  readonly prepare?: (given: Record<string, unknown>) => void;
  /** Values of common keys that the file leaves out. */
  readonly defaults: {
    readonly max_position_embeddings: number;
    readonly sliding_window?: number;
    readonly hidden_act?: string;
    readonly tie_word_embeddings?: boolean;
    readonly rope_theta?: number;
    readonly rms_norm_eps?: number;
    readonly [key: string]: unknown;
  };
  /** What differs from a LLaMA. `c` is the checked configuration, `c.layers` and so on what was made of it. */
  readonly switches: (c: HFConfig, common: DecoderConfig, fail: Fail) => Partial<DecoderConfig>;
}

/** From the content of a config.json, as a family reads it. */
export function readDecoderHF(json: unknown, source: string, reader: DecoderReader): DecoderConfig {
  const fail: Fail = text => {
    throw new FormatError(source, text);
  };
  if (!isJsonObject(json)) return fail('expected a JSON object');
  const { keys = {}, renamed = {}, defaults } = reader;
  const given: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(json)) {
    const name = Object.hasOwn(renamed, key) ? renamed[key] : key;
    if (name in given) fail(`${key}: is given twice, as ${name} too`);
    if (value !== undefined) given[name] = value;
  }
  reader.prepare?.(given);
  const parsed = schema.extend(keys).safeParse({ ...defaults, ...withoutNulls(given, defaults) });
  if (!parsed.success) {
    const oldName = (key: string): string => Object.entries(renamed).find(([, to]) => to === key)?.[0] ?? key;
    return fail(
      parsed.error.issues.map(i => `${i.path.map(part => oldName(String(part))).join('.')}: ${i.message}`).join('; '),
    );
  }
  const c = parsed.data as HFConfig;
  checkQuantization(json, fail);
  checkKeys(given, new Set([...Object.keys(schema.shape), ...Object.keys(keys)]), source);
  const positions = c.max_position_embeddings as number;
  const ropes = ropesOf(c, positions, fail);
  const original = Math.min(
    ...ropes.map(({ scaling }) =>
      scaling?.rope_type === 'longrope' ? Number(scaling['original_max_position_embeddings']) : Infinity,
    ),
  );
  const eos = c.eos_token_id ?? [];
  const idOf = (id: unknown): number | null => specialId(id, c.vocab_size);
  const common: DecoderConfig = {
    ...plainSwitches,
    modelType: c.model_type,
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    layers: c.num_hidden_layers,
    heads: c.num_attention_heads,
    kvHeads: c.num_key_value_heads ?? c.num_attention_heads,
    headDim: c.head_dim ?? c.hidden_size / c.num_attention_heads,
    normEps: c.rms_norm_eps ?? 1e-6,
    ropes,
    maxPositions: Math.min(positions, original),
    windows: new Array<null>(c.num_hidden_layers).fill(null),
    tiedHead: c.tie_word_embeddings ?? false,
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    activation: c.hidden_act ?? 'silu',
    bosTokenId: idOf(c.bos_token_id),
    eosTokenIds: (Array.isArray(eos) ? eos : [eos]).filter(id => idOf(id) !== null),
    padTokenId: idOf(c.pad_token_id),
  };
  return checkedConfig(source, { ...common, ...reader.switches(c, common, fail) });
}

/** A key that is null stands for its default, where it has one. */
function withoutNulls(given: Record<string, unknown>, defaults: Readonly<Record<string, unknown>>): object {
  return Object.fromEntries(
    Object.entries(given).filter(([key, value]) => value !== null || !(key in defaults) || key === 'sliding_window'),
  );
}

/** Weights must be numbers as they are, or the int8 rows with scales of bitsandbytes, which weights.ts reads. */
export function checkQuantization(json: Readonly<Record<string, unknown>>, fail: Fail): void {
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

/**
 * The rotary embeddings of each layer. `rope_parameters` is transformers 5's spelling of `rope_theta` and
 * `rope_scaling` together, or of both for each type of layer; what stands inside comes first. The original length is
 * `positions`, and the factor what is between them, where scalings that need them do not say so.
 */
function ropesOf(c: HFConfig, positions: number, fail: Fail): RopeSettings[] {
  const key = c.rope_scaling ? 'rope_scaling' : 'rope_parameters';
  const inside: Record<string, unknown> = { ...c[key] };
  const byType = layerTypes.filter(type => type in inside);
  if (byType.length === 0) {
    const settings = ropeOf(c, inside, key, positions, fail);
    return new Array<RopeSettings>(c.num_hidden_layers).fill(settings);
  }
  const made = new Map<LayerType, RopeSettings>();
  const { layer_types: types } = c;
  if (!types) return fail(`${key}: has settings for types of layers, and there are no layer_types`);
  if (types.length !== c.num_hidden_layers)
    return fail(`layer_types: has ${types.length} entries for ${c.num_hidden_layers} layers`);
  return types.map(type => {
    const settings = inside[type];
    if (!isJsonObject(settings)) return fail(`${key}.${type}: expected an object, got ${JSON.stringify(settings)}`);
    const rope = made.get(type) ?? ropeOf(c, { ...settings }, `${key}.${type}`, positions, fail);
    made.set(type, rope);
    return rope;
  });
}

/** The rotary embeddings that `inside` (of `key`) and the plain keys of a configuration say. */
export function ropeOf(
  c: Partial<Pick<HFConfig, 'rope_theta' | 'partial_rotary_factor' | 'original_max_position_embeddings'>>,
  inside: Record<string, unknown>,
  key: string,
  positions: number,
  fail: Fail,
): RopeSettings {
  const theta = inside['rope_theta'] ?? c.rope_theta ?? 10000;
  if (typeof theta !== 'number' || !(theta > 0))
    return fail(`${key}.rope_theta: expected a positive number, got ${JSON.stringify(theta)}`);
  const fraction = inside['partial_rotary_factor'] ?? c.partial_rotary_factor ?? 1;
  if (typeof fraction !== 'number' || !(fraction > 0 && fraction <= 1))
    return fail(`${key}.partial_rotary_factor: expected a number from 0 to 1, got ${JSON.stringify(fraction)}`);
  const type = inside['rope_type'] ?? inside['type'] ?? 'default';
  if (typeof type !== 'string') return fail(`${key}.rope_type: expected a string, got ${JSON.stringify(type)}`);
  const originalKey = 'original_max_position_embeddings';
  if (['llama3', 'yarn', 'longrope'].includes(type))
    inside[originalKey] = c[originalKey] ?? inside[originalKey] ?? positions;
  if (['yarn', 'longrope'].includes(type)) inside['factor'] ??= positions / Number(inside[originalKey]);
  const { rope_theta: _theta, partial_rotary_factor: _fraction, ...settings } = inside;
  const isPlain = type === 'default' && Object.keys(settings).every(name => ['rope_type', 'type'].includes(name));
  const scaling: RopeScaling | null = isPlain ? null : { ...settings, rope_type: type };
  return { theta, scaling, fraction };
}

/**
 * The window of each layer: that of `layer_types` where it is given, else of layers that `slides` says. A window as
 * long as the context is none.
 */
export function windowsOf(
  c: HFConfig,
  { maxPositions, layers }: Pick<DecoderConfig, 'maxPositions' | 'layers'>,
  fail: Fail,
  slides: (layer: number) => boolean = () => false,
): (number | null)[] {
  const { layer_types: types } = c;
  const size = c.sliding_window ?? null;
  if (types && types.length !== layers) fail(`layer_types: has ${types.length} entries for ${layers} layers`);
  const list = Array.from({ length: layers }, (_, layer) =>
    types ? types[layer] === 'sliding_attention' : slides(layer),
  );
  if (list.includes(true) && size === null) fail('layer_types: has sliding_attention, and there is no sliding_window');
  if (list.includes(true) && c.use_sliding_window === false) fail('use_sliding_window: false, but layers slide');
  return list.map(sliding => (sliding && size !== null && size < maxPositions ? size : null));
}

/** Biases that a family always or never has. @throws FormatError where the file says otherwise */
export function fixedBiases(
  c: HFConfig,
  qkvBias: boolean,
  fail: Fail,
): Pick<DecoderConfig, 'qkvBias' | 'outputBias' | 'mlpBias'> {
  const { model_type: type, attention_bias: attention, mlp_bias: mlp } = c;
  if (typeof attention === 'boolean' && attention !== qkvBias)
    fail(`attention_bias: ${attention}, but a ${type} ${qkvBias ? 'always' : 'never'} has biases of q, k and v`);
  if (mlp) fail(`mlp_bias: true, but a ${type} never has biases in its feed-forward`);
  return { qkvBias, outputBias: false, mlpBias: false };
}

/** Biases of q, k, v and o together, by `attention_bias`. */
export const allAttentionBiases = ({
  attention_bias: bias,
}: HFConfig): Pick<DecoderConfig, 'qkvBias' | 'outputBias'> => ({ qkvBias: bias ?? false, outputBias: bias ?? false });
