// Images as the first states of a stack: a state for each patch, a class token in front, learned positions. Images come
// as tensors of numbers that are scaled already; reading files is not done here.

import type { Backend } from '../backends/backend.js';
import { patchEmbedding } from '../nn/conv.js';
import { Module } from '../nn/module.js';
import { concat } from '../tensor/layout.js';
import { formatShape, sameShape, type Shape } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';
import { shownValue } from '../io/tokenIds.js';
import type { Norm } from './block.js';
import type { ModelConfig, StackConfig } from './config.js';
import type { LabelConfig } from './configEncoder.js';
import { Encoder, type EncoderInput, type EncoderStart } from './encoder.js';
import type { ModelNames } from './families/family.js';
import { loadBlocks, loadNorm, sizesOf, type BlockConfig } from './load.js';
import type { PassOptions } from './model.js';
import { moduleSites } from './moduleSites.js';
import type { Component } from './sites.js';
import { Stack, type StackStart } from './stack.js';
import { Tokens } from './tokens.js';
import type { WeightLoader } from './weights.js';

/** An encoder of images. */
export interface ImageConfig extends StackConfig, ModelConfig, LabelConfig, BlockConfig {
  /** Height and width in pixels. */
  readonly imageSize: readonly [number, number];
  readonly patchSize: readonly [number, number];
  readonly channels: number;
  readonly components: readonly Component[];
}

/** What encoders of images take. */
export interface ImageOptions extends PassOptions {
  /** [B, channels, height, width], scaled as the model was trained. */
  readonly pixelValues: Tensor;
  /** As of text: states to start from. */
  readonly from?: StackStart;
}

/** Whole names of tensors, and of how many sides each is where checkpoints have some of length 1 in front. */
export interface ImageNames {
  readonly patches: string;
  readonly patchBias: boolean;
  readonly classToken: readonly [name: string, rank: number];
  readonly positions: readonly [name: string, rank: number];
  /** A norm of the first states. */
  readonly norm?: string;
}

interface ImageParts {
  /** [width, channels, height, width of a patch] */
  readonly patches: Tensor;
  readonly patchBias: Tensor | null;
  readonly classToken: Tensor;
  readonly positions: Tensor;
  readonly norm: Norm | null;
}

export class ImageInput extends Module implements EncoderInput<ImageOptions> {
  readonly parts: ImageParts;
  readonly #names: ImageNames;
  readonly #config: ImageConfig;

  constructor(parts: ImageParts, names: ImageNames, config: ImageConfig) {
    super();
    this.parts = parts;
    this.#names = names;
    this.#config = config;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    const { patches, patchBias, classToken, positions, norm } = this.parts;
    const names = this.#names;
    yield [`${names.patches}.weight`, patches];
    if (patchBias) yield [`${names.patches}.bias`, patchBias];
    yield [names.classToken[0], classToken];
    yield [names.positions[0], positions];
    if (norm) yield* norm.namedParameters(`${names.norm}.`);
  }

  get weight(): Tensor {
    return this.parts.patches;
  }
  private get backend(): Backend {
    return this.weight.backend;
  }

  start({ pixelValues, from }: ImageOptions): EncoderStart {
    const { channels, imageSize } = this.#config;
    if (!(pixelValues instanceof Tensor))
      throw new TypeError(`pixelValues: expected a tensor, got ${shownValue(pixelValues)}`);
    const [batch] = pixelValues.shape;
    if (pixelValues.rank !== 4 || !sameShape(pixelValues.shape.slice(1), [channels, ...imageSize]))
      throw new RangeError(
        `pixelValues: expected [images, ${[channels, ...imageSize].join(', ')}], got ${formatShape(pixelValues.shape)}`,
      );
    if (pixelValues.dtype !== this.weight.dtype)
      throw new RangeError(`pixelValues: expected ${this.weight.dtype}, got ${pixelValues.dtype}`);
    const shape = [batch, tokensOf(this.#config)];
    const tokens = Tokens.of(shape, undefined, undefined, this.backend);
    return { tokens, positions: tokens.defaultPositions(), embed: () => this.embed(pixelValues), from };
  }

  private embed(pixelValues: Tensor): Tensor {
    const { patches, patchBias, classToken, positions, norm } = this.parts;
    const states = patchEmbedding(pixelValues, patches, patchBias);
    const [batch, , width] = states.shape;
    const first = classToken.reshape([1, 1, width]).expand([batch, 1, width]);
    const count = tokensOf(this.#config);
    const placed = concat([first, states], 1).add(positions.reshape([1, count, width]));
    const packed = placed.reshape([batch * count, width]);
    return norm ? norm.forward(packed) : packed;
  }
}

/** The class token and the patches of an image. */
const tokensOf = ({ imageSize, patchSize }: Pick<ImageConfig, 'imageSize' | 'patchSize'>): number =>
  1 + (imageSize[0] / patchSize[0]) * (imageSize[1] / patchSize[1]);

const sided = (dims: Shape, rank: number): Shape => [...new Array<number>(rank - dims.length).fill(1), ...dims];

/** An encoder of images from a checkpoint; `stack`: what sites call it in a model of several. */
export async function loadImageEncoder(
  config: ImageConfig,
  names: Pick<ModelNames, 'blocks' | 'roles' | 'norm' | 'modules' | 'moduleBlocks'>,
  image: ImageNames,
  weights: WeightLoader,
  stack?: string,
): Promise<Encoder<ImageOptions>> {
  const { hiddenSize, channels, patchSize, components } = config;
  const [classToken, positions] = [image.classToken, image.positions];
  const input = new ImageInput(
    {
      patches: await weights.load(`${image.patches}.weight`, [hiddenSize, channels, ...patchSize]),
      patchBias: image.patchBias ? await weights.load(`${image.patches}.bias`, [hiddenSize]) : null,
      classToken: await weights.load(classToken[0], sided([hiddenSize], classToken[1])),
      positions: await weights.load(positions[0], sided([tokensOf(config), hiddenSize], positions[1])),
      norm: image.norm === undefined ? null : await loadNorm(weights, image.norm, hiddenSize, config),
    },
    image,
    config,
  );
  const { blocks, norm } = names;
  const sites = { ...sizesOf(config), components, modules: moduleSites({ ...names, embeddings: {} }) };
  return new Encoder(
    input,
    new Stack({
      embeddings: null,
      blocks: await loadBlocks(weights, config, names),
      norm: norm === undefined ? null : await loadNorm(weights, norm, hiddenSize, config),
      names: { blocks, ...(norm === undefined ? {} : { norm }) },
      sites: stack === undefined ? sites : { ...sites, stack },
      config,
      lastBeforeNorm: true,
    }),
  );
}
