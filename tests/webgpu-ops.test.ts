// The op table on WebGPU: every recipe's values and gradients against the f64 oracle, within the recipe's bounds, and
// the same from other layouts. See helpers/checksAwaited.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkTableOn } from './helpers/checksAwaited.js';
import { counted, type Machine } from './helpers/machines.js';
import { elementwise } from './helpers/recipes/elementwise.js';
import { fusedRecipes } from './helpers/recipes/fused.js';
import { layout } from './helpers/recipes/layout.js';
import { products, reductions } from './helpers/recipes/reductions.js';
import './helpers/specialElementwise.js';
import './helpers/specialReductions.js';
import { checkSpecials } from './helpers/specials.js';
import { openForTests } from './helpers/webgpu.js';

const backend = await openForTests();

if (backend) {
  const taken = new Map<string, number>();
  const machine: Machine = { name: 'WebGPU', backend: counted(backend, taken), dtype: 'f32' };
  checkTableOn(machine, [...elementwise, ...layout, ...reductions, ...products, ...fusedRecipes], 4);
  checkSpecials([machine], { cpu: false });

  // Tests of a file run in order: by now every recipe has.
  test('WebGPU: every fused kernel took calls', () => {
    assert.ok(taken.size >= 9, 'taken.size >= 9');
    for (const [name, count] of taken) assert.ok(count > 0, `the kernel ${name} declined every call of the recipes`);
  });
}
