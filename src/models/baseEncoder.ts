// An encoder without a task: the states of its last block, a pooled state where the family has a pooler, and sentence
// embeddings.

import { scope } from '../autograd/scope.js';
import { noGrad } from '../autograd/tape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { EncoderConfig } from './configEncoder.js';
import { EncoderModel, firstTokens, meanPool, type Encoder, type TextOptions } from './encoder.js';
import type { Pooler } from './heads.js';
import type { Labels, Loss, ModelOutput, PassOptions } from './model.js';

export interface BaseOutput extends ModelOutput {
  /** [B, T, width], after the final norm where there is one; zeros at padding. */
  readonly lastHiddenState: Tensor;
  /** [B, width], where the family has a pooler. */
  readonly poolerOutput?: Tensor;
}

export class BaseEncoder<Options extends PassOptions, Config extends object> extends EncoderModel<Options, Config> {
  readonly pooler: Pooler | null;

  constructor(encoder: Encoder<Options>, pooler: Pooler | null, config: Config, name = 'model') {
    super(encoder, config, name);
    this.pooler = pooler;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    yield* this.encoder.namedParameters();
    if (this.pooler) yield* this.pooler.namedParameters();
  }

  forward(options: Options): BaseOutput {
    const { states, tokens, hiddenStates, collected } = this.encode(options);
    const [lastHiddenState, pooled] = scope(() => [tokens.spread(states), this.pooled(states, tokens)] as const);
    return { lastHiddenState, ...(pooled ? { poolerOutput: pooled } : {}), hiddenStates, collected };
  }

  private pooled(states: Tensor, tokens: Parameters<typeof firstTokens>[0]): Tensor | null {
    return this.pooler?.forward(states.takeRows(tokens.placesOf(firstTokens(tokens)))) ?? null;
  }

  loss(_options: Options, _labels: Labels): Loss {
    throw new RangeError(`${this.name}: a base model has no loss; it has states, of which you make one`);
  }
}

/** How token states become one for each text. */
export interface EmbedOptions {
  /** The mean over real tokens (default), or the first token's state. */
  readonly pooling?: 'mean' | 'first';
  /** To length 1. Default true, as sentence-transformers' models as a rule do. */
  readonly normalize?: boolean;
}

/** A base encoder of text, which gives sentence embeddings, too. */
export class TextEncoder extends BaseEncoder<TextOptions, EncoderConfig> {
  /** One embedding for each list of ids, [texts, width], computed at once: a text's ids as its tokenizer gives them. */
  embed(texts: readonly ArrayLike<number>[], { pooling = 'mean', normalize = true }: EmbedOptions = {}): Tensor {
    if (texts.length === 0) throw new RangeError('embed: there are no texts');
    const length = Math.max(...texts.map(ids => ids.length));
    const inputIds = new Int32Array(texts.length * length).fill(this.config.padTokenId ?? 0);
    const attentionMask = new Int32Array(inputIds.length);
    texts.forEach((ids, b) => {
      inputIds.set(Array.from(ids), b * length);
      attentionMask.fill(1, b * length, b * length + ids.length);
    });
    return noGrad(() =>
      scope(() => {
        const wanted = pooling === 'first' ? firstTokens : undefined;
        const { states, tokens } = this.encode({ inputIds, shape: [texts.length, length], attentionMask }, wanted);
        const pooled = wanted ? states : meanPool(states, tokens);
        return normalize ? pooled.div(pooled.square().sum(-1, { keepDims: true }).sqrt()) : pooled;
      }),
    );
  }
}
