// Values at the ends of the number line, mixed dtypes, and integers (helpers/specials.ts); and how tensors are made.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { machines } from './helpers/machines.js';
import './helpers/specialElementwise.js';
import './helpers/specialReductions.js';
import { checkSpecials } from './helpers/specials.js';

checkSpecials(machines);

const numbers = (t: Tensor): number[] => Array.from(t.dataSync());

test('making tensors: shapes, dtypes and what is refused', async () => {
  assert.deepEqual(
    await tensor([
      [1, 2],
      [3, 4],
    ]).toArray(),
    [
      [1, 2],
      [3, 4],
    ],
  );
  assert.deepEqual(await tensor([[true], [false]]).toArray(), [[true], [false]]);
  assert.equal(tensor([]).size, 0);
  assert.deepEqual(await tensor(3).toArray(), 3);
  assert.deepEqual(tensor(Int32Array.of(1, 2)).dtype, 'i32');
  assert.deepEqual(tensor(Float64Array.of(1, 2), [2, 1]).shape, [2, 1]);
  assert.throws(() => tensor([[1, 2], [3]]), /^ShapeError: tensor: expected 2 entries on axis 1, got 1$/);
  assert.throws(() => tensor([1, [2]]), /^ShapeError: tensor: expected a number instead of entries on axis 1, got 1$/);
  assert.throws(() => tensor([[1], 2]), /^ShapeError: tensor: expected an array on axis 1, got 2$/);
  assert.throws(() => tensor(Float32Array.of(1, 2, 3), [2]), /^ShapeError: tensor: 3 numbers do not fill shape \[2\]$/);
  assert.throws(() => tensor.zeros([2, -1]), /^ShapeError: zeros: \[2,-1\] is not a shape$/);
  assert.throws(() => tensor.zeros([1.5]), /is not a shape$/);
  assert.deepEqual(numbers(tensor.arange(0, 5, { step: 2 })), [0, 2, 4]);
  assert.deepEqual(numbers(tensor.arange(3, 0, { step: -1, dtype: 'i32' })), [3, 2, 1]);
  assert.deepEqual(numbers(tensor.eye(2)), [1, 0, 0, 1]);
  assert.deepEqual(numbers(tensor.full([2], 7, { dtype: 'i32' })), [7, 7]);
  assert.deepEqual(numbers(tensor.ones([2], { dtype: 'bool' })), [1, 1]);
  assert.equal(await tensor.scalar(2.5).item(), 2.5);
  await assert.rejects(tensor([1, 2]).item(), /^Error: item: expected one element, the shape is \[2\]$/);
  assert.equal(String(tensor.zeros([2, 3]).requireGrad()), 'Tensor(f32[2,3], grad)');
});
