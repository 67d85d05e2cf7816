// An encoder with a head that predicts its own tokens, of which some are masked.

import { scope } from '../autograd/scope.js';
import { checkLabels } from '../io/tokenIds.js';
import { crossEntropy } from '../nn/crossEntropy.js';
import { formatShape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { EncoderConfig } from './configEncoder.js';
import { EncoderModel, type Encoder, type TextOptions } from './encoder.js';
import type { Head } from './heads.js';
import { checkRows, type ForwardOutput, type Loss } from './model.js';

export interface MaskedOptions extends TextOptions {
  /** Tokens b * T + t whose logits are wanted; default all. */
  readonly logitsAt?: Int32Array;
}

export class MaskedLM extends EncoderModel<TextOptions, EncoderConfig> {
  readonly head: Head;

  constructor(encoder: Encoder<TextOptions>, head: Head, config: EncoderConfig, name = 'model') {
    super(encoder, config, name);
    this.head = head;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    yield* this.encoder.namedParameters();
    yield* this.head.namedParameters();
  }

  forward({ logitsAt, ...options }: MaskedOptions): ForwardOutput {
    if (logitsAt) checkRows(logitsAt, options.inputIds.length);
    const { states, tokens, hiddenStates, collected } = this.encode(options, logitsAt && (() => logitsAt));
    const logits = scope(() => {
      const computed = this.head.forward(states);
      return logitsAt ? computed : tokens.spread(computed);
    });
    return { logits, hiddenStates, collected };
  }

  /** Mean cross-entropy over the labels [B, T] that are not negative, each of its own token; others cost nothing. */
  loss(options: Omit<MaskedOptions, 'logitsAt' | 'hiddenStates'>, labels: Int32Array): Loss {
    checkLabels('labels', labels);
    const { inputIds, shape } = options;
    if (labels.length !== inputIds.length)
      throw new RangeError(`labels: expected ${inputIds.length} for ${formatShape(shape)}, got ${labels.length}`);
    const rows = Int32Array.from(labels.keys()).filter(token => labels[token] >= 0);
    if (rows.length === 0) throw new RangeError('labels: no token has a label');
    const targets = rows.map(token => labels[token]);
    return {
      loss: scope(() => crossEntropy(this.forward({ ...options, logitsAt: rows }).logits, targets).mean()),
      labelled: rows.length,
    };
  }
}
