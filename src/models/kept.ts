// What a forward pass keeps of its tokens for later ones, as a run asks for it: keys and values of attention, those of
// an encoder, states of recurrences. cache.ts keeps them for one batch, generation/batchCache.ts for a batch whose rows
// come and go.

import type { Tensor } from '../tensor/tensor.js';

export interface LayerCache {
  readonly keys: Tensor;
  readonly values: Tensor;
}

export interface Kept {
  /** Columns of the batch that are kept: keys lie at [B, length + T]. */
  readonly length: number;
  /** Only read: what a pass computes is not kept. */
  readonly shared: boolean;
  /** Where rows of the batch are of different lengths: the tokens kept of each. A pass then has one token a row. */
  readonly rowLengths?: Int32Array | undefined;
  /** Keys and values [B, KV, length + T, D] of `layer` with the new ones [B, KV, T, D] at the end. */
  extend(layer: number, keys: Tensor, values: Tensor): LayerCache;
  /** Keys and values of an encoder, packed [M, heads, D]: computed once. */
  across(layer: number, compute: () => LayerCache): LayerCache;
  /** States of a recurrence, [B, ..] each, after the tokens kept; null before the first. */
  states(layer: number): readonly Tensor[] | null;
  keepStates(layer: number, states: readonly Tensor[]): void;
  /** Called once a forward pass over all layers is over. */
  advance(tokens: number): void;
}
