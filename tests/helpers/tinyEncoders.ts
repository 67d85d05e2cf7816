// Checkpoints of encoders with random weights, small enough to look at every site: names and shapes as the hub's files
// have them.

import { memorySource } from '../../src/io/byteSource.js';
import { writeSafetensors } from '../../src/io/safetensors.js';
import { loadModel, openCheckpoint } from '../../src/models/auto.js';
import type { Task } from '../../src/models/families/family.js';
import type { Model } from '../../src/models/model.js';
import { Random } from '../../src/tensor/threefry.js';

export type Shapes = Record<string, readonly number[]>;
export interface TinyCheckpoint {
  readonly config: Record<string, unknown>;
  readonly shapes: Shapes;
}

const [width, inner, vocabulary, positions, layers] = [12, 16, 20, 16, 2];

const layer = (name: string, [output, input]: readonly [number, number]): Shapes => ({
  [`${name}.weight`]: [output, input],
  [`${name}.bias`]: [output],
});
const norm = (name: string): Shapes => ({ [`${name}.weight`]: [width], [`${name}.bias`]: [width] });
const square = (name: string): Shapes => layer(name, [width, width]);
const blocks = (make: (block: number) => Shapes): Shapes =>
  Object.assign({}, ...Array.from({ length: layers }, (_, block) => make(block)));

const common = { vocab_size: vocabulary, max_position_embeddings: positions, pad_token_id: 0 };
const sizes = { hidden_size: width, intermediate_size: inner, num_hidden_layers: layers, num_attention_heads: 2 };

export function bertShapes(prefix: string, tokenTypes = 2): Shapes {
  return {
    [`${prefix}embeddings.word_embeddings.weight`]: [vocabulary, width],
    [`${prefix}embeddings.position_embeddings.weight`]: [positions, width],
    [`${prefix}embeddings.token_type_embeddings.weight`]: [tokenTypes, width],
    ...norm(`${prefix}embeddings.LayerNorm`),
    ...blocks(i => {
      const at = `${prefix}encoder.layer.${i}`;
      return {
        ...square(`${at}.attention.self.query`),
        ...square(`${at}.attention.self.key`),
        ...square(`${at}.attention.self.value`),
        ...square(`${at}.attention.output.dense`),
        ...norm(`${at}.attention.output.LayerNorm`),
        ...layer(`${at}.intermediate.dense`, [inner, width]),
        ...layer(`${at}.output.dense`, [width, inner]),
        ...norm(`${at}.output.LayerNorm`),
      };
    }),
  };
}

const vitBlock = (at: string): Shapes => ({
  ...norm(`${at}.layernorm_before`),
  ...square(`${at}.attention.attention.query`),
  ...square(`${at}.attention.attention.key`),
  ...square(`${at}.attention.attention.value`),
  ...square(`${at}.attention.output.dense`),
  ...norm(`${at}.layernorm_after`),
  ...layer(`${at}.intermediate.dense`, [inner, width]),
  ...layer(`${at}.output.dense`, [width, inner]),
});

const clipBlock = (at: string): Shapes => ({
  ...norm(`${at}.layer_norm1`),
  ...square(`${at}.self_attn.q_proj`),
  ...square(`${at}.self_attn.k_proj`),
  ...square(`${at}.self_attn.v_proj`),
  ...square(`${at}.self_attn.out_proj`),
  ...norm(`${at}.layer_norm2`),
  ...layer(`${at}.mlp.fc1`, [inner, width]),
  ...layer(`${at}.mlp.fc2`, [width, inner]),
});

const image = { image_size: 4, patch_size: 2, num_channels: 2 };
const patches = [width, 2, 2, 2] as const;

/** One of each family, with the heads of every task. */
export const tinyEncoders = {
  bert: {
    config: { model_type: 'bert', ...common, ...sizes },
    shapes: {
      ...bertShapes('bert.'),
      ...square('bert.pooler.dense'),
      ...layer('classifier', [2, width]),
      ...square('cls.predictions.transform.dense'),
      ...norm('cls.predictions.transform.LayerNorm'),
      'cls.predictions.bias': [vocabulary],
    },
  },
  roberta: {
    config: { model_type: 'roberta', ...common, ...sizes, pad_token_id: 1, type_vocab_size: 1, num_labels: 3 },
    shapes: {
      ...bertShapes('roberta.', 1),
      ...square('classifier.dense'),
      ...layer('classifier.out_proj', [3, width]),
      ...square('lm_head.dense'),
      ...norm('lm_head.layer_norm'),
      'lm_head.bias': [vocabulary],
    },
  },
  distilbert: {
    config: { model_type: 'distilbert', ...common, dim: width, hidden_dim: inner, n_layers: layers, n_heads: 2 },
    shapes: {
      'distilbert.embeddings.word_embeddings.weight': [vocabulary, width],
      'distilbert.embeddings.position_embeddings.weight': [positions, width],
      ...norm('distilbert.embeddings.LayerNorm'),
      ...blocks(i => {
        const at = `distilbert.transformer.layer.${i}`;
        return {
          ...square(`${at}.attention.q_lin`),
          ...square(`${at}.attention.k_lin`),
          ...square(`${at}.attention.v_lin`),
          ...square(`${at}.attention.out_lin`),
          ...norm(`${at}.sa_layer_norm`),
          ...layer(`${at}.ffn.lin1`, [inner, width]),
          ...layer(`${at}.ffn.lin2`, [width, inner]),
          ...norm(`${at}.output_layer_norm`),
        };
      }),
      ...square('pre_classifier'),
      ...layer('classifier', [2, width]),
      ...square('vocab_transform'),
      ...norm('vocab_layer_norm'),
      'vocab_projector.bias': [vocabulary],
    },
  },
  modernbert: {
    config: {
      model_type: 'modernbert',
      ...common,
      ...sizes,
      global_attn_every_n_layers: 2,
      local_attention: 2,
      global_rope_theta: 160000,
      local_rope_theta: 10000,
      torch_dtype: 'float32',
    },
    shapes: {
      'model.embeddings.tok_embeddings.weight': [vocabulary, width],
      'model.embeddings.norm.weight': [width],
      ...blocks(i => ({
        ...(i > 0 ? { [`model.layers.${i}.attn_norm.weight`]: [width] } : {}),
        [`model.layers.${i}.attn.Wqkv.weight`]: [3 * width, width],
        [`model.layers.${i}.attn.Wo.weight`]: [width, width],
        [`model.layers.${i}.mlp_norm.weight`]: [width],
        [`model.layers.${i}.mlp.Wi.weight`]: [2 * inner, width],
        [`model.layers.${i}.mlp.Wo.weight`]: [width, inner],
      })),
      'model.final_norm.weight': [width],
      'head.dense.weight': [width, width],
      'head.norm.weight': [width],
      ...layer('classifier', [2, width]),
      'decoder.bias': [vocabulary],
    },
  },
  vit: {
    config: { model_type: 'vit', ...sizes, ...image },
    shapes: {
      'vit.embeddings.cls_token': [1, 1, width],
      'vit.embeddings.position_embeddings': [1, 5, width],
      'vit.embeddings.patch_embeddings.projection.weight': patches,
      'vit.embeddings.patch_embeddings.projection.bias': [width],
      ...blocks(i => vitBlock(`vit.encoder.layer.${i}`)),
      ...norm('vit.layernorm'),
      ...square('vit.pooler.dense'),
      ...layer('classifier', [2, width]),
    },
  },
  clip: {
    config: {
      model_type: 'clip',
      projection_dim: 6,
      text_config: { ...common, ...sizes, eos_token_id: 2 },
      vision_config: { ...sizes, ...image },
    },
    shapes: {
      'text_model.embeddings.token_embedding.weight': [vocabulary, width],
      'text_model.embeddings.position_embedding.weight': [positions, width],
      ...blocks(i => clipBlock(`text_model.encoder.layers.${i}`)),
      ...norm('text_model.final_layer_norm'),
      'vision_model.embeddings.class_embedding': [width],
      'vision_model.embeddings.patch_embedding.weight': patches,
      'vision_model.embeddings.position_embedding.weight': [5, width],
      ...norm('vision_model.pre_layrnorm'),
      ...blocks(i => clipBlock(`vision_model.encoder.layers.${i}`)),
      ...norm('vision_model.post_layernorm'),
      'text_projection.weight': [6, width],
      'visual_projection.weight': [6, width],
      logit_scale: [],
    },
  },
} as const satisfies Record<string, TinyCheckpoint>;
export type TinyName = keyof typeof tinyEncoders;

/** The numbers of a tensor, by its name; near 1 where they scale a norm. */
export function numbersOf(name: string, shape: readonly number[]): Float32Array {
  const random = new Random(
    [...name].reduce((n, letter) => (n * 31 + letter.charCodeAt(0)) % 65521, 7),
    0,
  );
  const size = shape.reduce((a, b) => a * b, 1);
  const centre = /norm.*\.weight$/i.test(name) ? 1 : 0;
  return Float32Array.from({ length: size }, () => centre + 0.4 * random.normal());
}

export const checkpointBytes = (shapes: Shapes): Uint8Array =>
  writeSafetensors(
    Object.entries(shapes).map(([name, shape]) => ({
      name,
      dtype: 'F32' as const,
      shape,
      data: numbersOf(name, shape),
    })),
  );

/** A model of a checkpoint; f64 unless given. */
export async function loadTiny(
  { config, shapes }: TinyCheckpoint,
  task: Task,
  dtype: 'f32' | 'f64' = 'f64',
): Promise<Model> {
  const checkpoint = await openCheckpoint(memorySource(checkpointBytes(shapes), 'tiny'), config);
  return loadModel(checkpoint, task, { dtype, device: 'cpu' });
}
