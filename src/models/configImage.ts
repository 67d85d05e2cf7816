// The configuration of an encoder of images from a config.json, or from a part of one.

import { z } from 'zod';
import { checkedConfig, plainSwitches } from './config.js';
import { count, labelKeys, labelsOf, positive, readKeys } from './configEncoder.js';
import type { ImageConfig } from './imageEncoder.js';
import { blockComponents } from './sites.js';

/** Height and width: one number for both, or two. */
const sides = z.union([count, z.tuple([count, count])]);
const both = (given: number | readonly [number, number]): readonly [number, number] =>
  typeof given === 'number' ? [given, given] : given;

export const imageKeys = {
  model_type: z.string(),
  hidden_size: count,
  num_hidden_layers: count.max(1000),
  num_attention_heads: count,
  intermediate_size: count,
  hidden_act: z.string(),
  layer_norm_eps: positive,
  image_size: sides,
  patch_size: sides,
  num_channels: count.default(3),
  ...labelKeys,
};

/** A configuration with the keys of `imageKeys`; `more` has those of a family alone. */
export function readImageConfig<Shape extends z.ZodRawShape>(
  json: unknown,
  source: string,
  more: Shape,
): { config: ImageConfig; c: z.infer<z.ZodObject<Shape>> } {
  const read = readKeys(json, source, { ...imageKeys, ...more });
  const c = read.c as unknown as z.infer<z.ZodObject<typeof imageKeys>>;
  const [imageSize, patchSize] = [both(c.image_size), both(c.patch_size)];
  if (imageSize.some((side, i) => side % patchSize[i] !== 0))
    read.fail(`image_size: ${imageSize.join(' x ')} is not made of whole patches of ${patchSize.join(' x ')}`);
  const layers = c.num_hidden_layers;
  const config = checkedConfig(source, {
    ...plainSwitches,
    causal: false,
    norm: 'layer' as const,
    modelType: c.model_type,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    layers,
    heads: c.num_attention_heads,
    kvHeads: c.num_attention_heads,
    headDim: c.hidden_size / c.num_attention_heads,
    windows: new Array<null>(layers).fill(null),
    ropes: new Array<null>(layers).fill(null),
    activation: c.hidden_act,
    normEps: c.layer_norm_eps,
    qkvBias: true,
    outputBias: true,
    mlpBias: true,
    imageSize,
    patchSize,
    channels: c.num_channels,
    components: ['embeddings', ...blockComponents, 'final_norm'] as const,
    ...labelsOf(c),
  });
  return { config, c: read.c as unknown as z.infer<z.ZodObject<Shape>> };
}
