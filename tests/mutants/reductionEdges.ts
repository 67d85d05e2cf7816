// Kept mutants: reductions, products and fused ops where numbers end.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/tensor/reduction.ts': [
    ['a NaN is among the largest', '.or(x.eq(x).not())', '', 'ops-special', 'take a NaN|topk orders'],
    ['the order of i32 turned round without overflow', "x.dtype === 'i32' ? sub(-1, x) : x.neg()", 'x.neg()', 'ops-special', 'integers at the ends'],
    ['topk of integers stays in integers', "x.dtype === 'i32' ? -0x80000000 : 0", '-Infinity', 'ops-special', 'integers at the ends'],
    ['integers are averaged as floats', 'sum(asFloat(x), list, options)', 'sum(x, list, options)', 'ops-special', 'integers at the ends'],
    ['logSumExp is not shifted by an infinity', 'top.abs().eq(Infinity).where(0, top)', 'top', 'ops-special', 'logSumExp of infinities'],
    ['degrees of freedom end at 0', 'Math.max(0, n - (options.correction ?? 0))', '(n - (options.correction ?? 0))', 'ops-special', 'degrees of freedom|reductions of nothing'],
    ['the norm is scaled', 'top.gt(0).and(top.lt(Infinity)).where(top, 1)', 'top.mul(0).add(1)', 'ops-special', 'norms where'],
    ['the gradient of the norm at 0', 'none.where(0, none.where(1, squares).sqrt().mul(scale.reshape([])))', 'squares.sqrt().mul(scale.reshape([]))', 'ops-special', 'norms where'],
    ['an extremum of nothing is refused', 'if (list.some(a => x.shape[a] === 0)) throw', 'if (list.length > 9) throw', 'ops-special', 'reductions of nothing'],
  ],
  'src/autograd/primitives.ts': [
    ['what an expression reads is checked', 'made.argTypes[i] !== scalarType(dtype)', 'made.argTypes[i] === undefined', 'ops-epilogue', 'own types'],
    ["a NaN takes the maximum's gradient", '.or(x.eq(x).not()).to(x.dtype)', '.to(x.dtype)', 'ops-special', 'take a NaN'],
  ],
  'src/tensor/linalg.ts': [
    ['a product with a bias checks its factors', "  checkFactors(label, a, b);\n", '', 'ops-epilogue', 'no factors'],
  ],
  'src/nn/linear.ts': [
    ['a bias of a vector is checked', "  checkOperands(label, y.shape, y.dtype, operands);\n", '', 'ops-epilogue', 'no factors'],
  ],
  'src/backends/webgpu/reduce.ts': [
    ['a maximum on a GPU keeps NaN', "type === 'f' ? 'largerOf' : 'max'", "'max'", 'webgpu-ops', 'take a NaN'],
  ],
};
