// CLIP: an encoder of text and one of images whose pooled states are projected into one space, where their cosines say
// which text belongs to which image.

import type { Backend } from '../backends/backend.js';
import { scope } from '../autograd/scope.js';
import { crossEntropy } from '../nn/crossEntropy.js';
import type { Linear } from '../nn/linear.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Norm } from './block.js';
import type { ModelConfig } from './config.js';
import type { EncoderConfig } from './configEncoder.js';
import { firstTokens, refuseOptions, type Encoded, type Encoder, type TextOptions } from './encoder.js';
import type { ImageConfig, ImageOptions } from './imageEncoder.js';
import { Model, type Labels, type Loss, type ModelOutput, type PassOptions } from './model.js';
import type { ModelSites } from './sites.js';
import type { Tokens } from './tokens.js';

export interface ClipConfig extends ModelConfig {
  readonly text: EncoderConfig;
  readonly vision: ImageConfig;
  readonly projectionDim: number;
  /** What ends a text, and so stands for it. Null: its largest id, as in models whose files say 2. */
  readonly endTokenId: number | null;
}

export type ClipOptions = Omit<TextOptions, 'from' | 'tokenTypeIds'> & Pick<ImageOptions, 'pixelValues'>;

export interface ClipOutput extends ModelOutput {
  /** [texts, projection], of length 1. */
  readonly textEmbeds: Tensor;
  /** [images, projection], of length 1. */
  readonly imageEmbeds: Tensor;
  /** [texts, images] */
  readonly logitsPerText: Tensor;
  /** [images, texts] */
  readonly logitsPerImage: Tensor;
  /** Each stack's, where they are asked for; `hiddenStates` is empty. */
  readonly textHiddenStates: readonly Tensor[];
  readonly visionHiddenStates: readonly Tensor[];
}

export interface ClipParts {
  readonly text: Encoder<TextOptions>;
  readonly vision: Encoder<ImageOptions>;
  /** On the state of an image's class token. */
  readonly visionNorm: Norm;
  readonly textProjection: Linear;
  readonly visualProjection: Linear;
  /** [], a logarithm. */
  readonly logitScale: Tensor;
}

export class ClipModel extends Model {
  readonly parts: ClipParts;
  readonly causal: boolean = false;
  readonly #config: ClipConfig;

  constructor(parts: ClipParts, config: ClipConfig, name = 'model') {
    super(name);
    this.parts = parts;
    this.#config = config;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    const { text, vision, visionNorm, textProjection, visualProjection, logitScale } = this.parts;
    yield* text.namedParameters();
    yield* vision.namedParameters();
    yield* visionNorm.namedParameters('vision_model.post_layernorm.');
    yield* textProjection.namedParameters('text_projection.');
    yield* visualProjection.namedParameters('visual_projection.');
    yield ['logit_scale', logitScale];
  }

  get config(): ClipConfig {
    return this.#config;
  }
  get stacks(): ModelSites {
    return [this.parts.text.stack.sites, this.parts.vision.stack.sites];
  }
  get backend(): Backend {
    return this.parts.text.input.weight.backend;
  }
  get dtype(): 'f32' | 'f64' {
    return this.parts.text.input.weight.dtype as 'f32' | 'f64';
  }

  forward(options: ClipOptions): ClipOutput {
    refuseOptions(options, ['from', 'tokenTypeIds'], 'a clip');
    this.checkSites(options);
    const { pixelValues, ...rest } = options;
    const { recompute, edits, patches, collect, onSite, hiddenStates } = options;
    const shared: PassOptions = { recompute, edits, patches, collect, onSite, hiddenStates } as PassOptions;
    const text = this.encodeText(rest);
    const vision = this.encodeImages({ ...shared, pixelValues });
    const made = scope(() => {
      const [textEmbeds, imageEmbeds] = [this.projectText(text.states), this.projectImages(vision.states)];
      const logitsPerText = textEmbeds.matmulT(imageEmbeds).mul(this.parts.logitScale.exp());
      return { textEmbeds, imageEmbeds, logitsPerText, logitsPerImage: logitsPerText.transpose(0, 1) };
    });
    return {
      ...made,
      hiddenStates: [],
      textHiddenStates: text.hiddenStates,
      visionHiddenStates: vision.hiddenStates,
      collected: new Map([...text.collected, ...vision.collected]),
    };
  }

  /** The embeddings of texts alone, [texts, projection], of length 1. */
  embedTexts(options: Omit<ClipOptions, 'pixelValues'>): Tensor {
    this.checkSites(options);
    return scope(() => this.projectText(this.encodeText(options).states));
  }

  /** The embeddings of images alone, [images, projection], of length 1. */
  embedImages(options: ImageOptions): Tensor {
    this.checkSites(options);
    return scope(() => this.projectImages(this.encodeImages(options).states));
  }

  /** The states of the tokens that end texts. */
  private encodeText(options: Omit<ClipOptions, 'pixelValues'>): Encoded {
    return this.parts.text.encode(options, tokens => lastTokens(options.inputIds, tokens, this.#config.endTokenId));
  }

  /** The states of class tokens. */
  private encodeImages(options: ImageOptions): Encoded {
    return this.parts.vision.encode(options, firstTokens);
  }

  private projectText = (states: Tensor): Tensor => unit(this.parts.textProjection.forward(states));
  private projectImages = (states: Tensor): Tensor =>
    unit(this.parts.visualProjection.forward(this.parts.visionNorm.forward(states)));

  /**
   * The mean of two cross-entropies: which image is a text's, and which text an image's. `labels`: the image of each
   * text, each image once; 0, 1, 2, .. where texts and images come in one order.
   */
  loss(options: ClipOptions, labels: Labels): Loss {
    const count = labels.length;
    const textOf = new Int32Array(count).fill(-1);
    labels.forEach((image, text) => {
      if (!(Number.isInteger(image) && image >= 0 && image < count && textOf[image] < 0))
        throw new RangeError(`labels: expected each image from 0 to ${count - 1} once, got ${image} for text ${text}`);
      textOf[image] = text;
    });
    const loss = scope(() => {
      const { logitsPerText, logitsPerImage } = this.forward(options);
      const [texts, images] = logitsPerText.shape;
      if (texts !== count || images !== count)
        throw new RangeError(`labels: got ${count} for ${texts} texts and ${images} images`);
      const sum = crossEntropy(logitsPerText, Int32Array.from(labels)).add(crossEntropy(logitsPerImage, textOf));
      return sum.mean().div(2);
    });
    return { loss, labelled: count };
  }
}

const unit = (x: Tensor): Tensor => x.div(x.square().sum(-1, { keepDims: true }).sqrt());

/** The token b * T + t that stands for each text: its first end token, or its first largest id. */
function lastTokens(ids: Int32Array, tokens: Tokens, end: number | null): Int32Array {
  const [, length] = tokens.shape;
  const { keyEnd } = tokens.padding;
  return firstTokens(tokens).map((first, b) => {
    const row = ids.subarray(first, b * length + keyEnd[b]);
    const place = end === null ? row.indexOf(Math.max(...row)) : row.indexOf(end);
    if (place < 0) throw new RangeError(`inputIds: row ${b} has no end token ${end}, which stands for its text`);
    return first + place;
  });
}
