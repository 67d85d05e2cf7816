// A frozen transformer as edits, trainers and graphs see it, whatever its task: sites, sizes, a forward pass that takes
// patches as values, a loss, gradients at sites. Families and heads extend it.

import { valueAndGrad } from '../autograd/grad.js';
import type { Backend } from '../backends/backend.js';
import { checkIds, shownValue } from '../io/tokenIds.js';
import { Module } from '../nn/module.js';
import { formatShape, type Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Kept } from './kept.js';
import type { Patch, SiteEdit } from './patch.js';
import type { OnSite } from './run.js';
import {
  checkSite,
  parseSite,
  siteName,
  sitesOf,
  stackOf,
  stacksOf,
  widthAt,
  type Component,
  type ModelSites,
  type Site,
} from './sites.js';
import type { StackStart } from './stack.js';

/** What every model's forward takes, whatever it reads. */
export interface PassOptions {
  /**
   * Keep nothing inside blocks for the backward pass, which runs each of them again: less memory, more time, the same
   * gradients. Blocks at whose sites something is collected, or a gradient asked for, keep what they compute.
   */
  readonly recompute?: boolean;
  /** Edits at sites; those of one site apply in the order given. */
  readonly edits?: readonly SiteEdit[];
  /** Edits and other changes: of products of layers, prefixes of keys and values. See patch.ts. */
  readonly patches?: readonly Patch[];
  /** Sites whose hidden states are returned. */
  readonly collect?: readonly Site[];
  /** Told of every site as it is passed, with its states [B, T, width] after the edits that stand there. */
  readonly onSite?: OnSite;
  /** Also the input of every block and the output of the final norm, as transformers' output_hidden_states. */
  readonly hiddenStates?: boolean;
}

/** What models that read tokens take. */
export interface ForwardOptions extends PassOptions {
  /** Row-major [B, T]. */
  readonly inputIds: Int32Array;
  readonly shape: Shape;
  /** [B, past + T], one run of ones a row; default all ones. Nothing is computed for padding. */
  readonly attentionMask?: Int32Array;
  /** [B, T]; default: the number of real tokens before, so that padding on either side changes nothing. */
  readonly positions?: Int32Array;
  /** What tokens before have left, and where these leave theirs: a KVCache. */
  readonly cache?: Kept;
  /** Rows b * T + t whose logits are wanted; default all. An empty list computes none. */
  readonly logitsAt?: Int32Array;
  /**
   * Start here: the input (default) or the not yet edited output of block `layer`, or not yet edited embeddings, [B, T,
   * hidden].
   */
  readonly from?: StackStart;
}

/** What every model gives. */
export interface ModelOutput {
  /** Embeddings, each block's output, with the last one after the final norm; empty unless asked for. */
  readonly hiddenStates: readonly Tensor[];
  readonly collected: ReadonlyMap<string, Tensor>;
}

/** What a language model gives. */
export interface ForwardOutput extends ModelOutput {
  /** [B, T, vocabulary], or [n, vocabulary] for n rows of `logitsAt`; zeros at padding. */
  readonly logits: Tensor;
}

/** What a loss is computed from: logits are chosen by the labels. */
export type LossOptions = Omit<ForwardOptions, 'logitsAt' | 'hiddenStates'>;

/** Classes or tokens, where a negative one is none; or the numbers of a regression or of several classes. */
export type Labels = Int32Array | Float32Array | Float64Array;

export interface Loss {
  readonly loss: Tensor;
  /** How many labels it is the mean of. */
  readonly labelled: number;
}

export abstract class Model extends Module {
  /** What adapters call it: a hub id, or the name of its file or folder. */
  readonly name: string;

  constructor(name: string) {
    super();
    this.name = name;
  }

  /** The stacks of blocks and what stands where in them. */
  abstract get stacks(): ModelSites;
  abstract get backend(): Backend;
  abstract get dtype(): 'f32' | 'f64';
  /** True where no token sees a later one, so that what comes before the first edit never changes. */
  abstract get causal(): boolean;

  /**
   * True where what is kept of tokens can be cut at any of them, as keys and values can and a recurrence's state not.
   */
  get keepsPrefixes(): boolean {
    return this.causal;
  }

  abstract forward(options: PassOptions): ModelOutput;
  abstract loss(options: PassOptions, labels: Labels): Loss;

  /** Numbers in the model; a tied head counts once. */
  get parameterCount(): number {
    return this.parameters().reduce((n, t) => n + t.size, 0);
  }

  /** Every place an edit can stand, in the order they are passed. With `heads`, single heads after their component. */
  sites({ heads = false }: { heads?: boolean } = {}): Site[] {
    return stacksOf(this.stacks).flatMap(stack => sitesOf(stack, heads));
  }

  /** A site by any of its names, see `parseSite`. */
  site(name: string): Site {
    return parseSite(name, this.stacks);
  }

  /** Width of the hidden states at a component, or of one head there. */
  widthAt(component: Component, head?: number, stack?: string): number {
    return widthAt(component, stackOf(stack === undefined ? {} : { stack }, this.stacks), head);
  }

  /** @throws RangeError naming an edit or a state that is asked for where the model has no site */
  protected checkSites({
    edits = [],
    patches = [],
    collect = [],
  }: Pick<PassOptions, 'edits' | 'patches' | 'collect'>): void {
    for (const edit of [...edits, ...patches]) if ('site' in edit) checkSite(edit.site, this.stacks);
    for (const site of collect) checkSite(site, this.stacks);
  }

  /**
   * The loss and its gradient at sites, by any of their names: each [B, T, width], by our name, after the edits that
   * stand there. A site that the loss does not depend on gets zeros.
   */
  gradients(
    options: Parameters<this['loss']>[0],
    labels: Parameters<this['loss']>[1],
    sites: readonly (Site | string)[],
  ): { loss: Tensor; gradients: Map<string, Tensor> } {
    const wanted = sites.map(s => (typeof s === 'string' ? this.site(s) : checkSite(s, this.stacks)));
    const whole = ({ head: _, ...site }: Site): string => siteName(site);
    // The final norm is only passed for all rows where somebody looks at it.
    const collect = [...(options.collect ?? []), ...wanted.filter(s => s.component === 'final_norm')];
    const { value, sites: states } = valueAndGrad(() => this.loss({ ...options, collect }, labels).loss, {
      at: wanted.map(whole),
    })([]);
    return {
      loss: value,
      gradients: new Map(
        wanted.map(s => {
          const gradient = states[whole(s)][0];
          const { headDim } = stackOf(s, this.stacks);
          const { head } = s;
          return [
            siteName(s),
            head === undefined ? gradient : gradient.slice(-1, head * headDim, (head + 1) * headDim),
          ];
        }),
      ),
    };
  }
}

/** @throws TypeError or RangeError naming what is wrong with ids [B, T] */
export function checkInputs(name: string, ids: Int32Array, shape: Shape, vocabSize: number): void {
  checkIds(name, ids, vocabSize);
  if (!Array.isArray(shape)) throw new TypeError(`shape: expected [batch, length], got ${shownValue(shape)}`);
  const [batch, length] = shape;
  if (shape.length !== 2 || !(batch > 0 && length > 0) || ids.length !== batch * length) {
    throw new RangeError(`${name}: ${ids.length} tokens do not fill shape ${formatShape(shape)}`);
  }
}

/** One for each token, whole numbers below `limit`. `note` says why it ends there. */
export function checkPositions(positions: Int32Array, [batch, length]: Shape, limit: number, note = ''): void {
  if (positions.length !== batch * length) {
    throw new RangeError(`positions: expected ${batch} x ${length}, got ${positions.length}`);
  }
  for (const p of positions) {
    if (p >= 0 && p < limit && Number.isInteger(p)) continue;
    throw new RangeError(`position ${p} is out of range: the model has ${limit} positions${note}`);
  }
}

/** Tokens whose logits are wanted. @throws RangeError naming one that the batch does not have */
export function checkRows(rows: Int32Array, count: number): void {
  for (const row of rows) {
    if (Number.isInteger(row) && row >= 0 && row < count) continue;
    throw new RangeError(`logitsAt: row ${row} is out of range, the batch has ${count}`);
  }
}
