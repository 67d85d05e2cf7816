// A language model that reads images: an encoder of images, a small network that brings its states to the width of the
// language model, and a decoder in which they stand in place of the image tokens' embeddings.

import { concat } from '../tensor/layout.js';
import { shownValue } from '../io/tokenIds.js';
import { activationNamed } from '../nn/activations.js';
import type { Linear } from '../nn/linear.js';
import { Tensor } from '../tensor/tensor.js';
import { CausalLM } from './causalLM.js';
import type { DecoderConfig } from './config.js';
import type { Encoded, Encoder } from './encoder.js';
import type { GenerationConfig } from './generationConfig.js';
import type { ImageConfig, ImageOptions } from './imageEncoder.js';
import type { ForwardOptions, ForwardOutput } from './model.js';
import type { StackSites } from './sites.js';
import type { Stack } from './stack.js';
import type { Tokens } from './tokens.js';

export interface ImageTextConfig extends DecoderConfig {
  readonly vision: ImageConfig;
  /** The id that stands where an image's states go, once for each. */
  readonly imageTokenId: number;
  /** Which hidden states of the encoder are read: 0 is what goes into its first block. */
  readonly featureLayer: number;
  /** The state of the class token is left out. */
  readonly dropsClassToken: boolean;
  readonly projectorActivation: string;
}

export interface ImageTextOptions extends ForwardOptions {
  /** [images, channels, height, width], in the order of their tokens; needed where ids have image tokens. */
  readonly pixelValues?: Tensor;
}

export interface ImageTextParts {
  readonly decoder: Stack;
  readonly lmHead: Linear | null;
  readonly vision: Encoder<ImageOptions>;
  readonly projector: readonly [Linear, Linear];
}

const projectorPath = 'multi_modal_projector';

export class ImageTextLM extends CausalLM {
  readonly vision: Encoder<ImageOptions>;
  readonly projector: readonly [Linear, Linear];
  readonly #config: ImageTextConfig;

  constructor(config: ImageTextConfig, parts: ImageTextParts, name?: string, generation?: GenerationConfig) {
    super(config, parts, name, generation);
    this.vision = parts.vision;
    this.projector = parts.projector;
    this.#config = config;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    yield* super.namedParameters();
    yield* this.vision.namedParameters();
    for (const [i, layer] of this.projector.entries())
      yield* layer.namedParameters(`${projectorPath}.linear_${i + 1}.`);
  }

  override get stacks(): readonly StackSites[] {
    return [this.decoder.sites, this.vision.stack.sites];
  }

  override forward(options: ImageTextOptions): ForwardOutput {
    const { pixelValues } = options;
    if (!pixelValues) return super.forward(options);
    if (!(pixelValues instanceof Tensor))
      throw new TypeError(`pixelValues: expected a tensor, got ${shownValue(pixelValues)}`);
    const { edits, patches, collect, onSite, recompute } = options;
    const passed = Object.entries({ edits, patches, collect, onSite, recompute }).filter(([, v]) => v !== undefined);
    // States of every block, whose one that is read is chosen below.
    const encoded = this.vision.encode({ pixelValues, ...Object.fromEntries(passed), hiddenStates: true });
    const output = super.forward({ ...options, images: this.project(encoded) } as ForwardOptions);
    return { ...output, collected: new Map([...output.collected, ...encoded.collected]) };
  }

  /** What stands in place of the image tokens of all images, [images * tokens, hidden]. */
  private project({ hiddenStates }: Encoded): Tensor {
    const { featureLayer, dropsClassToken, projectorActivation } = this.#config;
    const states = hiddenStates[featureLayer];
    const [images, count, width] = states.shape;
    const patches = dropsClassToken ? states.slice(1, 1, count) : states;
    const [first, second] = this.projector;
    const hidden = activationNamed(projectorActivation)(
      first.forward(patches.reshape([images * patches.shape[1], width])),
    );
    return second.forward(hidden);
  }

  protected override embed(options: ForwardOptions, tokens: Tokens, positions: Int32Array): Tensor {
    const { images } = options as ForwardOptions & { readonly images?: Tensor };
    const h = super.embed(options, tokens, positions);
    const ids = tokens.of(options.inputIds);
    const { imageTokenId } = this.#config;
    const wanted = ids.reduce((n, id) => n + Number(id === imageTokenId), 0);
    const given = images?.shape[0] ?? 0;
    if (wanted !== given)
      throw new RangeError(
        `inputIds: have ${wanted} image tokens (${imageTokenId}), and pixelValues make ${given} states for them`,
      );
    if (!images) return h;
    let next = ids.length;
    const order = ids.map((id, row) => (id === imageTokenId ? next++ : row));
    return concat([h, images], 0).takeRows(order);
  }
}
