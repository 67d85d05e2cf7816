// Kept mutants of recurrent and convolutional layers.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/nn/linearScan.ts': [
    [
      'sequences that are left, by their order',
      'const left = sequences.filter(s => length(s) > t);',
      'const left = [...starts.keys()].filter(s => length(s) > t);',
      'nn-scan',
      'linearScan of width 7.*reference f64',
    ],
  ],
  'src/nn/conv.ts': [
    [
      'the oldest input of a window',
      'rowOf(s, row - start - before + j)',
      'rowOf(s, row - start - j)',
      'nn-conv',
      'causalConv1d: the last tap',
    ],
    [
      'the inputs of a state, by sequence',
      'rows + (s + 1) * before + t',
      'rows + s * before - t - 1',
      'nn-conv',
      'causalConv1d: the last tap',
    ],
    ['zeros before the first time step', '% taps) - padding', '% taps)', 'nn-conv', "conv1d: Whisper's"],
    ['the order of channels and taps', 'weight.transpose(1, 2).reshape', 'weight.reshape', 'nn-conv', 'conv1d takes'],
    [
      'the order within a patch',
      '.permute([0, 2, 4, 1, 3, 5])',
      '.permute([0, 2, 4, 1, 5, 3])',
      'nn-conv',
      'patchEmbedding',
    ],
  ],
  'src/nn/selectiveScan.ts': [
    [
      'the input that goes past the states',
      'const outputOf = add(arg(0), mul(arg(1), arg(2)));',
      'const outputOf = add(arg(0), arg(2));',
      'ops-fused',
      'selectiveScan: equals its reference',
    ],
    [
      "the skip's gradient",
      'gradient.slice(0, 0, rows).mul(x).sum(0)',
      'gradient.slice(0, 0, rows).sum(0)',
      'ops-fused',
      'selectiveScan.*gradients of kernels',
    ],
  ],
  'src/backends/cpu/wasm/fused/selectiveScan.ts': [
    [
      'the first token without a state takes no factor',
      "f.set(isFirst, op('i32.eqz', carried));",
      'f.set(isFirst, 0);',
      'nn-scan',
      'without a state',
    ],
    [
      'the shares of the last steps in the gradient of A',
      '      addNear();\n      f.if(carried',
      '      f.if(carried',
      'ops-fused',
      'selectiveScan.*gradients of kernels',
    ],
    [
      'the decay in the gradient of a time step',
      'add(mul(input, fromInput), fromDecay)',
      'mul(input, fromInput)',
      'ops-fused',
      'selectiveScan.*gradients of kernels',
    ],
  ],
  'src/nn/ssru.ts': [
    ['the share of the candidate', 'sigmoidOf(neg(arg(0)))', 'sigmoidOf(arg(0))', 'nn-conv', 'ssru: a gate'],
  ],
  'src/nn/sequences.ts': [
    [
      'the state of a sequence without rows',
      'const missing = (s: number): number => (before ? rows + s : -1);',
      'const missing = (): number => -1;',
      'nn-scan',
      'keeps its state',
    ],
  ],
  'src/backends/cpu/wasm/fused/scans.ts': [
    [
      'the initial state of the next sequence',
      '    f.add(initial, rowBytes);\n',
      '',
      'nn-scan',
      'linearScan of width 7.*cpu',
    ],
    [
      'the gradient of an initial state without rows',
      '() => f.fill(dInitial, 0, columnBytes)',
      '() => f.fill(dInitial, 64, columnBytes)',
      'ops-fused',
      'linearScan.*gradients of kernels',
    ],
  ],
  'src/backends/webgpu/fused/scans.ts': [
    [
      'the states that a selective scan begins with',
      "maps.copy({ input: initial, output: begin }, 'selectiveScan');",
      'void begin;',
      'webgpu-scans',
      'selectiveScan: a sequence',
    ],
    [
      'the first row of a sequence does not look at the one before',
      'if (row - 1u > first) {',
      'if (row > 1u) {',
      'webgpu-ops',
      'linearScan: gradients',
    ],
  ],
};
