// Kept mutants: reductions, products and fused ops where numbers end.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/tensor/reduction.ts': [
    ['a NaN is among the largest', '.or(x.eq(x).not())', '', 'ops-special', 'take a NaN|topk orders'],
    [
      'the order of i32 turned round without overflow',
      "x.dtype === 'i32' ? sub(-1, x) : x.neg()",
      'x.neg()',
      'ops-special',
      'integers at the ends',
    ],
    [
      'topk of integers stays in integers',
      "x.dtype === 'i32' ? -0x80000000 : 0",
      '-Infinity',
      'ops-special',
      'integers at the ends',
    ],
    [
      'integers are averaged as floats',
      'sum(asFloat(x), list, options)',
      'sum(x, list, options)',
      'ops-special',
      'integers at the ends',
    ],
    [
      'logSumExp is not shifted by an infinity',
      'top.abs().eq(Infinity).where(0, top)',
      'top',
      'ops-special',
      'logSumExp of infinities',
    ],
    [
      'degrees of freedom end at 0',
      'Math.max(0, n - (options.correction ?? 0))',
      '(n - (options.correction ?? 0))',
      'ops-special',
      'degrees of freedom|reductions of nothing',
    ],
    [
      'the norm is scaled',
      'top.gt(0).and(top.lt(Infinity)).where(top, 1)',
      'top.mul(0).add(1)',
      'ops-special',
      'norms where',
    ],
    [
      'the gradient of the norm at 0',
      'none.where(0, none.where(1, squares).sqrt().mul(scale.reshape([])))',
      'squares.sqrt().mul(scale.reshape([]))',
      'ops-special',
      'norms where',
    ],
    [
      'an extremum of nothing is refused',
      'list.some(a => x.shape[a] === 0)',
      'list.length > 9',
      'ops-special',
      'reductions of nothing',
    ],
  ],
  'src/autograd/primitives.ts': [
    [
      'what an expression reads is checked',
      'made.argTypes[i] !== scalarType(dtype)',
      'made.argTypes[i] === undefined',
      'ops-epilogue',
      'own types',
    ],
    [
      "a NaN takes the maximum's gradient",
      '.or(x.eq(x).not()).to(x.dtype)',
      '.to(x.dtype)',
      'ops-special',
      'take a NaN',
    ],
  ],
  'src/tensor/linalg.ts': [
    ['a product with a bias checks its factors', '  checkFactors(label, a, b);\n', '', 'ops-epilogue', 'no factors'],
  ],
  'src/nn/linear.ts': [
    [
      'a bias of a vector is checked',
      '  checkOperands(label, y.shape, y.dtype, operands);\n',
      '',
      'ops-epilogue',
      'no factors',
    ],
  ],
  'src/nn/attention.ts': [
    [
      'what a query does not see is not multiplied',
      "[arg(1), arg(2)].map(x => where(arg(0, 'b'), x, 0))",
      '[arg(1), arg(2)].map(x => x)',
      'attention-products',
      'equals the definition',
    ],
    [
      'no weight where all scores are -Infinity',
      'weights.div(total.eq(0).where(1, total))',
      'weights.div(total)',
      'attention-products',
      'equals the definition',
    ],
    ['a negative end of the keys', ' || keyEnd[b] < 0', '', 'attention-edges', 'refused'],
    ['integers in attention', '!isFloat(q.dtype) || ', '', 'attention-edges', 'refused'],
  ],
  'src/nn/crossEntropy.ts': [
    [
      'rows without a label are not looked at',
      'counts.unsqueeze(1).where(logits, 0)',
      'logits',
      'ops-special',
      'take no part',
    ],
  ],
  'src/backends/cpu/wasm/fused/attention.ts': [
    [
      'rows that came out NaN are computed again',
      'if (mayBeNaN && differ) forwardAgain',
      'if (mayBeNaN && !differ) forwardAgain',
      'attention-edges',
      'not finite',
    ],
    [
      'gradients that came out NaN are computed again',
      'if (mayBeNaN) backwardAgain',
      'if (!mayBeNaN) backwardAgain',
      'attention-edges',
      'not finite|is NaN',
    ],
    [
      'few queries are looked at',
      'made);\n      return true;',
      'made);\n      return false;',
      'attention-edges',
      'few queries',
    ],
  ],
  'src/backends/cpu/wasm/fused/attentionFew.ts': [
    [
      'few queries whose scores are all -Infinity',
      "op('f32x4.max', most, splat(lowest))",
      'most',
      'attention-edges',
      'infinite',
    ],
  ],
  'src/backends/cpu/wasm/fused/panelProducts.ts': [
    [
      'a NaN among the results is noted',
      "f.if(op('v128.any_true', unordered), ",
      "f.if(op('i32x4.all_true', unordered), ",
      'attention-edges',
      'not finite',
    ],
  ],
  'src/backends/webgpu/fused/attention.ts': [
    [
      'a GPU computes rows that came out NaN again',
      'queries > 1 && (queries - 1 + causalOffset',
      'queries < 1 && (queries - 1 + causalOffset',
      'webgpu-fused-attention',
      'a window: what is not finite',
    ],
  ],
  'src/backends/webgpu/fused/attentionAgain.ts': [
    [
      'a GPU computes gradients that came out NaN again',
      'if (!(againK | againV)) { return; }',
      'if (againK | againV) { return; }',
      'webgpu-fused-attention',
      'a window: what is not finite|a window: a query',
    ],
  ],
  'src/backends/webgpu/reduce.ts': [
    ['a maximum on a GPU keeps NaN', "type === 'f' ? 'largerOf' : 'max'", "'max'", 'webgpu-ops', 'take a NaN'],
  ],
  'src/autograd/tape.ts': [
    [
      'gradients that nobody wants are not asked for',
      't.node !== null && leads.has(t.node)',
      't.node !== null',
      'engine-tape',
      'asked for',
    ],
    [
      'a gradient outlives what saved it',
      'own.storage.orphan = false;',
      'own.storage.orphan = true;',
      'engine-tape',
      'accumulate like others',
    ],
    [
      'the gradient before is freed',
      '!options.createGraph && !holdingIntermediates()) before.storage.dispose();',
      'false) before.storage.dispose();',
      'engine-scopes',
      'accumulate',
    ],
  ],
  'src/autograd/scope.ts': [
    [
      'a thenable is refused as a promise is',
      "result instanceof Promise || (typeof result === 'object' && result !== null && 'then' in result)",
      'result instanceof Promise',
      'engine-scopes',
      'async body',
    ],
  ],
  'src/tensor/layout.ts': [
    ['a negative end counts from the end', 'end < 0 ? end + side : end', 'end', 'ops-layout', 'Tensor.slice: equals'],
  ],
  'src/autograd/fused.ts': [
    [
      'second derivatives of a kernel begin at its gradient',
      '{ gradient, createGraph, from }',
      '{ createGraph, from }',
      'engine-tape',
      'ran as kernels',
    ],
  ],
  'src/nn/optim.ts': [
    [
      'the norm that clips does not overflow',
      'stack(gradients.map(x => x.norm().to(widest))).norm()',
      'gradients.map(x => x.square().sum()).reduce((a, b) => a.add(b)).sqrt()',
      'nn-optim',
      'squares overflow',
    ],
  ],
};
