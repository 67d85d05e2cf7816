// What may be given to a forward pass to change it: values, not hooks. An edit stands at a site, a change of a layer's
// product stands at a projection, keys and values of a prefix stand in front of a sequence's own. Nothing outlives the
// call, and the model's weights stay as they are.

import type { Linear } from '../nn/linear.js';
import type { Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Site } from './sites.js';
import type { TokenRows } from './tokens.js';

/** An edit resolved for one batch. */
export interface SiteEdit {
  readonly site: Site;
  /**
   * The edited hidden states, of the same shape [n, width]; of a site that is one head, that head's. `rows` says which
   * tokens they are: real tokens one after the other, in the last block perhaps some of them only.
   */
  apply(hiddenStates: Tensor, rows: TokenRows): Tensor;
  /**
   * Tokens b * T + t that it edits, where each is edited by itself: `apply` may then be given some rows of the batch
   * alone. Absent: it is always given all of them.
   */
  readonly rows?: Int32Array;
  /** What a drawing or a list of the graph says of it. */
  readonly about?: EditDescription;
}

/** An edit as a node of the graph. */
export interface EditDescription {
  /** Unique among the edits of a forward. */
  readonly id: string;
  readonly kind: string;
  readonly rank?: number;
  readonly positions?: string;
  readonly scale?: number;
  /** Shapes of what it holds, by name. */
  readonly parameters?: Readonly<Record<string, Shape>>;
  /** Tokens b * T + t that it edits in this forward; absent: all. */
  readonly rows?: readonly number[];
}

/** A layer of a block whose product may be changed, by the path its checkpoint gives it: `self_attn.q_proj`. */
export interface Projection {
  readonly stack?: string;
  readonly layer: number;
  readonly projection: string;
}

/** What LoRA, a parallel adapter or a trained bias makes of a layer's product. */
export interface ProjectionPatch {
  readonly at: Projection;
  /** y [n, out], the layer's product of x [n, in]: what takes its place, of the same shape. */
  apply(y: Tensor, x: Tensor, rows: TokenRows, layer: Linear): Tensor;
  readonly about?: EditDescription;
}

/** Keys and values [B, kvHeads, P, headDim] that every query of a layer sees in front of its sequence's own. */
export interface PrefixPatch {
  readonly prefix: { readonly stack?: string; readonly layer: number };
  readonly keys: Tensor;
  readonly values: Tensor;
  readonly about?: EditDescription;
}

export type Patch = SiteEdit | ProjectionPatch | PrefixPatch;

export const isSiteEdit = (patch: Patch): patch is SiteEdit => 'site' in patch;
export const isProjectionPatch = (patch: Patch): patch is ProjectionPatch => 'at' in patch;
export const isPrefixPatch = (patch: Patch): patch is PrefixPatch => 'prefix' in patch;

/** An edit that is a function of the whole batch, [B, T, width], with zeros at padding. */
export const onBatch =
  (f: (hiddenStates: Tensor) => Tensor) =>
  (h: Tensor, rows: TokenRows): Tensor =>
    rows.gather(f(rows.spread(h)));
