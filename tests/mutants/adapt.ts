// Kept mutants: what every way of adapting a model shares, and training on it. Values that no error would show: seeds,
// streams, what is kept and what is trained.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/adapt/parameterSet.ts': [
    ['a frozen parameter is not trained', 'requireGrad(trained));', 'requireGrad());', 'adapt-parameterSet', 'names'],
    ['the fan-in of a definition counts', 'fanIn === undefined ? {} : { fanIn }', '{}', 'adapt-parameterSet', 'starts'],
    [
      'R is computed again when a part of its map changed',
      'rotation.cached.versions !== versions',
      'rotation.cached.versions === null',
      'adapt-parameterSet',
      'computes R once',
    ],
    ['a given R is held to the bit', 'error <= takenAsGiven', 'error < 0', 'adapt-parameterSet', 'to the bit'],
    [
      'a set frees the R that it kept',
      'dropCache(rotation);\n    for (const { tensor',
      'void rotation;\n    for (const { tensor',
      'adapt-parameterSet',
      'frees',
    ],
  ],
  'src/train/reuse.ts': [
    [
      'only a causal base keeps prefixes',
      'adapter.base.keepsPrefixes &&',
      'adapter.base !== null &&',
      'adapt-adapter',
      'see those after',
    ],
  ],
  'src/train/runSettings.ts': [
    ['settings of an adapter are compared', '    ...adapter.settings(),\n', '', 'adapt-adapter', 'other settings'],
  ],
  'src/reft/reftModel.ts': [
    [
      'each edit drops by a stream of its own',
      'this.interventions.length + number;',
      'this.interventions.length;',
      'train-values',
      'dropout draws',
    ],
    ['what is switched off changes nothing', 'i.enabled && positionsOf', 'positionsOf', 'adapt-adapter', 'switches'],
    [
      'an edit within a block comes before its end',
      'sites.every(\n      site => site.layer > layer',
      'sites.some(\n      site => site.layer > layer',
      'adapt-adapter',
      'first change',
    ],
  ],
  'src/adapt/files.ts': [
    [
      'rows of a file must be orthonormal',
      'error <= orthonormalTolerance',
      'error >= 0',
      'reft-adapter interchange-files',
    ],
    [
      'a tensor that nobody expects is refused',
      'if (!expected.has(name))',
      'if (name === "")',
      'reft-adapter interchange-files',
    ],
  ],
  'src/train/windows.ts': [
    ['labels with holes', 'if (labels[t] < 0) continue;', 'if (labels[t] === -1) continue;', 'train-values', 'a batch'],
    [
      'kept tokens are on the left',
      'fill(1, at - start, at + end - start)',
      'fill(1, at, at + end - start)',
      'train-values',
      'a batch',
    ],
  ],
  'src/train/data.ts': [
    [
      'the first label judges nothing',
      't > 0 && label >= 0 ? 1 : 0',
      'label >= 0 ? 1 : 0',
      'train-values',
      'reach from',
    ],
  ],
  'src/train/trainer.ts': [
    [
      'a micro-batch has a stream of its own',
      '* this.examples.length + k',
      '* this.examples.length',
      'train-values',
      'masks of a run',
    ],
    ['a step has a stream of its own', 'step: this.progress.done *', 'step: 0 *', 'train-values', 'masks of a run'],
  ],
  'src/train/objectives.ts': [['beta of preferences', '.mul(-beta)', '.mul(-1)', 'train-values', 'preferences']],
  'src/train/evaluate.ts': [
    ['a row is right as a whole', 'windows.length - wrong.size', 'windows.length', 'train-values', 'shares'],
  ],
  'src/nn/hostMatrices.ts': [
    [
      'a NaN is not orthonormal',
      'if (Number.isNaN(error)) return',
      'if (error < 0) return',
      'adapt-parameterSet',
      'NaN',
    ],
    [
      'rows that depend on others drop out',
      'length > 1e-6 * lengthOf(given)',
      'length > 0',
      'adapt-parameterSet',
      'leaves out',
    ],
    ['eigenvalues of small matrices are as exact', '1e-30 * total', '1e-30', 'adapt-parameterSet', 'tiny'],
  ],
};
