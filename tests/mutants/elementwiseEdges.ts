// Kept mutants: elementwise ops at the ends of the number line, and their derivatives.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/autograd/elementwise.ts': [
    [
      'relu keeps NaN',
      'e.custom(e.where(e.lt(x, 0), 0, x), x, reluRule)',
      'e.custom(e.where(e.lt(0, x), x, 0), x, reluRule)',
      'ops-elementwise',
      'Tensor.relu: NaN',
    ],
    [
      'relu cuts off an infinite gradient',
      'e.where(e.le(x, 0), 0, g)',
      'e.mul(g, e.where(e.le(x, 0), 0, 1))',
      'ops-special',
      'what is cut off',
    ],
    [
      'clamp with its bounds exchanged gives the upper one',
      'e.min(e.max(v, lo), hi)',
      'e.max(e.min(v, hi), lo)',
      'ops-elementwise',
      'Tensor.clamp',
    ],
    [
      "clamp's gradient at a bound",
      'e.le(low, x), e.le(x, high)',
      'e.lt(low, x), e.le(x, high)',
      'ops-special',
      'derivatives at kinks',
    ],
    [
      'softplus of what vanishes beside 1',
      'logOnePlus(e.exp(e.neg(e.abs(x))))',
      'e.log(e.add(1, e.exp(e.neg(e.abs(x)))))',
      'ops-elementwise',
      'Tensor.softplus: equals',
    ],
    [
      "the exponent of a power's derivative",
      'powerOf(x, e.sub(p, 1))',
      'powerOf(x, p)',
      'ops-special',
      'powers near 0',
    ],
    ['even powers of negative numbers', 'e.and(isOdd, negative)', 'negative', 'ops-elementwise', 'Tensor.pow'],
    ['infinite powers of 1', 'e.where(isOne, 1, ', 'e.where(isOdd, ', 'ops-elementwise', 'Tensor.pow'],
    [
      'the cube of geluTanh overflows',
      'const near = within(x, 10);',
      'const near = x;',
      'ops-special',
      'finite over the whole range',
    ],
    [
      'the product of two bools',
      "binary('mul', e.mul, { ofBools: e.and })",
      "binary('mul', e.mul)",
      'ops-special',
      'bools: arithmetic',
    ],
    [
      'numbers beyond i32 make floats',
      "x === (x | 0) ? 'whole'",
      "Number.isInteger(x) ? 'whole'",
      'ops-special',
      'integers stay integers in relu',
    ],
  ],
  'src/backends/cpu/reference.ts': [
    [
      'a number meets an f32 tensor as f32',
      "v.dtype === 'f64')) return uniforms;",
      "v.dtype !== 'i32')) return uniforms;",
      'ops-special',
      'meets a tensor',
    ],
  ],
  'scripts/torchOps/compare.ts': [
    ['an infinity is near nothing', 'Number.isFinite(want) && ', '', 'torch-ops', 'numbers differ'],
  ],
  'src/tensor/layout.ts': [
    ['sums of bools count', "x.dtype === 'bool' ? x.to('i32') : x", 'x', 'ops-special', 'bools: arithmetic'],
    ['a side of -1 that is not there', 'shape.some(side => side < 0) || ', '', 'ops-special', 'expand keeps'],
  ],
  'src/autograd/derive.ts': [
    ["a custom node's own derivative", 'customCotangent(e, g)', 'g', 'engine-expressions', 'derivative rule'],
    [
      'a NaN takes no gradient from the other side of maximum',
      'return [where(loses(x, y), 0, shared), where(loses(y, x), 0, shared)];',
      'const of = (a: Expr, b: Expr): Expr => where(loses(b, a), shared, where(eq(a, b), shared, 0)); return [of(x, y), of(y, x)];',
      'ops-special',
      'a tie shares the gradient of maximum',
    ],
  ],
  'src/backends/cpu/wasm/emit/lanes.ts': [
    ['sin and cos of large numbers are reduced exactly', 'splat(2 ** 20)', 'splat(Infinity)', 'wasm-map', 'anywhere'],
    [
      'the sine of -0',
      "return choose(op('f32x4.eq', x, splat(0)), x, this.sinCos(x, 0));",
      'return this.sinCos(x, 0);',
      'wasm-map',
      'infinities, zeros',
    ],
  ],
  'src/backends/webgpu/mathWgsl.ts': [
    [
      'the logarithm of a subnormal',
      'select(argument, f32(size), subnormal)',
      'argument',
      'webgpu-ops',
      'Tensor.log: NaN',
    ],
    [
      'the sign of a zero through tanh',
      'return withSignOf(x, size + size',
      'return (x + x',
      'webgpu-functions',
      'signs of zeros',
    ],
  ],
  'src/backends/webgpu/emitWgsl.ts': [
    [
      'a NaN is not equal to itself',
      "withNan ? [plain, ...tests].join(' || ')",
      'withNan ? plain',
      'webgpu-ops',
      'Tensor.ne: NaN',
    ],
    ['a NaN passes through maximum', 'mayBeNan(e.args).reduce(', '[].reduce(', 'webgpu-ops', 'Tensor.maximum: NaN'],
  ],
  'src/backends/webgpu/fused/editActivations.ts': [
    [
      'a NaN passes through relu in an edit',
      'return select(z, 0.0, ${isNegative});',
      'return max(z, 0.0);',
      'webgpu-fused-edit',
      'NaN',
    ],
  ],
};
