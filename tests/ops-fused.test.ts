// Fused ops: the op table's checks, and that every kernel of the CPU backend was really used. See helpers/checks.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fusedOps } from '../src/autograd/index.js';
import { checkTable } from './helpers/checks.js';
import { accepted, cpu } from './helpers/machines.js';
import { fusedRecipes } from './helpers/recipes/fused.js';

checkTable(fusedRecipes);

test('every kernel belongs to a fused op', () => {
  for (const name of cpu.backend.fused.keys()) assert.ok(fusedOps.has(name.split('.')[0]), `kernel ${name}`);
});

// Tests of a file run in order: by now every recipe has.
test('every kernel took calls', () => {
  for (const [name, count] of accepted) assert.ok(count > 0, `the kernel ${name} declined every call of the recipes`);
});
