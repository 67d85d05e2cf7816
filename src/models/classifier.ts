// An encoder with a head that classifies, or estimates numbers: of a text by its first token or the mean of all, of an
// image alike.

import { scope } from '../autograd/scope.js';
import { Linear } from '../nn/linear.js';
import type { Tensor } from '../tensor/tensor.js';
import type { EncoderConfig, LabelConfig, ProblemType } from './configEncoder.js';
import { EncoderModel, firstTokens, meanPool, type Encoder, type TextOptions } from './encoder.js';
import type { ImageConfig, ImageOptions } from './imageEncoder.js';
import { Head, labelLoss, type HeadForm } from './heads.js';
import type { Labels, Loss, ModelOutput, PassOptions } from './model.js';

/** What of a text's states a classification head reads. */
export type Pooling = 'first' | 'mean';

export interface ClassifierOutput extends ModelOutput {
  /** [B, labels] */
  readonly logits: Tensor;
}

export class Classifier<Options extends PassOptions, Config extends LabelConfig> extends EncoderModel<Options, Config> {
  readonly head: Head;
  readonly #pooling: Pooling;

  constructor(
    encoder: Encoder<Options>,
    head: Head,
    config: Config,
    name = 'model',
    { pooling = 'first' }: { readonly pooling?: Pooling } = {},
  ) {
    super(encoder, config, name);
    this.head = head;
    this.#pooling = pooling;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    yield* this.encoder.namedParameters();
    yield* this.head.namedParameters();
  }

  forward(options: Options): ClassifierOutput {
    const first = this.#pooling === 'first';
    const { states, tokens, hiddenStates, collected } = this.encode(options, first ? firstTokens : undefined);
    return {
      logits: scope(() => this.head.forward(first ? states : meanPool(states, tokens))),
      hiddenStates,
      collected,
    };
  }

  /**
   * The mean loss: of classes [B] (Int32Array, negative: none), of numbers [B, labels], or of several classes at once
   * [B, labels], as the configuration's `problem_type` says; see `problemOf` where it does not.
   */
  loss(options: Omit<Options, 'hiddenStates'>, labels: Labels): Loss {
    let labelled = 0;
    const loss = scope(() => {
      const made = labelLoss(this.forward(options as Options).logits, labels, this.config);
      ({ labelled } = made);
      return made.loss;
    });
    return { loss, labelled };
  }
}

export class SequenceClassifier extends Classifier<TextOptions, EncoderConfig> {}

export class ImageClassifier extends Classifier<ImageOptions, ImageConfig> {}

export interface NewHeadOptions {
  readonly labels: number;
  readonly problemType?: ProblemType;
  readonly pooling?: Pooling;
  readonly seed?: number;
}

/**
 * A classifier with a new head over an encoder that has none: a layer whose weights are drawn and trained, over frozen
 * ones that are the encoder's own.
 */
export function newClassifier(
  base: EncoderModel<TextOptions, EncoderConfig>,
  { labels, problemType, pooling = 'first', seed = 0 }: NewHeadOptions,
): SequenceClassifier {
  if (!(Number.isInteger(labels) && labels > 0))
    throw new RangeError(`labels: expected a whole number from 1, got ${labels}`);
  const { backend, dtype, config, name } = base;
  const out = Linear.create({ input: config.hiddenSize, output: labels, seed, backend, dtype });
  for (const tensor of out.parameters()) tensor.requireGrad();
  const form: HeadForm = { names: { out: 'classifier' } };
  const labelled = { ...config, labels, problemType: problemType ?? null };
  return new SequenceClassifier(base.encoder, new Head({ out }, form), labelled, name, { pooling });
}
