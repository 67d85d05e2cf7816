// Random models of two stacks, a few thousand numbers each, made in memory as checkpoints and loaded as any other: a
// T5 of both kinds, a BART, a Whisper, a model of Marian.

import { memorySource } from '../../src/io/byteSource.js';
import { writeSafetensors, type SafetensorsEntry } from '../../src/io/safetensors.js';
import { loadModel, openCheckpoint } from '../../src/models/auto.js';
import type { Seq2SeqLM } from '../../src/models/seq2seqLM.js';
import { Random } from '../../src/tensor/threefry.js';
import { floats, marianBytes, settings } from './marianBytes.js';

const hidden = 8;
const inner = 12;
export const tinyVocabulary = 19;
export const tinyMels = 3;
/** Rows of a tiny Whisper's encoder; its features have twice as many steps. */
export const tinyFrames = 6;

type Settings = Record<string, unknown>;
export const kinds = ['t5', 't5-gated', 'bart', 'whisper', 'marian'] as const;
export type Kind = (typeof kinds)[number];

const bartSettings: Settings = {
  is_encoder_decoder: true,
  d_model: hidden,
  encoder_layers: 2,
  decoder_layers: 2,
  encoder_attention_heads: 2,
  decoder_attention_heads: 4,
  encoder_ffn_dim: inner,
  decoder_ffn_dim: inner,
  vocab_size: tinyVocabulary,
  pad_token_id: 0,
  decoder_start_token_id: 2,
  eos_token_id: 3,
};

export const settingsOf: Readonly<Record<Kind, Settings>> = {
  t5: {
    model_type: 't5',
    d_model: hidden,
    d_kv: 3,
    d_ff: inner,
    num_layers: 2,
    num_decoder_layers: 2,
    num_heads: 2,
    vocab_size: tinyVocabulary,
    relative_attention_num_buckets: 8,
    relative_attention_max_distance: 12,
    pad_token_id: 0,
    eos_token_id: 1,
    decoder_start_token_id: 0,
  },
  't5-gated': {},
  bart: { ...bartSettings, model_type: 'bart', max_position_embeddings: 24, scale_embedding: true },
  whisper: {
    ...bartSettings,
    model_type: 'whisper',
    num_mel_bins: tinyMels,
    max_source_positions: tinyFrames,
    max_target_positions: 20,
  },
  marian: {},
};
Object.assign(settingsOf['t5-gated'], settingsOf.t5, { feed_forward_proj: 'gated-gelu', tie_word_embeddings: false });

/** What Bergamot's models say of themselves. */
export const marianSettings: Settings = {
  'bert-train-type-embeddings': true,
  'dec-cell': 'ssru',
  'dec-depth': 2,
  'dim-emb': hidden,
  'dim-vocabs': [tinyVocabulary, tinyVocabulary],
  'enc-depth': 2,
  'input-types': [],
  'layer-normalization': false,
  'lemma-dim-emb': 0,
  'output-omit-bias': false,
  'right-left': false,
  'tied-embeddings-all': true,
  'transformer-decoder-autoreg': 'rnn',
  'transformer-dim-ffn': inner,
  'transformer-ffn-activation': 'relu',
  'transformer-ffn-depth': 2,
  'transformer-heads': 2,
  'transformer-no-projection': false,
  'transformer-pool': false,
  'transformer-postprocess': 'dan',
  'transformer-postprocess-emb': 'd',
  'transformer-postprocess-top': '',
  'transformer-preprocess': '',
  'transformer-tied-layers': [],
  'transformer-train-position-embeddings': false,
  type: 'transformer',
  ulr: false,
};

type Shapes = Record<string, number[]>;
const linear = (name: string, output: number, input: number, bias: boolean): Shapes => ({
  [`${name}.weight`]: [output, input],
  ...(bias ? { [`${name}.bias`]: [output] } : {}),
});
const norm = (name: string): Shapes => ({ [`${name}.weight`]: [hidden], [`${name}.bias`]: [hidden] });

function t5Shapes(gated: boolean): Shapes {
  const width = 6;
  const attention = (name: string): Shapes => ({
    ...Object.assign({}, ...['q', 'k', 'v'].map(part => linear(`${name}.${part}`, width, hidden, false))),
    ...linear(`${name}.o`, hidden, width, false),
  });
  const shapes: Shapes = {
    'shared.weight': [tinyVocabulary, hidden],
    ...(gated ? { 'lm_head.weight': [tinyVocabulary, hidden] } : {}),
  };
  for (const stack of ['encoder', 'decoder']) {
    shapes[`${stack}.final_layer_norm.weight`] = [hidden];
    shapes[`${stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`] = [8, 2];
    for (const block of [0, 1]) {
      const path = `${stack}.block.${block}.layer`;
      const mlp = stack === 'encoder' ? 1 : 2;
      for (let part = 0; part <= mlp; part++) shapes[`${path}.${part}.layer_norm.weight`] = [hidden];
      Object.assign(shapes, attention(`${path}.0.SelfAttention`));
      if (stack === 'decoder') Object.assign(shapes, attention(`${path}.1.EncDecAttention`));
      for (const name of gated ? ['wi_0', 'wi_1'] : ['wi'])
        Object.assign(shapes, linear(`${path}.${mlp}.DenseReluDense.${name}`, inner, hidden, false));
      Object.assign(shapes, linear(`${path}.${mlp}.DenseReluDense.wo`, hidden, inner, false));
    }
  }
  return shapes;
}

function bartShapes(whisper: boolean): Shapes {
  const shapes: Shapes = {
    [whisper ? 'model.decoder.embed_tokens.weight' : 'model.shared.weight']: [tinyVocabulary, hidden],
    ...(whisper ? {} : { final_logits_bias: [1, tinyVocabulary] }),
  };
  for (const stack of ['encoder', 'decoder']) {
    const path = `model.${stack}`;
    shapes[`${path}.embed_positions.weight`] = [whisper ? (stack === 'encoder' ? tinyFrames : 20) : 26, hidden];
    Object.assign(shapes, norm(whisper ? `${path}.layer_norm` : `${path}.layernorm_embedding`));
    for (const layer of [0, 1]) {
      for (const attention of stack === 'encoder' ? ['self_attn'] : ['self_attn', 'encoder_attn']) {
        for (const part of ['q_proj', 'k_proj', 'v_proj', 'out_proj'])
          Object.assign(
            shapes,
            linear(`${path}.layers.${layer}.${attention}.${part}`, hidden, hidden, !(whisper && part === 'k_proj')),
          );
        Object.assign(shapes, norm(`${path}.layers.${layer}.${attention}_layer_norm`));
      }
      Object.assign(shapes, linear(`${path}.layers.${layer}.fc1`, inner, hidden, true));
      Object.assign(shapes, linear(`${path}.layers.${layer}.fc2`, hidden, inner, true));
      Object.assign(shapes, norm(`${path}.layers.${layer}.final_layer_norm`));
    }
  }
  if (!whisper) return shapes;
  return {
    ...shapes,
    'model.encoder.conv1.weight': [hidden, tinyMels, 3],
    'model.encoder.conv1.bias': [hidden],
    'model.encoder.conv2.weight': [hidden, hidden, 3],
    'model.encoder.conv2.bias': [hidden],
  };
}

function marianShapes(): Shapes {
  const shapes: Shapes = { Wemb: [tinyVocabulary, hidden], decoder_ff_logit_out_b: [1, tinyVocabulary] };
  const normed = (name: string): Shapes => ({ [`${name}_ln_scale`]: [1, hidden], [`${name}_ln_bias`]: [1, hidden] });
  for (const layer of ['encoder_l1', 'encoder_l2', 'decoder_l1', 'decoder_l2']) {
    const decodes = layer.startsWith('decoder');
    const attention = `${layer}_${decodes ? 'context' : 'self'}`;
    for (const part of 'qkvo')
      Object.assign(shapes, { [`${attention}_W${part}`]: [hidden, hidden], [`${attention}_b${part}`]: [1, hidden] });
    Object.assign(shapes, normed(`${attention}_Wo`), normed(`${layer}_ffn_ffn`), {
      [`${layer}_ffn_W1`]: [hidden, inner],
      [`${layer}_ffn_b1`]: [1, inner],
      [`${layer}_ffn_W2`]: [inner, hidden],
      [`${layer}_ffn_b2`]: [1, hidden],
      [`${layer}_ffn_W1_QuantMultA`]: [1, 1],
    });
    if (!decodes) continue;
    Object.assign(shapes, normed(`${layer}_rnn_ffn`), {
      [`${layer}_rnn_W`]: [hidden, hidden],
      [`${layer}_rnn_Wf`]: [hidden, hidden],
      [`${layer}_rnn_bf`]: [1, hidden],
    });
  }
  return shapes;
}

const shapesOf = (kind: Kind): Shapes =>
  kind === 'marian'
    ? marianShapes()
    : kind.startsWith('t5')
      ? t5Shapes(kind === 't5-gated')
      : bartShapes(kind === 'whisper');

/** The tensors of a checkpoint, drawn from one stream in the order of their names. */
export function entriesOf(kind: Kind, seed = 1): SafetensorsEntry[] {
  const shapes = shapesOf(kind);
  const random = new Random(seed);
  return Object.entries(shapes)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, shape]) => {
      const isNorm = /norm[a-z_]*\.weight$|_ln_scale$/.test(name);
      const scale = isNorm
        ? 0.2
        : shape.length > 1 && !/embed|shared|bias|emb$|_b$|_b\w\d?$/.test(name)
          ? shape[1] ** -0.5
          : 0.7;
      const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => scale * random.normal());
      return { name, dtype: 'F32', shape, data: isNorm ? data.map(x => 1 + x) : data };
    });
}

/** The bytes of a binary model of marian. */
export function marianFile(given: Settings, entries: readonly SafetensorsEntry[] = entriesOf('marian')): Uint8Array {
  const yaml = Object.entries(given).map(([key, value]) =>
    Array.isArray(value) && value.length > 0
      ? `${key}:\n${value.map(item => `  - ${String(item)}\n`).join('')}`
      : `${key}: ${JSON.stringify(value)}\n`,
  );
  const items = entries.map(({ name, shape, data }) => floats(name, shape, [...(data as Float32Array)]));
  return marianBytes({ items: [...items, settings(yaml.join(''))] });
}

export interface TinySeq2SeqOptions {
  readonly dtype?: 'f32' | 'f64';
  readonly changed?: Settings;
  readonly entries?: readonly SafetensorsEntry[];
}

export async function tinySeq2Seq(
  kind: Kind,
  { dtype = 'f32', changed = {}, entries = entriesOf(kind) }: TinySeq2SeqOptions = {},
): Promise<Seq2SeqLM> {
  const checkpoint =
    kind === 'marian'
      ? await openCheckpoint(memorySource(marianFile({ ...marianSettings, ...changed }, entries), 'tiny.bin'))
      : await openCheckpoint(memorySource(writeSafetensors([...entries]), 'tiny.safetensors'), {
          ...settingsOf[kind],
          ...changed,
        });
  const task = kind === 'whisper' ? 'speechSeq2Seq' : 'seq2seqLM';
  return (await loadModel(checkpoint, task, { dtype, device: 'cpu' })) as Seq2SeqLM;
}
