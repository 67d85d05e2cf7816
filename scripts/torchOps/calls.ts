// Which op of ours stands for which of torch: names as OpInfo has them, torch's parameters in their order, and the
// call. `sums: true` marks ops whose results are sums of many terms: they are compared relative to the largest result.

import { crossEntropy } from '../../src/nn/crossEntropy.js';
import { attention } from '../../src/nn/attention.js';
import { layerNorm } from '../../src/nn/layerNorm.js';
import { linear } from '../../src/nn/linear.js';
import { rmsNorm } from '../../src/nn/rmsNorm.js';
import { create } from '../../src/tensor/create.js';
import { concat, einsum, pad, stack, type DType, type Tensor } from '../../src/tensor/index.js';
import { NotOurs, type Arguments } from './arguments.js';

export interface TorchCall {
  readonly names: readonly string[];
  readonly run: (a: Arguments) => Tensor | Tensor[];
  readonly sums?: boolean;
}

type UnaryName =
  | 'neg'
  | 'abs'
  | 'square'
  | 'exp'
  | 'log'
  | 'sqrt'
  | 'rsqrt'
  | 'sin'
  | 'cos'
  | 'tanh'
  | 'erf'
  | 'sigmoid'
  | 'relu'
  | 'silu'
  | 'floor';
type BinaryName = 'add' | 'sub' | 'mul' | 'div' | 'maximum' | 'minimum' | 'eq' | 'ne' | 'lt' | 'le' | 'gt' | 'ge';

const unary = (name: UnaryName): TorchCall => ({ names: ['input', 'inplace'], run: a => a.tensor()[name]() });
const binary = (name: BinaryName): TorchCall => ({
  names: ['input', 'other'],
  run: a => a.tensor()[name](a.operand()),
});
/** With a factor on the second operand. */
const scaled = (name: 'add' | 'sub'): TorchCall => ({
  names: ['input', 'other', 'alpha'],
  run(a) {
    const other = a.operand();
    const alpha = a.number('alpha', 1);
    return a.tensor()[name](alpha === 1 ? other : typeof other === 'number' ? other * alpha : other.mul(alpha));
  },
});
const logic = (name: 'and' | 'or'): TorchCall => ({
  names: ['input', 'other'],
  run: a => a.tensor().to('bool')[name](a.tensor('other').to('bool')),
});
const dtypes: Readonly<Record<string, DType>> = {
  'torch.float64': 'f64',
  'torch.float32': 'f32',
  'torch.int64': 'i32',
  'torch.int32': 'i32',
  'torch.bool': 'bool',
};
const cast = (dtype: DType): TorchCall => ({ names: ['input'], run: a => a.tensor().to(dtype) });

/** Axes and keepDims of a reduction. */
const reduced = (name: 'sum' | 'mean' | 'max' | 'min'): TorchCall => ({
  names: ['input', 'dim', 'keepdim'],
  sums: true,
  run: a => a.tensor()[name](a.numbers('dim'), { keepDims: a.flag('keepdim') }),
});
/** torch gives values and indices. */
const extreme = (value: 'max' | 'min', at: 'argmax' | 'argmin'): TorchCall => ({
  names: ['input', 'dim', 'keepdim'],
  run(a) {
    const options = { keepDims: a.flag('keepdim') };
    return [a.tensor()[value](a.number('dim'), options), a.tensor()[at](a.number('dim'), options)];
  },
});
const position = (name: 'argmax' | 'argmin'): TorchCall => ({
  names: ['input', 'dim', 'keepdim'],
  run(a) {
    if (a.has('dim')) return a.tensor()[name](a.number('dim'), { keepDims: a.flag('keepdim') });
    if (a.flag('keepdim')) throw new NotOurs('keepdim over all axes');
    return a.tensor().flatten()[name](0);
  },
});
const product = (names: readonly string[] = ['input', 'other'], [left, right] = names): TorchCall => ({
  names,
  sums: true,
  run: a => a.tensor(left).matmul(a.tensor(right)),
});
const shaped = (f: (x: Tensor, shape: readonly number[]) => Tensor): TorchCall => ({
  names: ['input', 'shape'],
  run: a => f(a.tensor(), a.numbers('shape') ?? []),
});
const viewed = (f: (x: Tensor) => Tensor): TorchCall => ({ names: ['input'], run: a => f(a.tensor()) });
const padded: TorchCall = {
  names: ['input', 'pad', 'mode', 'value'],
  run(a) {
    const x = a.tensor();
    const sides = a.numbers('pad') ?? [];
    if (a.number('value', 0) !== 0 || a.text('mode', 'constant') !== 'constant' || sides.some(n => n < 0))
      throw new NotOurs('padding other than zeros');
    // torch's pairs start at the last axis.
    const side = (end: 0 | 1): number[] => x.shape.map((_, axis) => sides[2 * (x.rank - 1 - axis) + end] ?? 0);
    return pad(x, side(0), side(1));
  },
};
const pieces: TorchCall = {
  names: ['input', 'sizes', 'dim'],
  run(a) {
    const x = a.tensor();
    const dim = a.number('dim', 0);
    const given = a.raw('sizes');
    if (typeof given !== 'number') return x.split(a.numbers('sizes') ?? [], dim);
    const side = x.shape.at(dim) ?? 0;
    return x.split(
      Array.from({ length: Math.ceil(side / given) }, (_, i) => Math.min(given, side - i * given)),
      dim,
    );
  },
};
const filled = (make: (shape: readonly number[], dtype: DType) => Tensor): TorchCall => ({
  names: ['size', 'dtype', 'device'],
  run: a => make(a.numbers('size') ?? [], dtypeOf(a)),
});

function dtypeOf(a: Arguments): DType {
  const given = a.raw('dtype') as { dtype: string } | null;
  const dtype = given ? dtypes[given.dtype] : 'f32';
  if (!dtype) throw new NotOurs(`dtype ${given?.dtype}`);
  return dtype;
}

/** An index tensor of rank 0 or 1 along any axis. */
function along(x: Tensor, dim: number, f: (x: Tensor) => Tensor): Tensor {
  return dim === 0 || x.rank < 2 ? f(x) : f(x.transpose(0, dim)).transpose(0, dim);
}

export const calls: Readonly<Record<string, TorchCall>> = {
  neg: unary('neg'),
  abs: unary('abs'),
  square: unary('square'),
  exp: unary('exp'),
  log: unary('log'),
  sqrt: unary('sqrt'),
  rsqrt: unary('rsqrt'),
  sin: unary('sin'),
  cos: unary('cos'),
  tanh: unary('tanh'),
  erf: unary('erf'),
  sigmoid: unary('sigmoid'),
  floor: unary('floor'),
  'nn.functional.relu': unary('relu'),
  'nn.functional.silu': unary('silu'),
  reciprocal: viewed(x => x.pow(-1)),
  'nn.functional.gelu': {
    names: ['input', 'approximate'],
    run: a => (a.text('approximate', 'none') === 'tanh' ? a.tensor().geluTanh() : a.tensor().gelu()),
  },
  'nn.functional.softplus': {
    names: ['input', 'beta', 'threshold'],
    run(a) {
      if (a.number('beta', 1) !== 1 || a.number('threshold', 20) !== 20) throw new NotOurs('another beta or threshold');
      return a.tensor().softplus();
    },
  },
  'nn.functional.logsigmoid': viewed(x => x.neg().softplus().neg()),

  add: scaled('add'),
  sub: scaled('sub'),
  mul: binary('mul'),
  'div.no_rounding_mode': { names: ['input', 'other', 'rounding_mode'], run: a => a.tensor().div(a.operand()) },
  true_divide: binary('div'),
  maximum: binary('maximum'),
  minimum: binary('minimum'),
  'max.binary': binary('maximum'),
  'min.binary': binary('minimum'),
  pow: { names: ['input', 'exponent'], run: a => a.tensor().pow(a.number('exponent')) },
  eq: binary('eq'),
  ne: binary('ne'),
  lt: binary('lt'),
  le: binary('le'),
  gt: binary('gt'),
  ge: binary('ge'),
  isnan: viewed(x => x.ne(x)),
  logical_and: logic('and'),
  logical_or: logic('or'),
  logical_not: viewed(x => x.to('bool').not()),
  clamp: {
    names: ['input', 'min', 'max'],
    run: a => a.tensor().clamp(a.number('min', -Infinity), a.number('max', Infinity)),
  },
  where: {
    names: ['input', 'condition', 'other'],
    run: a => a.tensor('condition').where(a.operand('input'), a.operand()),
  },
  masked_fill: {
    names: ['input', 'mask', 'value'],
    run(a) {
      const [x, value] = [a.tensor(), a.operand('value')];
      // torch gives the value the type of what it fills.
      return a
        .tensor('mask')
        .where(typeof value !== 'number' ? value.to(x.dtype) : x.dtype === 'bool' ? Number(value !== 0) : value, x);
    },
  },
  float: cast('f32'),
  double: cast('f64'),
  int: cast('i32'),
  long: cast('i32'),
  bool: cast('bool'),

  reshape: shaped((x, s) => x.reshape(s)),
  view: shaped((x, s) => x.reshape(s)),
  expand: shaped((x, s) => x.expand(s)),
  broadcast_to: shaped((x, s) => x.expand(s)),
  permute: shaped((x, s) => x.permute(s)),
  contiguous: viewed(x => x.contiguous()),
  ravel: viewed(x => x.flatten()),
  T: viewed(x => x.permute(x.shape.map((_, i) => x.rank - 1 - i))),
  t: viewed(x => (x.rank < 2 ? x : x.transpose())),
  mT: viewed(x => x.transpose()),
  transpose: { names: ['input', 'dim0', 'dim1'], run: a => a.tensor().transpose(a.number('dim0'), a.number('dim1')) },
  squeeze: { names: ['input', 'dim'], run: a => a.tensor().squeeze(a.numbers('dim')) },
  'squeeze.multiple': { names: ['input', 'dim'], run: a => a.tensor().squeeze(a.numbers('dim')) },
  unsqueeze: { names: ['input', 'dim'], run: a => a.tensor().unsqueeze(a.number('dim')) },
  narrow: {
    names: ['input', 'dim', 'start', 'length'],
    run(a) {
      const [x, dim, given] = [a.tensor(), a.number('dim'), a.number('start')];
      const start = given < 0 ? given + (x.shape.at(dim) ?? 0) : given;
      return x.slice(dim, start, start + a.number('length'));
    },
  },
  select: { names: ['input', 'dim', 'index'], run: a => a.tensor().select(a.number('dim'), a.number('index')) },
  split: pieces,
  'split.list_args': pieces,
  split_with_sizes: pieces,
  cat: { names: ['tensors', 'dim'], run: a => concat(a.tensors('tensors'), a.number('dim', 0)) },
  stack: { names: ['tensors', 'dim'], run: a => stack(a.tensors('tensors'), a.number('dim', 0)) },
  constant_pad_nd: { ...padded, names: ['input', 'pad', 'value'] },
  'nn.functional.pad.constant': padded,
  index_select: {
    names: ['input', 'dim', 'index'],
    run: a => along(a.tensor(), a.number('dim'), x => x.takeRows(a.indices('index'))),
  },
  index_add: {
    names: ['input', 'dim', 'index', 'source', 'alpha'],
    run(a) {
      const [x, dim] = [a.tensor(), a.number('dim')];
      const alpha = a.number('alpha', 1);
      const source = alpha === 1 ? a.tensor('source') : a.tensor('source').mul(alpha);
      return x.add(along(source, dim, s => s.scatterAddRows(a.indices('index'), x.shape.at(dim) ?? 0)));
    },
  },
  'nn.functional.embedding': {
    names: ['indices', 'weight'],
    run(a) {
      const shape = a.tensor('indices').shape;
      return a
        .tensor('weight')
        .takeRows(a.indices('indices'))
        .reshape([...shape, ...a.tensor('weight').shape.slice(1)]);
    },
  },
  tril: { names: ['input', 'diagonal'], run: a => a.tensor().tril(a.number('diagonal', 0)) },
  triu: { names: ['input', 'diagonal'], run: a => a.tensor().triu(a.number('diagonal', 0)) },
  zeros: filled((shape, dtype) => create.zeros(shape, { dtype })),
  ones: filled((shape, dtype) => create.ones(shape, { dtype })),
  full: {
    names: ['size', 'value', 'dtype', 'device'],
    run: a => create.full(a.numbers('size') ?? [], a.number('value'), { dtype: dtypeOf(a) }),
  },

  sum: reduced('sum'),
  mean: reduced('mean'),
  amax: reduced('max'),
  amin: reduced('min'),
  'max.reduction_no_dim': viewed(x => x.max()),
  'min.reduction_no_dim': viewed(x => x.min()),
  'max.reduction_with_dim': extreme('max', 'argmax'),
  'min.reduction_with_dim': extreme('min', 'argmin'),
  argmax: position('argmax'),
  argmin: position('argmin'),
  var: {
    names: ['input', 'dim', 'correction', 'keepdim'],
    sums: true,
    run: a =>
      a.tensor().variance(a.numbers('dim'), { keepDims: a.flag('keepdim'), correction: a.number('correction', 1) }),
  },
  logsumexp: {
    names: ['input', 'dim', 'keepdim'],
    sums: true,
    run(a) {
      const axes = a.numbers('dim') ?? [];
      if (axes.length !== 1) throw new NotOurs('several axes');
      return a.tensor().logSumExp(axes[0], { keepDims: a.flag('keepdim') });
    },
  },
  cumsum: { names: ['input', 'dim'], sums: true, run: a => a.tensor().cumsum(a.number('dim')) },
  topk: {
    names: ['input', 'k', 'dim', 'largest', 'sorted'],
    run(a) {
      const x = a.tensor();
      if (!a.flag('largest', true) || ![-1, x.rank - 1].includes(a.number('dim', -1)))
        throw new NotOurs('the smallest, or another axis');
      const { values, indices } = x.topk(a.number('k'));
      return [values, indices];
    },
  },
  softmax: { names: ['input', 'dim'], sums: true, run: a => a.tensor().softmax(a.number('dim')) },
  log_softmax: { names: ['input', 'dim'], sums: true, run: a => a.tensor().logSoftmax(a.number('dim')) },
  'linalg.vector_norm': {
    names: ['input', 'ord', 'dim', 'keepdim'],
    sums: true,
    run(a) {
      if (a.number('ord', 2) !== 2 || a.has('dim') || a.flag('keepdim')) throw new NotOurs('another order, or an axis');
      return a.tensor().norm();
    },
  },

  matmul: product(),
  mm: product(),
  bmm: product(),
  mv: product(),
  dot: product(),
  __rmatmul__: product(['input', 'other'], ['other', 'input']),
  einsum: {
    names: ['operands', 'equation'],
    sums: true,
    run: a => einsum(a.text('equation', ''), ...a.tensors('operands')),
  },
  'nn.functional.linear': {
    names: ['input', 'weight', 'bias'],
    sums: true,
    run: a => linear(a.tensor(), a.tensor('weight'), a.has('bias') ? a.tensor('bias') : null),
  },
  'nn.functional.layer_norm': {
    names: ['input', 'shape', 'weight', 'bias', 'eps'],
    sums: true,
    run(a) {
      if (a.numbers('shape')?.length !== 1 || !a.has('weight') || !a.has('bias'))
        throw new NotOurs('several axes, or no weight or bias');
      return layerNorm(a.tensor(), a.tensor('weight'), a.tensor('bias'), a.number('eps', 1e-5));
    },
  },
  'nn.functional.rms_norm': {
    names: ['input', 'shape', 'weight', 'eps'],
    sums: true,
    run(a) {
      if (a.numbers('shape')?.length !== 1 || !a.has('weight')) throw new NotOurs('several axes, or no weight');
      const x = a.tensor();
      return rmsNorm(x, a.tensor('weight'), a.number('eps', x.dtype === 'f64' ? 2 ** -52 : 2 ** -23));
    },
  },
  'nn.functional.cross_entropy': {
    names: ['input', 'target', 'ignore_index', 'reduction'],
    sums: true,
    run(a) {
      const [x, ignored, reduction] = [a.tensor(), a.number('ignore_index', -100), a.text('reduction', 'mean')];
      if (x.rank !== 2) throw new NotOurs('classes on an inner axis');
      const labels = a.indices('target').map(label => (label === ignored ? -1 : label));
      const losses = crossEntropy(x, labels);
      return reduction === 'none'
        ? losses
        : reduction === 'sum'
          ? losses.sum()
          : losses.sum().div(labels.filter(label => label >= 0).length);
    },
  },
  'nn.functional.scaled_dot_product_attention': {
    names: ['query', 'key', 'value', 'attn_mask', 'dropout_p', 'is_causal', 'scale', 'enable_gqa'],
    sums: true,
    run(a) {
      const [q, k, v] = ['query', 'key', 'value'].map(name => a.tensor(name));
      if (a.has('attn_mask') || a.number('dropout_p', 0) !== 0) throw new NotOurs('a mask or dropout');
      if (q.rank < 3 || q.rank > 4 || k.rank !== q.rank || k.shape.at(-1) !== v.shape.at(-1))
        throw new NotOurs('other shapes');
      const four = (x: Tensor): Tensor => (x.rank === 3 ? x.unsqueeze(0) : x);
      const result = attention(four(q), four(k), four(v), {
        causal: a.flag('is_causal'),
        ...(a.has('scale') ? { scale: a.number('scale') } : {}),
      });
      return q.rank === 3 ? result.squeeze(0) : result;
    },
  },
};
