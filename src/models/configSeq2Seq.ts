// The configuration of a model of two stacks: its decoder's with a head, its encoder's, and how decoding starts. What
// readers of such families have in common; what a key means is transformers' configuration of the family.

import { z } from 'zod';
import { FormatError } from '../io/errors.js';
import { isJsonObject } from '../io/strictJson.js';
import { checkedConfig, plainSwitches, specialId, type DecoderConfig } from './config.js';
import { checkQuantization, type Fail } from './configHF.js';
import { checkKeys } from './configKeys.js';
import type { BlockConfig } from './load.js';

/** A stack as its blocks and its embeddings are loaded. */
export type SideConfig = BlockConfig &
  Pick<DecoderConfig, 'embeddingScale' | 'learnedPositions' | 'maxPositions'> & {
    /** Positions are sines and cosines. */
    readonly sinusoids?: boolean;
  };

export interface Seq2SeqConfig extends DecoderConfig {
  readonly encoder: SideConfig;
  /** What stands in front of the labels, and of what is generated; -1: a row of zeros. */
  readonly decoderStartTokenId: number;
}

export const count = z
  .number()
  .int()
  .positive()
  .max(2 ** 31);
export const layerCount = count.max(1000);
const token = z.number().int().nullish();

/** Keys that all of these families have. */
export const seq2seqKeys = {
  model_type: z.string(),
  vocab_size: count,
  is_encoder_decoder: z.literal(true).nullish(),
  is_decoder: z.literal(false).nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  bos_token_id: token,
  pad_token_id: token,
  eos_token_id: z.union([z.number().int(), z.array(z.number().int())]).nullish(),
  decoder_start_token_id: token,
  quantization_config: z.looseObject({}).nullish(),
};

/** Those of BART and its kin. */
export const encoderDecoderKeys = {
  ...seq2seqKeys,
  d_model: count,
  encoder_layers: layerCount,
  encoder_attention_heads: count,
  encoder_ffn_dim: count,
  decoder_layers: layerCount,
  decoder_attention_heads: count,
  decoder_ffn_dim: count,
  activation_function: z.string().nullish(),
  scale_embedding: z.boolean().nullish(),
  num_hidden_layers: layerCount.nullish(),
};

/** Files of BART and its kin say how long the encoder is twice. */
export function checkedLength(
  { num_hidden_layers: all, encoder_layers: layers }: z.infer<z.ZodObject<typeof encoderDecoderKeys>>,
  fail: Fail,
): void {
  if (all !== undefined && all !== null && all !== layers)
    fail(`num_hidden_layers: ${all}, but encoder_layers is ${layers}`);
}

/** The keys of a config.json. @throws FormatError naming one that is missing, of another type, or not understood */
export function readKeys<Keys extends z.ZodRawShape>(
  json: unknown,
  source: string,
  keys: Keys,
): { c: z.infer<z.ZodObject<Keys>>; fail: Fail } {
  const fail: Fail = text => {
    throw new FormatError(source, text);
  };
  if (!isJsonObject(json)) return fail('expected a JSON object');
  const parsed = z.looseObject(keys).safeParse(json);
  if (!parsed.success) return fail(parsed.error.issues.map(i => `${i.path.join('.')}: ${i.message}`).join('; '));
  checkQuantization(json, fail);
  checkKeys(json, new Set(Object.keys(keys)), source);
  return { c: parsed.data as z.infer<z.ZodObject<Keys>>, fail };
}

/** What a family's reader says of one of its stacks. */
export type SideSettings = Pick<BlockConfig, 'hiddenSize' | 'intermediateSize' | 'layers' | 'heads' | 'normEps'> &
  Pick<SideConfig, 'activation' | 'maxPositions'> &
  Partial<SideConfig>;

/** A stack without rotary embeddings, windows or heads that share keys; biases everywhere unless it says otherwise. */
export const sideConfig = (settings: SideSettings): SideConfig => ({
  ...plainSwitches,
  kvHeads: settings.heads,
  headDim: settings.hiddenSize / settings.heads,
  windows: new Array<null>(settings.layers).fill(null),
  ropes: new Array<null>(settings.layers).fill(null),
  qkvBias: true,
  outputBias: true,
  mlpBias: true,
  ...settings,
});

/** The whole from its stacks; special ids are those of the vocabulary. */
export function seq2seqConfig(
  source: string,
  c: z.infer<z.ZodObject<typeof seq2seqKeys>>,
  sides: { readonly encoder: SideConfig; readonly decoder: SideConfig },
  settings: Partial<DecoderConfig> & { readonly padTokenId: number; readonly decoderStartTokenId: number },
): Seq2SeqConfig {
  const idOf = (id: unknown): number | null => specialId(id, c.vocab_size);
  const eos = c.eos_token_id ?? [];
  for (const key of ['pad_token_id', 'decoder_start_token_id'] as const) {
    const id = key === 'pad_token_id' ? settings.padTokenId : settings.decoderStartTokenId;
    if (idOf(id) === null)
      throw new FormatError(source, `${key}: ${id}, expected an id of the vocabulary of ${c.vocab_size}`);
  }
  const common: Omit<DecoderConfig, keyof Omit<SideConfig, 'sinusoids'>> = {
    modelType: c.model_type,
    vocabSize: c.vocab_size,
    tiedHead: c.tie_word_embeddings ?? true,
    logitsScale: 1,
    logitsSoftcap: null,
    bosTokenId: idOf(c.bos_token_id),
    eosTokenIds: (Array.isArray(eos) ? eos : [eos]).filter(id => idOf(id) !== null),
    padTokenId: null,
  };
  const decoder = { ...common, ...sides.decoder, ...settings };
  checkedConfig(source, { ...decoder, ...sides.encoder });
  return {
    ...checkedConfig(source, decoder),
    encoder: sides.encoder,
    decoderStartTokenId: settings.decoderStartTokenId,
  };
}
