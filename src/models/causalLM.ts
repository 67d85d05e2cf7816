// A decoder with a language-model head: forward with edits, a cache and chosen logits; the loss at labelled positions;
// generation. The architecture is in llama.ts, loading in auto.ts, sampling in generate.ts.

import { valueAndGrad } from '../autograd/grad.js';
import { recompute } from '../autograd/recompute.js';
import { scope } from '../autograd/scope.js';
import { isRecording } from '../autograd/tape.js';
import type { Backend } from '../backends/backend.js';
import { checkIds, checkLabels, shownValue } from '../io/tokenIds.js';
import { crossEntropy } from '../nn/crossEntropy.js';
import { linear, type Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import type { RopeFrequencies } from '../nn/rope.js';
import { formatShape, type Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { KVCache } from './cache.js';
import { contextNote, frequenciesOf, type DecoderConfig } from './config.js';
import { ForwardContext, paddingOf, rotaryTables, type SiteEdit } from './context.js';
import { generate, type Generated, type GenerateOptions, type Prompt } from './generate.js';
import { noGenerationConfig, type GenerationConfig } from './generationConfig.js';
import type { LlamaModel } from './llama.js';
import { realTokensOf } from './realTokens.js';
import {
  blockComponents,
  checkSite,
  headsAt,
  isHeadComponent,
  parseSite,
  siteName,
  widthAt,
  type Component,
  type Site,
} from './sites.js';

export interface ForwardOptions {
  /** Row-major [B, T]. */
  readonly inputIds: Int32Array;
  readonly shape: Shape;
  /** [B, past + T], one run of ones a row; default all ones. */
  readonly attentionMask?: Int32Array;
  /**
   * Leave padding out where it is a noticeable share of the batch: norms, linear layers and edits compute the real
   * tokens alone. Results there agree to rounding; states and logits at padding, which have no meaning, are then zeros.
   */
  readonly skipPadding?: boolean;
  /**
   * Keep nothing inside blocks for the backward pass, which runs each of them again: less memory, more time, the same
   * gradients. Blocks at whose sites something is collected, or a gradient asked for, keep what they compute.
   */
  readonly recompute?: boolean;
  /** [B, T]; default: the number of real tokens before, so that padding on either side changes nothing. */
  readonly positions?: Int32Array;
  readonly cache?: KVCache;
  readonly edits?: readonly SiteEdit[];
  /** Sites whose hidden states are returned. */
  readonly collect?: readonly Site[];
  /** Told of every site as it is passed, after the edits that stand there. */
  readonly onSite?: (site: Site, hiddenStates: Tensor, edits: readonly SiteEdit[]) => void;
  /** Also the input of every block and the output of the final norm, as transformers' output_hidden_states. */
  readonly hiddenStates?: boolean;
  /** Rows b * T + t whose logits are wanted; default all. An empty list computes none. */
  readonly logitsAt?: Int32Array;
  /**
   * Start here: the input (default) or the not yet edited output of block `layer`, or not yet edited embeddings, [B, T,
   * hidden].
   */
  readonly from?: {
    readonly layer: number;
    readonly hiddenStates: Tensor;
    readonly component?: 'embeddings' | 'block_input' | 'block_output';
  };
}

export interface ForwardOutput {
  /** [B, T, vocabulary], or [n, vocabulary] for n rows of `logitsAt`. */
  readonly logits: Tensor;
  /** Embeddings, each block's output, with the last one after the final norm; empty unless asked for. */
  readonly hiddenStates: readonly Tensor[];
  readonly collected: ReadonlyMap<string, Tensor>;
}

export class CausalLM extends Module {
  readonly model: LlamaModel;
  readonly lmHead: Linear | null;
  /** What adapters call it: a hub id, or the name of its file or folder. */
  readonly name: string;
  /** What the model's files say about generation. */
  readonly generation: GenerationConfig;
  readonly #config: DecoderConfig;
  readonly #frequencies: RopeFrequencies;

  constructor(
    config: DecoderConfig,
    parts: { model: LlamaModel; lmHead: Linear | null },
    name = 'model',
    generation = noGenerationConfig,
  ) {
    super();
    this.model = parts.model;
    this.lmHead = parts.lmHead;
    this.name = name;
    this.generation = generation;
    this.#config = config;
    this.#frequencies = frequenciesOf(config);
  }

  get config(): DecoderConfig {
    return this.#config;
  }
  get backend(): Backend {
    return this.model.embedTokens.weight.backend;
  }
  get dtype(): 'f32' | 'f64' {
    return this.model.embedTokens.weight.dtype as 'f32' | 'f64';
  }

  /** Numbers in the model; a tied head counts once. */
  get parameterCount(): number {
    return this.parameters().reduce((n, t) => n + t.size, 0);
  }

  /**
   * Every place an edit can stand, in the order they are passed. With `heads`, single heads after the component they
   * are of.
   */
  sites({ heads = false }: { heads?: boolean } = {}): Site[] {
    const { config } = this;
    const blocks = Array.from({ length: config.layers }, (_, layer) =>
      blockComponents.flatMap(component => [
        { layer, component },
        ...(heads && isHeadComponent(component)
          ? Array.from({ length: headsAt(component, config) }, (__, head) => ({ layer, component, head }))
          : []),
      ]),
    ).flat();
    return [{ layer: 0, component: 'embeddings' }, ...blocks, { layer: config.layers - 1, component: 'final_norm' }];
  }

  /** A site by any of its names, see `parseSite`. */
  site(name: string): Site {
    return parseSite(name, this.config);
  }

  /** Width of the hidden states at a component, or of one head there. */
  widthAt(component: Component, head?: number): number {
    return widthAt(component, this.config, head);
  }

  forward(options: ForwardOptions): ForwardOutput {
    const { config, model } = this;
    checkInputs(options.inputIds, options.shape, config.vocabSize);
    const [batch, length] = options.shape;
    const past = options.cache?.length ?? 0;
    const mask = options.attentionMask;
    if (mask && mask.length !== batch * (past + length)) {
      throw new RangeError(
        `attentionMask: expected ${batch} x ${past + length} entries (cache and input), got ${mask.length}`,
      );
    }
    const padding = mask
      ? paddingOf(mask, [batch, past + length])
      : { keyStart: new Int32Array(batch), keyEnd: new Int32Array(batch).fill(past + length) };
    const positions = options.positions ?? defaultPositions(padding.keyStart, past, options.shape);
    checkPositions(positions, options.shape, config);
    const real = options.skipPadding ? realTokensOf(padding, past, options.shape) : null;
    const context = new ForwardContext({
      shape: options.shape,
      padding,
      past,
      real,
      ...(options.cache ? { cache: options.cache } : {}),
      headDim: config.headDim,
      backend: this.backend,
      edits: options.edits ?? [],
      collect: options.collect ?? [],
      ...(options.onSite ? { onSite: options.onSite } : {}),
    });
    if (options.recompute && options.cache && !options.cache.shared && isRecording()) {
      throw new RangeError('recompute: not while a cache is written to; give no cache, or run it without gradients');
    }
    for (const { site } of options.edits ?? []) checkSite(site, config);
    for (const site of options.collect ?? []) checkSite(site, config);
    const of = (list: Int32Array): Int32Array => (real ? real.rows.map(row => list[row]) : list);
    const tokens = real ? [1, real.rows.length] : options.shape;
    const rotary = rotaryTables(of(positions), tokens, this.#frequencies, this.dtype, this.backend);
    const at = options.logitsAt;
    if (at) checkRows(at, options.inputIds.length);
    const wanted = at && real ? Int32Array.from(at, row => real.places[row]) : at;
    const lastLayer = config.layers - 1;
    // Where nobody sees it, the last block computes only tokens whose logits are wanted, if that spares a noticeable
    // share.
    const narrows = wanted && !options.hiddenStates && 4 * wanted.length <= 3 * tokens[0] * tokens[1];
    const kept = at && narrows && context.narrow(lastLayer, at) ? wanted : null;
    const hiddenStates: Tensor[] = [];
    let first = options.from?.layer ?? 0;
    let h = options.from
      ? context.tokensOf(options.from.hiddenStates)
      : model.embedTokens.forward(of(options.inputIds), tokens);
    if (!options.from || options.from.component === 'embeddings') h = context.site(0, 'embeddings', h);
    if (options.from?.component === 'block_output') h = context.site(first++, 'block_output', h);
    for (let layer = first; layer < config.layers; layer++) {
      if (options.hiddenStates) hiddenStates.push(context.rowsOf(h));
      const rows = layer === lastLayer ? kept : null;
      const block = (x: Tensor, cos: Tensor, sin: Tensor): Tensor =>
        model.layers[layer].forward(layer, x, { cos, sin }, context, rows);
      // What attention knows of the padding is read again where the block runs again: as an input it lives until then.
      const inputs = [h, rotary.cos, rotary.sin, ...context.bounds.tensors] as const;
      // Each block is a scope: what neither its output nor the backward pass needs goes at once.
      const again = options.recompute && !context.isSeen(layer);
      [h] = scope(
        () => [again ? recompute(block, inputs) : block(h, rotary.cos, rotary.sin), context.collection] as const,
      );
    }
    options.cache?.advance(length);
    // The norm of rows that nobody asked for is left out, unless its site is.
    const atNorm =
      options.hiddenStates ||
      options.onSite ||
      [...(options.edits ?? []), ...(options.collect ?? []).map(site => ({ site }))].some(
        e => e.site.component === 'final_norm',
      );
    const narrowed = kept !== null && first <= lastLayer;
    const logits = scope(() => {
      const rowsOf = (x: Tensor): Tensor => {
        if (!wanted) return x;
        const flat = x.reshape([-1, config.hiddenSize]);
        return narrowed ? flat : flat.takeRows(wanted);
      };
      const normed = atNorm ? context.site(lastLayer, 'final_norm', model.norm.forward(h)) : null;
      const last = options.hiddenStates && normed ? context.rowsOf(normed) : null;
      if (last) hiddenStates.push(last);
      const out = this.head(normed ? rowsOf(normed) : model.norm.forward(rowsOf(h)));
      return [wanted ? out : context.rowsOf(out), last, context.collection] as const;
    })[0];
    return { logits, hiddenStates, collected: context.collection };
  }

  /** Normed hidden states [.., hidden] to logits [.., vocabulary]. */
  private head(x: Tensor): Tensor {
    return this.lmHead ? this.lmHead.forward(x) : linear(x, this.model.embedTokens.weight);
  }

  /**
   * Mean cross-entropy over the labels [B, T] that are not negative, the label at t judging the prediction at t - 1 (as
   * transformers does); only those logits are computed. `labelled` counts them.
   */
  loss(
    options: Omit<ForwardOptions, 'logitsAt' | 'hiddenStates'>,
    labels: Int32Array,
  ): { loss: Tensor; labelled: number } {
    const { rows, targets } = labelledRows(labels, options.shape);
    return {
      loss: scope(() => crossEntropy(this.forward({ ...options, logitsAt: rows }).logits, targets).mean()),
      labelled: rows.length,
    };
  }

  /**
   * The loss and its gradient at sites, by any of their names: each [B, T, width], by our name, after the edits that
   * stand there. A site that the loss does not depend on gets zeros.
   */
  gradients(
    options: Omit<ForwardOptions, 'logitsAt' | 'hiddenStates'>,
    labels: Int32Array,
    sites: readonly (Site | string)[],
  ): { loss: Tensor; gradients: Map<string, Tensor> } {
    const wanted = sites.map(s => (typeof s === 'string' ? this.site(s) : checkSite(s, this.config)));
    const whole = ({ layer, component }: Site): string => siteName({ layer, component });
    // The final norm is only passed for all rows where somebody looks at it.
    const collect = [...(options.collect ?? []), ...wanted.filter(s => s.component === 'final_norm')];
    const { value, sites: found } = valueAndGrad(() => this.loss({ ...options, collect }, labels).loss, {
      at: wanted.map(whole),
    })([]);
    const { headDim } = this.config;
    return {
      loss: value,
      gradients: new Map(
        wanted.map(s => {
          const gradient = found[whole(s)][0];
          return [
            siteName(s),
            s.head === undefined ? gradient : gradient.slice(-1, s.head * headDim, (s.head + 1) * headDim),
          ];
        }),
      ),
    };
  }

  /** The tokens that end a generation: those of the model's own files, and those that tokenizers and prompts name. */
  endTokenIds(...sources: readonly ({ readonly stopTokenIds?: readonly number[] } | undefined)[]): number[] {
    return [
      ...new Set([
        ...this.config.eosTokenIds,
        ...this.generation.eosTokenIds,
        ...sources.flatMap(source => source?.stopTokenIds ?? []),
      ]),
    ];
  }

  /** Continues prompts; see GenerateOptions. */
  generate(prompts: Prompt | readonly Prompt[], options: GenerateOptions = {}): Promise<Generated[]> {
    return generate(this, prompts, options);
  }
}

/** Rows whose prediction has a label, and the labels. */
export function labelledRows(labels: Int32Array, shape: Shape): { rows: Int32Array; targets: Int32Array } {
  checkLabels('labels', labels);
  const [batch, length] = shape;
  if (labels.length !== batch * length)
    throw new RangeError(`labels: expected ${batch * length} for ${formatShape(shape)}, got ${labels.length}`);
  const rows: number[] = [];
  const targets: number[] = [];
  for (let b = 0; b < batch; b++) {
    for (let t = 1; t < length; t++) {
      const label = labels[b * length + t];
      if (label < 0) continue;
      rows.push(b * length + t - 1);
      targets.push(label);
    }
  }
  if (rows.length === 0) throw new RangeError('labels: no position has a label');
  return { rows: Int32Array.from(rows), targets: Int32Array.from(targets) };
}

function checkInputs(ids: Int32Array, shape: Shape, vocabSize: number): void {
  checkIds('inputIds', ids, vocabSize);
  if (!Array.isArray(shape)) throw new TypeError(`shape: expected [batch, length], got ${shownValue(shape)}`);
  const [batch, length] = shape;
  if (shape.length !== 2 || !(batch > 0 && length > 0) || ids.length !== batch * length) {
    throw new RangeError(`inputIds: ${ids.length} tokens do not fill shape ${formatShape(shape)}`);
  }
}

/** One for each token, whole numbers within the model's context. */
function checkPositions(positions: Int32Array, [batch, length]: Shape, config: DecoderConfig): void {
  const { maxPositions } = config;
  if (positions.length !== batch * length) {
    throw new RangeError(`positions: expected ${batch} x ${length}, got ${positions.length}`);
  }
  for (const p of positions) {
    if (p >= 0 && p < maxPositions && Number.isInteger(p)) continue;
    throw new RangeError(
      `position ${p} is out of range: the model has ${maxPositions} positions${contextNote(config)}`,
    );
  }
}

function checkRows(rows: Int32Array, count: number): void {
  for (const row of rows) {
    if (Number.isInteger(row) && row >= 0 && row < count) continue;
    throw new RangeError(`logitsAt: row ${row} is out of range, the batch has ${count}`);
  }
}

/** Position = real tokens before; padding on the left counts from 0 again. */
function defaultPositions(keyStart: Int32Array, past: number, [batch, length]: Shape): Int32Array {
  const positions = new Int32Array(batch * length);
  for (let b = 0; b < batch; b++)
    for (let t = 0; t < length; t++) positions[b * length + t] = Math.max(0, past + t - keyStart[b]);
  return positions;
}
