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
};
