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
      'adapter.base.causal !== false',
      'adapter.base !== null',
      'adapt-adapter',
      'see those after',
    ],
  ],
  'src/train/runSettings.ts': [
    ['settings of an adapter are compared', '    ...adapter.settings(),\n', '', 'adapt-adapter', 'other settings'],
  ],
  'src/reft/reftModel.ts': [
    ['what is switched off changes nothing', 'i.enabled && positionsOf', 'positionsOf', 'adapt-adapter', 'switches'],
    [
      'an edit within a block comes before its end',
      'sites.every(\n      site => site.layer > layer',
      'sites.some(\n      site => site.layer > layer',
      'adapt-adapter',
      'first change',
    ],
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
