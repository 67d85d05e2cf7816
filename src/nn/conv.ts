// Convolutions that models of other than plain tokens begin with or have in their blocks: causal ones along sequences
// (Mamba), along time (Whisper's stem), and of patches that do not overlap (ViT, CLIP). Weights are as checkpoints have
// them. A convolution is a gather of rows and then a product, or a sum of a few products element by element.

import { map } from '../autograd/elementwise.js';
import { concat } from '../tensor/layout.js';
import { add, arg, mul, type Expr } from '../tensor/expr.js';
import { formatShape, sameShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { activationOf } from './activations.js';
import { linear } from './linear.js';
import { checkStarts, checkState, endOf } from './sequences.js';

export interface CausalConv {
  /** [N, d] */
  readonly output: Tensor;
  /** The last k - 1 inputs of each sequence, oldest first, [S, k - 1, d]: what a later call goes on from. */
  readonly state: Tensor;
}

export interface CausalConvOptions {
  /** The inputs before each sequence, [S, k - 1, d]; default zeros. */
  readonly state?: Tensor | null;
  /** Of the result, by Hugging Face's name. */
  readonly activation?: string;
}

/**
 * y_t = sum_j w_j x_{t - (k - 1) + j} + bias, for each column by itself and each sequence by itself: x [N, d], weight
 * [d, 1, k], bias [d]. Sequence s begins at row starts[s].
 */
export function causalConv1d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  starts: Int32Array,
  { state = null, activation }: CausalConvOptions = {},
): CausalConv {
  const [rows, width] = x.shape;
  const taps = weight.shape[2];
  const wanted = x.rank === 2 && weight.rank === 3 && sameShape(weight.shape, [width, 1, taps]) && taps > 0;
  if (!wanted || (bias && !sameShape(bias.shape, [width])))
    throw new ShapeError(
      `causalConv1d: x ${formatShape(x.shape)}, weight ${formatShape(weight.shape)} and bias ${bias ? formatShape(bias.shape) : 'none'} do not fit [N,d], [d,1,k], [d]`,
    );
  checkStarts('causalConv1d', starts, rows);
  const before = taps - 1;
  checkState('causalConv1d', state, x, starts, [before, width]);

  // Inputs before a sequence are rows behind all others, or none.
  const source = state && before > 0 ? concat([x, state.reshape([starts.length * before, width])]) : x;
  /** Where input t of sequence s is; t is negative before the sequence. */
  const rowOf = (s: number, t: number): number => (t >= 0 ? starts[s] + t : state ? rows + (s + 1) * before + t : -1);
  const inputs = Array.from({ length: before }, (_, j) => {
    const from = new Int32Array(rows);
    starts.forEach((start, s) => {
      for (let row = start; row < endOf(starts, s, rows); row++) from[row] = rowOf(s, row - start - before + j);
    });
    return source.takeRows(from);
  });
  const factors = weight.reshape([width, taps]).transpose().contiguous();
  const operands = [...inputs, x, ...Array.from({ length: taps }, (_, j) => factors.select(0, j))];
  const output = map(
    'causalConv1d',
    convolution(taps, bias !== null, activation),
    bias ? [...operands, bias] : operands,
  );

  const last = Int32Array.from({ length: starts.length * before }, (_, i) => {
    const s = Math.floor(i / before);
    return rowOf(s, endOf(starts, s, rows) - starts[s] - before + (i % before));
  });
  return { output, state: source.takeRows(last).reshape([starts.length, before, width]) };
}

const expressions = new Map<string, Expr>();

/** activation(sum of arguments times the ones `taps` further on, and the last one). */
function convolution(taps: number, bias: boolean, activation = ''): Expr {
  const key = `${taps},${bias},${activation}`;
  let known = expressions.get(key);
  if (!known) {
    const products = Array.from({ length: taps }, (_, j) => mul(arg(j), arg(taps + j)));
    const sum = [...products, ...(bias ? [arg(2 * taps)] : [])].reduce(add);
    expressions.set(key, (known = activation ? activationOf(activation)(sum) : sum));
  }
  return known;
}

export interface Conv1dOptions {
  /** Default 1. */
  readonly stride?: number;
  /** Zeros before and after the time steps. Default 0. */
  readonly padding?: number;
  /** Of the result, by Hugging Face's name. */
  readonly activation?: string;
}

/**
 * x [B, T, C] to [B, floor((T + 2 padding - k) / stride) + 1, out]; weight [out, C, k], bias [out]. Features [B, C, T],
 * as Whisper is given them, are transposed first: `x.transpose(1, 2)`.
 */
export function conv1d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  { stride = 1, padding = 0, activation }: Conv1dOptions = {},
): Tensor {
  const [batch, length, channels] = x.shape;
  const [out, , taps] = weight.shape;
  const fits = x.rank === 3 && weight.rank === 3 && weight.shape[1] === channels;
  if (!fits || (bias && !sameShape(bias.shape, [out])))
    throw new ShapeError(
      `conv1d: x ${formatShape(x.shape)}, weight ${formatShape(weight.shape)} and bias ${bias ? formatShape(bias.shape) : 'none'} do not fit [B,T,C], [out,C,k], [out]`,
    );
  for (const [name, value, least] of [
    ['stride', stride, 1],
    ['padding', padding, 0],
  ] as const)
    if (!Number.isInteger(value) || value < least)
      throw new RangeError(`conv1d: ${name} must be a whole number from ${least}, got ${value}`);
  if (taps < 1 || length + 2 * padding < taps)
    throw new ShapeError(`conv1d: a kernel of ${taps} does not fit ${length} time steps padded by ${padding}`);
  const steps = Math.floor((length + 2 * padding - taps) / stride) + 1;
  const from = new Int32Array(batch * steps * taps);
  for (let i = 0; i < from.length; i++) {
    const t = (Math.floor(i / taps) % steps) * stride + (i % taps) - padding;
    from[i] = t >= 0 && t < length ? Math.floor(i / (taps * steps)) * length + t : -1;
  }
  const windows = x.reshape([batch * length, channels]).takeRows(from);
  const matrix = weight.transpose(1, 2).reshape([out, taps * channels]);
  const y = linear(windows.reshape([batch * steps, taps * channels]), matrix, bias, activation ? { activation } : {});
  return y.reshape([batch, steps, out]);
}

/**
 * Images [B, C, H, W] to their patches, row by row, [B, patches, out]; weight [out, C, h, w], bias [out]: a convolution
 * whose stride is its kernel.
 */
export function patchEmbedding(pixelValues: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  const [batch, channels, height, width] = pixelValues.shape;
  const [out, , h, w] = weight.shape;
  const fits = pixelValues.rank === 4 && weight.rank === 4 && weight.shape[1] === channels;
  if (!fits || (bias && !sameShape(bias.shape, [out])))
    throw new ShapeError(
      `patchEmbedding: pixelValues ${formatShape(pixelValues.shape)}, weight ${formatShape(weight.shape)} and bias ${bias ? formatShape(bias.shape) : 'none'} do not fit [B,C,H,W], [out,C,h,w], [out]`,
    );
  if (height % h !== 0 || width % w !== 0)
    throw new ShapeError(`patchEmbedding: an image of ${height}x${width} is not made of whole patches of ${h}x${w}`);
  const [down, across] = [height / h, width / w];
  const patches = pixelValues
    .reshape([batch, channels, down, h, across, w])
    .permute([0, 2, 4, 1, 3, 5])
    .reshape([batch * down * across, channels * h * w]);
  return linear(patches, weight.reshape([out, channels * h * w]), bias).reshape([batch, down * across, out]);
}
