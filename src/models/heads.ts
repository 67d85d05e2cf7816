// Heads on the last states of an encoder: a layer with an activation, a norm, a layer that gives the output; which of
// them a family has, and what its checkpoints call them, is data. And what heads minimise.

import { FormatError } from '../io/errors.js';
import { shownValue } from '../io/tokenIds.js';
import { crossEntropyMean } from '../nn/crossEntropy.js';
import { linear, Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import { create } from '../tensor/create.js';
import { formatShape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Norm } from './block.js';
import type { StackConfig } from './config.js';
import type { LabelConfig, ProblemType } from './configEncoder.js';
import { loadNorm } from './load.js';
import type { Labels, Loss } from './model.js';
import type { WeightLoader } from './weights.js';

/** What a checkpoint calls the layers of a head: whole names. */
export interface HeadNames {
  readonly dense?: string;
  readonly norm?: string;
  readonly out: string;
  /** Where the output's bias is not with its weight. */
  readonly outBias?: string;
}

/** What a family's head computes. */
export interface HeadForm {
  readonly names: HeadNames;
  /** Of the first layer, by Hugging Face's name. */
  readonly activation?: string;
  readonly denseBias?: boolean;
  readonly outBias?: boolean;
  /** The norm's epsilon and bias where they are not those of the stack. */
  readonly norm?: Pick<StackConfig, 'norm' | 'normEps' | 'normBias'>;
}

interface HeadParts {
  readonly dense?: Linear;
  readonly norm?: Norm;
  readonly out: Linear;
}

/** out(norm(activation(dense(x)))), without what a family does not have. */
export class Head extends Module {
  readonly parts: HeadParts;
  readonly #names: HeadNames;
  readonly #activation: string | undefined;
  /** A weight that is another layer's is no parameter of this one. */
  readonly #tied: boolean;

  constructor(parts: HeadParts, { names, activation }: HeadForm, { tied = false } = {}) {
    super();
    this.parts = parts;
    this.#names = names;
    this.#activation = activation;
    this.#tied = tied;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    const { dense, norm, out } = this.parts;
    const names = this.#names;
    if (dense) yield* dense.namedParameters(`${names.dense}.`);
    if (norm) yield* norm.namedParameters(`${names.norm}.`);
    if (!this.#tied) yield [`${names.out}.weight`, out.weight];
    if (out.bias) yield [names.outBias ?? `${names.out}.bias`, out.bias];
  }

  /** [n, width] to [n, outputs]. */
  forward(x: Tensor): Tensor {
    const { dense, norm, out } = this.parts;
    const activation = this.#activation;
    const hidden = dense ? dense.forward(x, activation === undefined ? {} : { activation }) : x;
    return out.forward(norm ? norm.forward(hidden) : hidden);
  }
}

type HeadSizes = Pick<StackConfig, 'hiddenSize' | 'norm' | 'normEps' | 'normBias'>;

/**
 * A head of `outputs` numbers. `tiedTo`: the table of embeddings, which takes the place of the output's weight.
 * @throws FormatError where the checkpoint has none
 */
export async function loadHead(
  weights: WeightLoader,
  form: HeadForm,
  config: HeadSizes,
  outputs: number,
  tiedTo: Tensor | null = null,
): Promise<Head> {
  const { names, denseBias = true, outBias = true } = form;
  const { hiddenSize } = config;
  const missing = [names.dense, names.norm, tiedTo ? undefined : names.out].find(
    name => name !== undefined && !weights.has(`${name}.weight`),
  );
  if (missing !== undefined)
    throw new FormatError(
      weights.file.name,
      `has no '${missing}.weight': the checkpoint is of a model without this head`,
    );
  const dense =
    names.dense === undefined
      ? null
      : new Linear(
          await weights.load(`${names.dense}.weight`, [hiddenSize, hiddenSize]),
          denseBias ? await weights.load(`${names.dense}.bias`, [hiddenSize]) : null,
        );
  const norm = names.norm === undefined ? null : await loadNorm(weights, names.norm, hiddenSize, form.norm ?? config);
  // Old checkpoints have a tied layer's bias beside its weight, or twice.
  const besides = `${names.out}.bias`;
  const biasName = names.outBias !== undefined && weights.has(names.outBias) ? names.outBias : besides;
  const out = new Linear(
    tiedTo ?? (await weights.load(`${names.out}.weight`, [outputs, hiddenSize])),
    outBias ? await weights.load(biasName, [outputs]) : null,
  );
  return new Head({ ...(dense ? { dense } : {}), ...(norm ? { norm } : {}), out }, form, { tied: tiedTo !== null });
}

/** A layer with tanh on the state of a first token, as BERT's and ViT's base models have one. */
export class Pooler extends Module {
  readonly dense: Linear;
  readonly #name: string;

  constructor(dense: Linear, name: string) {
    super();
    this.dense = dense;
    this.#name = name;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    yield* this.dense.namedParameters(`${this.#name}.`);
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.dense.weight, this.dense.bias, { activation: 'tanh' });
  }
}

/** The pooler of a checkpoint that has one; null for one without. */
export async function loadPooler(weights: WeightLoader, name: string, size: number): Promise<Pooler | null> {
  if (!weights.has(`${name}.weight`)) return null;
  const weight = await weights.load(`${name}.weight`, [size, size]);
  return new Pooler(new Linear(weight, await weights.load(`${name}.bias`, [size])), name);
}

/** What is minimised: what the configuration says, else a regression of one number, else by the labels' type. */
export function problemOf({ labels, problemType }: LabelConfig, given: Labels): ProblemType {
  if (problemType) return problemType;
  if (labels === 1) return 'regression';
  return given instanceof Int32Array ? 'single_label_classification' : 'multi_label_classification';
}

/**
 * The mean loss of logits [B, L]: cross-entropy with a class for each row (a negative one takes no part), squared
 * differences from numbers, or the cross-entropy of each of several classes by itself; numbers are [B, L].
 */
export function labelLoss(logits: Tensor, labels: Labels, config: LabelConfig): Loss {
  if (!(labels instanceof Int32Array || labels instanceof Float32Array || labels instanceof Float64Array))
    throw new TypeError(`labels: expected an Int32Array or a Float32Array, got ${shownValue(labels)}`);
  const [batch, width] = logits.shape;
  const problem = problemOf(config, labels);
  const single = problem === 'single_label_classification';
  const expected = single ? batch : batch * width;
  if (labels.length !== expected)
    throw new RangeError(`labels: expected ${expected} for logits ${formatShape(logits.shape)}, got ${labels.length}`);
  if (single) {
    if (!(labels instanceof Int32Array))
      throw new TypeError('labels: expected an Int32Array of classes for a single-label classification');
    const labelled = labels.reduce((n, label) => n + (label >= 0 ? 1 : 0), 0);
    return { loss: crossEntropyMean(logits, labels), labelled };
  }
  const odd = labels.findIndex(label => !Number.isFinite(label));
  if (odd >= 0) throw new RangeError(`labels: expected finite numbers, got ${labels[odd]} at ${odd}`);
  const { dtype, backend } = logits;
  const targets = create.from(Float64Array.from(labels), [batch, width], { dtype, backend });
  const losses = problem === 'regression' ? logits.sub(targets).square() : logits.softplus().sub(logits.mul(targets));
  return { loss: losses.mean(), labelled: labels.length };
}
