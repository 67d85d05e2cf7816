// What a way of adapting a frozen model is to all that trains, measures, saves and runs it: edits of hidden states
// (reft/), and whatever else changes what a base computes without being part of it.

import type { Tokenizer } from '../io/tokenizer.js';
import type { CausalLM, ForwardOptions, ForwardOutput } from '../models/causalLM.js';
import type { SiteEdit } from '../models/patch.js';
import type { Sequence, SequenceLayout } from '../reft/layout.js';
import type { Tensor } from '../tensor/tensor.js';
import type { NamedTensor, TrainedTensor } from './parameterSet.js';

/** A base model. `causal: false` says that a token sees those after it, as in an encoder. */
export type AdaptedBase = CausalLM;

/** Dropout while training: a different mask for each step and part of an adapter. */
export interface TrainingMode {
  readonly seed: number;
  readonly step: number;
}

/** A base with something added that depends on where tokens lie. */
export interface AdaptedModel {
  readonly base: AdaptedBase;
  /** What is added for a window of tokens, as values for the base's forward. */
  edits(layout: SequenceLayout, training?: TrainingMode): readonly SiteEdit[];
  /** A forward of the base with that in place. */
  forward(options: Omit<ForwardOptions, 'edits'>, layout: SequenceLayout, training?: TrainingMode): ForwardOutput;
}

/** Where a sequence first differs from what the base computes. */
export interface FirstChange {
  /** The states of this layer, before its block or after it, are the first that may change; `embeddings`: at once. */
  readonly layer: number;
  readonly component: 'embeddings' | 'block_input' | 'block_output';
  /** The first token that is changed; the length of the sequence where none is. */
  readonly position: number;
}

export interface Adapter extends AdaptedModel {
  /** Needed by positions that look at the text of a prompt; a trainer with a tokenizer sets it. */
  tokenizer: Tokenizer | undefined;
  /** Off, the base's own results, bit for bit. */
  enabled: boolean;
  /** Numbers in its parameters, as the formulas have them. */
  readonly parameterCount: number;
  /** What is trained, in the order in which an optimizer is given it. */
  trained(): TrainedTensor[];
  /** Everything that decides the next step, trained or not, by name. */
  state(): NamedTensor[];
  /** Puts back a tensor of `state`. @throws RangeError for a name that it does not have */
  setState(name: string, value: Tensor): void;
  /** What else must be the same for a training run to go on, by name. */
  settings(): Readonly<Record<string, string>>;
  /** @throws RangeError for a sequence on which it cannot stand */
  check(sequence: Sequence): void;
  /** Whether it changes any token of a sequence, as it is switched now. */
  changes(sequence: Sequence): boolean;
  /**
   * Where a sequence first differs, whatever is switched off now: what lies before, in layers and in positions of a
   * causal base, may be computed once and kept. It does not depend on the sequence but for the position. Null: nothing
   * may be kept, for weights of the base are trained too.
   */
  firstChanged(sequence: Sequence): FirstChange | null;
  /** The adapter's files by name: the same adapter on the same base gives the same bytes. */
  toFiles(): Promise<Map<string, Uint8Array>>;
  /** What it is, in lines for people. */
  summary(): string;
}
