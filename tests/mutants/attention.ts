// Kept mutants: attention's options and how it is computed without kernels.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/nn/attention.ts': [
    [
      'a soft cap',
      'scaled.div(softcap).tanh().mul(softcap)',
      'scaled.div(softcap).tanh()',
      'attention-products',
      'cap 1.5',
    ],
    [
      'a window to both sides',
      'ahead: causal ? 0 : after',
      'ahead: causal ? 0 : noLimit',
      'attention-edges',
      'both sides',
    ],
    ['a window and causal order', 'ahead: causal ? 0 : after', 'ahead: after', 'ops-fused', 'fused.attention'],
    ['the shape of a bias', '[rows, H, T, S]', '[rows, H, T, bias.shape[3]]', 'ops-fused', 'fused.attention'],
  ],
  'src/nn/attentionProducts.ts': [
    ['rows that are not finite and not seen', "map('attention', finiteOf, [x])", 'x', 'attention-products', 'equals'],
    ['keys that no query sees', 'rows.matmul(isKey.where(x, 0))', 'rows.matmul(x)', 'attention-products', 'padding'],
    [
      'no gradient for such keys',
      'isKey.where(rows.matmul(grouped(x)), 0)',
      'rows.matmul(grouped(x))',
      'attention-products',
      'padding',
    ],
    ['infinite values without weight', 'e.where(e.gt(e.arg(0), 0), 1, many)', '1', 'attention-products', 'weight 0'],
    ['the derivative of the soft cap', 'e.sub(1, e.mul(bent, bent))', '1', 'attention-products', 'cap 1.5'],
    ['a bias that rows share', 'changes.sum(0, { keepDims: true })', 'changes', 'attention-products', 'sum of their'],
    [
      'a window that reaches all keys is none',
      'T - 1 + causalOffset > behind',
      'T - 2 + causalOffset > behind',
      'attention-products',
      'of four',
    ],
  ],
  'src/nn/rmsNorm.ts': [
    [
      'a weight that is added to 1',
      'this.#onePlus ? this.weight.add(1) : this.weight',
      'this.weight',
      'nn-layers',
      'added to 1',
    ],
  ],
  'src/nn/layerNorm.ts': [
    ['a norm without a bias', 'new FixedRow(0)', 'new FixedRow(1)', 'nn-layers', 'without a bias'],
  ],
  'src/nn/fixedRow.ts': [
    ['a row for inputs of another width', 'row.shape[0] === width && ', '', 'nn-layers', 'without a bias'],
    [
      'a row that outlives the scope',
      'keep(create.full([width], this.#value, { dtype, backend }))',
      'create.full([width], this.#value, { dtype, backend })',
      'nn-layers',
      'without a bias',
    ],
  ],
  'src/nn/activations.ts': [['quick_gelu', 'mul(1.702, x)', 'x', 'nn-layers', 'activations by name']],
  'src/nn/rope.ts': [
    [
      'columns that are not rotated',
      'return concat([rope(first, cos, sin, { pairs }), rest], 3);',
      'return concat([first, rest], 3);',
      'nn-rope',
      'first columns turn',
    ],
    [
      'neighbours as pairs',
      "if (pairs === 'halves') return fused",
      'if (pairs) return fused',
      'nn-rope',
      'first columns turn',
    ],
    [
      'frequencies of a part of a head',
      'theta ** f((2 * i) / rotaryDim)',
      'theta ** f((2 * i) / headDim)',
      'nn-rope',
      'part of a head',
    ],
    [
      'columns that yarn blends',
      '(rotaryDim * Math.log(original',
      '(4 * rotaryDim * Math.log(original',
      'nn-rope',
      'yarn',
    ],
  ],
  'src/nn/relativePosition.ts': [
    [
      'keys after the query',
      'bidirectional && distance > 0 ? count : 0',
      'bidirectional && distance >= 0 ? count : 0',
      'nn-positions',
      'both directions',
    ],
    ['the last bucket', 'Math.min(count - 1, ', 'Math.min(count, ', 'nn-positions', 'buckets'],
    [
      'steps of f32',
      'f(Math.log(maxDistance / exact))',
      'f(Math.log(maxDistance / exact) * 1.000001)',
      'nn-positions',
      'buckets',
    ],
    [
      'queries behind cached keys',
      'let distance = 1 - queries - offset;',
      'let distance = 1 - queries;',
      'nn-positions',
      'cached keys',
    ],
  ],
  'src/nn/sinusoidal.ts': [
    ['where the frequencies end', 'inclusive ? half - 1 : half', 'half', 'nn-positions', 'sinusoidal'],
    ['the first position', 'f((start + p) * frequency)', 'f(p * frequency)', 'nn-positions', 'sinusoidal'],
  ],
  'src/backends/cpu/wasm/fused/attentionScores.ts': [
    [
      'a bias of few queries',
      "const bias = keep(f, plus(placeOf(field, 'bias', b, head, t), times(first, 4)));",
      "const bias = keep(f, placeOf(field, 'bias', b, head, t));",
      'attention-products',
      'kernels',
    ],
    ['a row of the bias for each lane', 'plus(t0, lane)', 't0', 'attention-products', 'kernels'],
    ['keys past the last', 'smaller(f, lane, last)', '0', 'attention-products', 'kernels'],
    ['slopes of the cap', 'e.sub(1, e.mul(bent, bent))', 'e.sub(1, bent)', 'attention-products', 'kernels'],
  ],
  'src/backends/cpu/wasm/fused/attention.ts': [
    [
      'a bias for all rows of a batch',
      'words[wordOf.biasB] = 0;',
      'words[wordOf.biasB] = 4;',
      'attention-products',
      'kernels',
    ],
    [
      'finished scores are not scaled again',
      'softcap > 0 || views.bias ? 1 : scale',
      'scale',
      'attention-products',
      'kernels',
    ],
  ],
  'src/backends/cpu/wasm/fused/attentionAgain.ts': [
    [
      'scores of rows computed again',
      'return biasAt ? capped +',
      'return biasAt ? scaled +',
      'attention-products',
      'kernels',
    ],
    [
      'the cap of scores computed again',
      'softcap > 0 ? softcap * Math.tanh(scaled / softcap) : scaled',
      'scaled',
      'attention-products',
      'kernels',
    ],
    [
      'slopes of scores computed again',
      'scale * (1 - Math.tanh(scaledOf(b, head, t, s) / softcap) ** 2)',
      'scale',
      'attention-products',
      'kernels',
    ],
  ],
};
