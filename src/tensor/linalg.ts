// Products of matrices: broadcasting over leading axes, vectors as matrices of one row or column, einsum.

import { apply } from '../autograd/primitives.js';
import { isFloat, type DType } from './dtype.js';
import type { Expr } from './expr.js';
import { broadcastShapes, formatShape, sameShape, ShapeError, sizeOf, type Shape } from './shape.js';
import type { Tensor } from './tensor.js';

/**
 * What is computed as a product is written: `output` of the product (argument 0) and of operands (1, 2, ..) that
 * broadcast to its shape.
 */
export interface ProductEpilogue {
  readonly label: string;
  readonly output: Expr;
  readonly operands: readonly Tensor[];
}

/** Operands of an epilogue have the product's type, f32 or f64, and its shape, or that of a row [n] of it. */
export function checkOperands(label: string, shape: Shape, dtype: DType, operands: readonly Tensor[]): void {
  const n = shape[shape.length - 1];
  for (const t of operands) {
    if (!sameShape(t.shape, shape) && !sameShape(t.shape, [n]))
      throw new ShapeError(
        `${label}: an operand has shape ${formatShape(t.shape)}, expected [${n}] or ${formatShape(shape)}`,
      );
    if (t.dtype !== dtype) throw new ShapeError(`${label}: expected ${dtype} tensors only, got ${t.dtype}`);
  }
}

function checkFactors(label: string, a: Tensor, b: Tensor): void {
  if (a.dtype !== b.dtype || !isFloat(a.dtype))
    throw new ShapeError(`${label}: expected two f32 or two f64 tensors, got ${a.dtype} and ${b.dtype}`);
}

/**
 * a [.., m, k] times a matrix b [k, n], with an epilogue; an operand is a row [n] or has the result's shape [.., m, n].
 */
export function matmulThen(a: Tensor, b: Tensor, { label, output, operands }: ProductEpilogue): Tensor {
  const shape = [...a.shape.slice(0, -1), b.shape[1]];
  if (a.rank < 2 || b.rank !== 2 || a.shape[a.rank - 1] !== b.shape[0])
    throw new ShapeError(`${label}: ${formatShape(a.shape)} x ${formatShape(b.shape)} is no product with a matrix`);
  checkFactors(label, a, b);
  checkOperands(label, shape, a.dtype, operands);
  const flat = (t: Tensor): Tensor => (t.rank > 2 ? t.reshape([-1, t.shape[t.rank - 1]]) : t);
  return apply('matmul', [flat(a), b, ...operands.map(flat)], { epilogue: { label, output } })[0].reshape(shape);
}

export function matmul(a: Tensor, b: Tensor): Tensor {
  if (a.rank === 0 || b.rank === 0)
    throw new ShapeError(`matmul: expected rank 1 or more, got ${formatShape(a.shape)} and ${formatShape(b.shape)}`);
  checkFactors('matmul', a, b);
  if (a.rank === 1) return matmul(a.unsqueeze(0), b).squeeze(b.rank === 1 ? 0 : -2);
  if (b.rank === 1) return matmul(a, b.unsqueeze(1)).squeeze(-1);
  const [k, n] = [a.shape[a.rank - 1], b.shape[b.rank - 1]];
  if (b.shape[b.rank - 2] !== k)
    throw new ShapeError(`matmul: inner sides differ, ${formatShape(a.shape)} x ${formatShape(b.shape)}`);
  if (b.rank === 2 && a.rank > 2) {
    // One tall product instead of many: a weight is shared by every leading index.
    return apply('matmul', [a.reshape([sizeOf(a.shape.slice(0, -1)), k]), b], {})[0].reshape([
      ...a.shape.slice(0, -1),
      n,
    ]);
  }
  const batch = broadcastShapes('matmul', a.shape.slice(0, -2), b.shape.slice(0, -2));
  return apply(
    'matmul',
    [a.expand([...batch, ...a.shape.slice(-2)]), b.expand([...batch, ...b.shape.slice(-2)])],
    {},
  )[0];
}

/**
 * Einstein summation of one or two tensors, `einsum('bij,bjk->bik', a, b)`. Repeated letters in one operand are not
 * taken.
 */
export function einsum(equation: string, ...tensors: Tensor[]): Tensor {
  const match = /^([a-zA-Z]*(?:,[a-zA-Z]*)*)->([a-zA-Z]*)$/.exec(equation.replaceAll(' ', ''));
  const inputs = match?.[1].split(',') ?? [];
  const output = match?.[2] ?? '';
  const bad = (why: string): ShapeError => new ShapeError(`einsum '${equation}': ${why}`);
  if (!match) throw bad("expected letters, like 'ij,jk->ik'");
  if (inputs.length !== tensors.length || tensors.length > 2 || tensors.length === 0)
    throw bad(`${inputs.length} operands named, ${tensors.length} given, 1 or 2 taken`);
  const sides = new Map<string, number>();
  inputs.forEach((letters, t) => {
    if (letters.length !== tensors[t].rank)
      throw bad(`'${letters}' does not fit shape ${formatShape(tensors[t].shape)}`);
    if (new Set(letters).size !== letters.length) throw bad(`'${letters}' repeats a letter`);
    [...letters].forEach((letter, axis) => {
      const side = tensors[t].shape[axis];
      if ((sides.get(letter) ?? side) !== side) throw bad(`${letter} is both ${sides.get(letter)} and ${side}`);
      sides.set(letter, side);
    });
  });
  for (const letter of output) if (!sides.has(letter)) throw bad(`${letter} is in no operand`);
  if (new Set(output).size !== output.length) throw bad(`the output repeats a letter`);

  /**
   * `x` with letters `have`, summed over those not in `want`, in the order of `want`; absent letters become sides of 1.
   */
  const arrange = (x: Tensor, have: string, want: string): Tensor => {
    const drop = [...have].flatMap((letter, axis) => (want.includes(letter) ? [] : [axis]));
    const kept = [...have].filter(letter => want.includes(letter)).join('');
    const summed = drop.length > 0 ? x.sum(drop) : x;
    const ordered = [...want].filter(letter => kept.includes(letter));
    return summed
      .permute(ordered.map(letter => kept.indexOf(letter)))
      .reshape([...want].map(letter => (kept.includes(letter) ? (sides.get(letter) as number) : 1)));
  };
  if (tensors.length === 1) return arrange(tensors[0], inputs[0], output);
  const [p, q] = inputs;
  const summed = [...sides.keys()].filter(l => p.includes(l) && q.includes(l) && !output.includes(l)).join('');
  const batch = [...output].filter(l => p.includes(l) && q.includes(l)).join('');
  const left = [...output].filter(l => p.includes(l) && !q.includes(l)).join('');
  const right = [...output].filter(l => q.includes(l) && !p.includes(l)).join('');
  const size = (letters: string): number => [...letters].reduce((n, l) => n * (sides.get(l) as number), 1);
  const a = arrange(tensors[0], p, batch + left + summed).reshape([size(batch), size(left), size(summed)]);
  const b = arrange(tensors[1], q, batch + summed + right).reshape([size(batch), size(summed), size(right)]);
  const order = batch + left + right;
  const product = matmul(a, b).reshape([...order].map(l => sides.get(l) as number));
  return product.permute([...output].map(l => order.indexOf(l)));
}
