// y = x W^T + b, with W [out, in] as checkpoints have it; what is added to it or made of it, within the product.

import { map } from '../autograd/elementwise.js';
import { shouldRecord } from '../autograd/tape.js';
import { add, arg, mul, type Expr } from '../tensor/expr.js';
import { checkOperands, matmulThen, type ProductEpilogue } from '../tensor/linalg.js';
import { mayRound } from '../tensor/rounding.js';
import { Tensor } from '../tensor/tensor.js';
import { activationOf } from './activations.js';
import { linearInit, type InitOptions } from './init.js';
import { Module } from './module.js';

/** What becomes of y = x W^T + b: activation(y), or activation(gate) y, and then the residual is added. */
export interface LinearEpilogue {
  /** By Hugging Face's name. */
  readonly activation?: string;
  /** [.., out]: takes the activation in place of y. */
  readonly gate?: Tensor;
  /** [.., out] */
  readonly residual?: Tensor;
}

/** x [.., in] to [.., out]; weight [out, in], bias [out]. The epilogue is computed within the product. */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null, epilogue: LinearEpilogue = {}): Tensor {
  const made = epilogueOf(bias, epilogue);
  if (made.operands.length === 0 && !epilogue.activation) return x.matmulT(weight);
  // The backward pass of an activation reads the product: it is kept then, and not computed again.
  if (x.rank < 2 || (epilogue.activation && shouldRecord([x, weight, ...made.operands])))
    return finished(x.matmulT(weight), made);
  return matmulThen(x, weight.transpose(-1, -2), made);
}

/** What becomes of a y [.., out] that is there, as one op. */
export function finish(y: Tensor, bias: Tensor | null, epilogue: LinearEpilogue): Tensor {
  return finished(y, epilogueOf(bias, epilogue));
}

function finished(y: Tensor, { label, output, operands }: ProductEpilogue): Tensor {
  checkOperands(label, y.shape, y.dtype, operands);
  return map(label, output, [y, ...operands]);
}

/** By activation; then by which of the operands are there. */
const expressions = new Map<string | undefined, (Expr | undefined)[]>();

/**
 * The epilogue as an expression: argument 0 is the product, the others are those of bias, gate and residual that are
 * there.
 */
function epilogueOf(bias: Tensor | null, { activation, gate, residual }: LinearEpilogue): ProductEpilogue {
  if (gate && !activation) throw new Error('linear: a gate needs an activation');
  let list = expressions.get(activation);
  if (!list) expressions.set(activation, (list = []));
  const there = [bias !== null, gate !== undefined, residual !== undefined] as const;
  return {
    label: gate && activation === 'silu' ? 'swiglu' : (activation ?? 'linear'),
    output: (list[Number(there[0]) + 2 * Number(there[1]) + 4 * Number(there[2])] ??= expressionOf(
      activation,
      ...there,
    )),
    operands: [bias, gate, residual].filter((t): t is Tensor => Boolean(t)),
  };
}

function expressionOf(activation: string | undefined, bias: boolean, gate: boolean, residual: boolean): Expr {
  let next = 1;
  const product = bias ? add(arg(0), arg(next++)) : arg(0);
  const f = activation ? activationOf(activation) : null;
  const made = !f ? product : gate ? mul(f(arg(next++)), product) : f(product);
  return residual ? add(arg(next), made) : made;
}

/**
 * What several layers make of the same x [.., in], [.., out] of each. Where products may be rounded, as when tokens are
 * generated, and the layers' weights are neighbours in memory, one product computes all.
 */
export function project(x: Tensor, layers: readonly Linear[]): Tensor[] {
  const weight = mayRound() && !x.needsGrad ? joinedWeight(layers) : null;
  if (!weight) return layers.map(layer => layer.forward(x));
  const parts = x.matmulT(weight).split(
    layers.map(layer => layer.weight.shape[0]),
    -1,
  );
  return parts.map((y, i) => (layers[i].bias ? y.add(layers[i].bias) : y));
}

/** Packed weights that follow each other in one storage, as one matrix; null if they do not. */
function joinedWeight(layers: readonly Linear[]): Tensor | null {
  const {
    storage,
    dtype,
    shape: [, columns],
    strides,
    offset,
    packing,
  } = layers[0].weight;
  let rows = 0;
  for (const { weight } of layers) {
    const follows =
      weight.storage === storage && weight.offset === offset + rows * columns && weight.shape[1] === columns;
    if (!packing || weight.packing !== packing || !follows) return null;
    rows += weight.shape[0];
  }
  return new Tensor(storage, dtype, [rows, columns], strides, offset, packing);
}

export class Linear extends Module {
  readonly weight: Tensor;
  readonly bias: Tensor | null;

  constructor(weight: Tensor, bias: Tensor | null = null) {
    super();
    this.weight = weight;
    this.bias = bias;
  }

  /** Weight and bias uniform in +-1/sqrt(input), as torch's; the weight from stream 2s, the bias from 2s + 1. */
  static create({
    input,
    output,
    bias = true,
    stream = 0,
    ...options
  }: InitOptions & { input: number; output: number; bias?: boolean }): Linear {
    const draw = (shape: number[], n: number): Tensor =>
      linearInit(shape, { ...options, fanIn: input, stream: 2 * stream + n });
    return new Linear(draw([output, input], 0), bias ? draw([output], 1) : null);
  }

  forward(x: Tensor, epilogue?: LinearEpilogue): Tensor {
    return linear(x, this.weight, this.bias, epilogue);
  }
}
