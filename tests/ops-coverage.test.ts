// An op without a recipe fails here. What is public and not an op is listed, with nothing else allowed on the lists.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as autograd from '../src/autograd/index.js';
import '../src/index.js';
import * as tensorModule from '../src/tensor/index.js';
import { Tensor } from '../src/tensor/index.js';
import { elementwise } from './helpers/recipes/elementwise.js';
import { fusedRecipes } from './helpers/recipes/fused.js';
import { layout } from './helpers/recipes/layout.js';
import { products, reductions } from './helpers/recipes/reductions.js';

const table = [...elementwise, ...layout, ...reductions, ...products, ...fusedRecipes];
const covered = new Set(table.map(r => r.name));

/** Reading, marking and showing, tested in engine-tape, engine-scopes and ops-special. */
const notOps = {
  Tensor: [
    'constructor',
    'view',
    'data',
    'dataSync',
    'item',
    'toArray',
    'requireGrad',
    'detach',
    'backward',
    'toString',
  ],
  tensor: [
    'Random',
    'ShapeError',
    'Tensor',
    'create',
    'defaultBackend',
    'grad',
    'gradcheck',
    'keep',
    'noGrad',
    'openScope',
    'packedRowBytes',
    'packedWeightBytes',
    'packings',
    // Tested in packed-rounded.
    'roundedProducts',
    'scope',
    'setDefaultBackend',
    'stats',
    'tensor',
    // Tested in packed-tensors.
    'unpack',
    'valueAndGrad',
    'withBackend',
    'zeroGrad',
  ],
  autograd: [
    'Node',
    'backward',
    'defineFused',
    'enableGrad',
    'expr',
    'fusedOps',
    'grad',
    'gradcheck',
    'gradientsOf',
    'graphOf',
    'holdIntermediates',
    'isRecording',
    'keep',
    'mapInto',
    'noGrad',
    'openScope',
    // Tested in engine-recompute.
    'recompute',
    'runFused',
    'scope',
    'site',
    'valueAndGrad',
    'zeroGrad',
  ],
};

function every(group: keyof typeof notOps, names: readonly string[]): void {
  test(`every op of ${group} has a recipe`, () => {
    for (const name of notOps[group])
      assert.ok(names.includes(name), `${group}.${name} is listed as no op, and does not exist`);
    const missing = names.filter(name => !notOps[group].includes(name) && !covered.has(`${group}.${name}`));
    assert.deepEqual(missing, [], `${group}: ops without a recipe`);
  });
}

const methods = Object.entries(Object.getOwnPropertyDescriptors(Tensor.prototype))
  .filter(([, d]) => typeof d.value === 'function')
  .map(([name]) => name);
every('Tensor', methods);
every('tensor', Object.keys(tensorModule));
every('autograd', Object.keys(autograd));

test('every fused op has a recipe, and every recipe an op', () => {
  const names = [...autograd.fusedOps.keys()];
  assert.ok(names.length >= 6, names.join(', '));
  assert.deepEqual(
    names.filter(name => !covered.has(`fused.${name}`)),
    [],
    'fused ops without a recipe',
  );
  const known = new Set([
    ...methods.map(name => `Tensor.${name}`),
    ...Object.keys(tensorModule).map(name => `tensor.${name}`),
    ...Object.keys(autograd).map(name => `autograd.${name}`),
    ...names.map(name => `fused.${name}`),
  ]);
  assert.deepEqual(
    [...covered].filter(name => !known.has(name)),
    [],
    'recipes of what does not exist',
  );
  for (const r of table) if (r.name.startsWith('fused.')) assert.equal(`fused.${r.fused ?? ''}`, r.name);
});
