// Whisper: an encoder of features [B, mels, T] behind two convolutions along time, a decoder of text; norms before each
// part, keys without a bias. Turning sound into features is not done here. Source: transformers,
// configuration_whisper.py.

import { z } from 'zod';
import { conv1d } from '../../nn/conv.js';
import { Module } from '../../nn/module.js';
import { formatShape, type Shape } from '../../tensor/shape.js';
import type { Tensor } from '../../tensor/tensor.js';
import {
  checkedLength,
  count,
  encoderDecoderKeys,
  readKeys,
  seq2seqConfig,
  sideConfig,
  type Seq2SeqConfig,
  type SideConfig,
} from '../configSeq2Seq.js';
import { loadSide, loadWords, namesOfBoth, type Seq2SeqNames } from '../loadSeq2Seq.js';
import { Seq2SeqLM, type Stem } from '../seq2seqLM.js';
import type { WeightLoader } from '../weights.js';
import { defineFamily, type ModelNames } from './family.js';

interface WhisperConfig extends Seq2SeqConfig {
  readonly mels: number;
}

const keys = {
  ...encoderDecoderKeys,
  num_mel_bins: count.nullish(),
  max_source_positions: count.nullish(),
  max_target_positions: count.nullish(),
  // Of classification, which has a head of its own.
  use_weighted_layer_sum: z.literal(false).nullish(),
  classifier_proj_size: count.nullish(),
  // Of timestamps, which generation does not give.
  median_filter_width: count.nullish(),
  // Prompts of the decoder, which its caller gives.
  forced_decoder_ids: z.unknown().optional(),
};

function fromHF(json: unknown, source: string): WhisperConfig {
  const { c, fail } = readKeys(json, source, keys);
  checkedLength(c, fail);
  const side = (stack: 'encoder' | 'decoder', positions: number): SideConfig =>
    sideConfig({
      hiddenSize: c.d_model,
      intermediateSize: c[`${stack}_ffn_dim`],
      layers: c[`${stack}_layers`],
      heads: c[`${stack}_attention_heads`],
      norm: 'layer',
      normEps: 1e-5,
      activation: c.activation_function ?? 'gelu',
      causal: stack === 'decoder',
      unbiased: ['k', 'crossK'],
      // `scale_embedding` is read, and changes nothing in transformers either.
      learnedPositions: { rows: positions, offset: 0 },
      maxPositions: positions,
    });
  const sides = {
    encoder: side('encoder', c.max_source_positions ?? 1500),
    decoder: side('decoder', c.max_target_positions ?? 448),
  };
  const padTokenId = c.pad_token_id ?? 50256;
  return {
    ...seq2seqConfig(source, c, sides, { padTokenId, decoderStartTokenId: c.decoder_start_token_id ?? 50257 }),
    mels: c.num_mel_bins ?? 80,
  };
}

function side(stack: 'encoder' | 'decoder'): ModelNames {
  const path = `model.${stack}`;
  const cross = {
    crossNorm: 'encoder_attn_layer_norm',
    crossQ: 'encoder_attn.q_proj',
    crossK: 'encoder_attn.k_proj',
    crossV: 'encoder_attn.v_proj',
    crossO: 'encoder_attn.out_proj',
  };
  return {
    prefix: 'model.',
    embeddings:
      stack === 'encoder' ? {} : { word: 'model.decoder.embed_tokens', position: 'model.decoder.embed_positions' },
    blocks: `${path}.layers`,
    roles: {
      attentionNorm: 'self_attn_layer_norm',
      q: 'self_attn.q_proj',
      k: 'self_attn.k_proj',
      v: 'self_attn.v_proj',
      o: 'self_attn.out_proj',
      ...(stack === 'encoder' ? {} : cross),
      mlpNorm: 'final_layer_norm',
      up: 'fc1',
      down: 'fc2',
    },
    norm: `${path}.layer_norm`,
    ...(stack === 'encoder' ? {} : { head: 'proj_out' }),
  };
}

const names: Seq2SeqNames = {
  encoder: side('encoder'),
  decoder: side('decoder'),
  words: ['model.decoder.embed_tokens'],
};

/** Two convolutions along time, the second one over every other step, and the table of positions. */
class AudioStem extends Module implements Stem {
  readonly tensors: Readonly<Record<string, Tensor>>;

  /** By their names in the checkpoint. */
  constructor(tensors: Readonly<Record<string, Tensor>>) {
    super();
    this.tensors = tensors;
  }

  static async load(weights: WeightLoader, { mels, hiddenSize, encoder }: WhisperConfig): Promise<AudioStem> {
    const shapes: Readonly<Record<string, Shape>> = {
      'conv1.weight': [hiddenSize, mels, 3],
      'conv1.bias': [hiddenSize],
      'conv2.weight': [hiddenSize, hiddenSize, 3],
      'conv2.bias': [hiddenSize],
      'embed_positions.weight': [encoder.maxPositions, hiddenSize],
    };
    const tensors: Record<string, Tensor> = {};
    for (const [name, shape] of Object.entries(shapes))
      tensors[name] = await weights.load(`model.encoder.${name}`, shape);
    return new AudioStem(tensors);
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    for (const [name, tensor] of Object.entries(this.tensors)) yield [`model.encoder.${name}`, tensor];
  }

  shapeOf(features: Tensor | undefined): Shape {
    const mels = this.tensors['conv1.weight'].shape[1];
    const steps = this.tensors['embed_positions.weight'].shape[0];
    const got = features ? formatShape(features.shape) : 'none';
    if (features?.rank !== 3 || features.shape[1] !== mels || features.shape[2] !== 2 * steps)
      throw new RangeError(`inputFeatures: expected a tensor [B,${mels},${2 * steps}], got ${got}`);
    return [features.shape[0], steps];
  }

  forward(features: Tensor): Tensor {
    const { tensors } = this;
    const options = { padding: 1, activation: 'gelu' };
    const h = conv1d(features.transpose(1, 2), tensors['conv1.weight'], tensors['conv1.bias'], options);
    return conv1d(h, tensors['conv2.weight'], tensors['conv2.bias'], { ...options, stride: 2 }).add(
      tensors['embed_positions.weight'],
    );
  }
}

export const whisper = defineFamily<WhisperConfig>({
  name: 'whisper',
  modelTypes: ['whisper'],
  names: namesOfBoth(names),
  fromHF,
  tasks: {
    speechSeq2Seq: async ({ config, weights, name, generation }) => {
      const stem = await AudioStem.load(weights, config);
      const encoder = await loadSide(weights, config.encoder, names.encoder, { stack: 'encoder' }, null);
      const { word, lmHead } = await loadWords(weights, config, names);
      const sites = { stack: 'decoder', reads: 'encoder' };
      const decoder = await loadSide(weights, config, names.decoder, sites, word);
      weights.checkAllRead();
      return new Seq2SeqLM(config, { stem, encoder, decoder, lmHead }, name, generation);
    },
  },
});
