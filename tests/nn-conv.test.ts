// Convolutions and Marian's recurrent unit: the op table's checks on every machine, and values worked out by hand. That
// causal ones give the same bits alone, among others and token by token is in nn-scan.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { causalConv1d, conv1d, patchEmbedding } from '../src/nn/conv.js';
import { ssru } from '../src/nn/ssru.js';
import { tensor } from '../src/tensor/index.js';
import { checkTable } from './helpers/checks.js';
import { convolutions } from './helpers/recipes/convolutions.js';

checkTable(convolutions);

test('causalConv1d: the last tap meets the token itself, and inputs do not cross sequences', () => {
  const x = tensor([1, 2, 3, 4], [4, 1]);
  const weight = tensor([100, 10, 1], [1, 1, 3]);
  const { output, state } = causalConv1d(x, weight, tensor([0.5]), Int32Array.of(0, 3));
  assert.deepEqual([...output.dataSync()], [1.5, 12.5, 123.5, 4.5]);
  assert.deepEqual(
    [state.shape, [...state.dataSync()]],
    [
      [2, 2, 1],
      [2, 3, 0, 4],
    ],
  );
  const next = causalConv1d(tensor([5], [1, 1]), weight, null, Int32Array.of(0, 1), { state });
  assert.deepEqual([...next.output.dataSync()], [235]);
  assert.deepEqual([...next.state.dataSync()], [3, 5, 0, 4]);
});

test('causalConv1d: NaN reaches the tokens that see it, and none of another sequence', () => {
  const x = tensor([NaN, 2, 3, 4, 5], [5, 1]);
  const { output } = causalConv1d(x, tensor([0, 1], [1, 1, 2]), null, Int32Array.of(0, 2));
  assert.deepEqual([...output.dataSync()], [NaN, NaN, 3, 4, 5]);
});

test("conv1d: Whisper's second layer, kernel 3, padding 1, stride 2; time steps outside are zeros", () => {
  const x = tensor([1, 2, 3, 4, 5], [1, 5, 1]);
  const weight = tensor([100, 10, 1], [1, 1, 3]);
  const half = conv1d(x, weight, null, { stride: 2, padding: 1 });
  assert.deepEqual(
    [half.shape, [...half.dataSync()]],
    [
      [1, 3, 1],
      [12, 234, 450],
    ],
  );
  assert.deepEqual([...conv1d(x, weight, tensor([-240]), { activation: 'relu' }).dataSync()], [0, 0, 105]);
});

test('conv1d takes features [B, C, T] transposed', () => {
  const features = tensor([1, 2, 3, 10, 20, 30], [1, 2, 3]);
  const y = conv1d(features.transpose(1, 2), tensor([1, 2, 3, 4], [1, 2, 2]), null);
  assert.deepEqual([...y.dataSync()], [1 + 2 * 2 + 30 + 4 * 20, 2 + 2 * 3 + 3 * 20 + 4 * 30]);
});

test('patchEmbedding goes row by row, and through a patch as the weight does', () => {
  const image = tensor(
    Float32Array.from({ length: 16 }, (_, i) => i),
    [1, 1, 4, 4],
  );
  const y = patchEmbedding(image, tensor([1000, 100, 10, 1], [1, 1, 2, 2]), tensor([0.5]));
  // 0 1 4 5, then 2 3 6 7, 8 9 12 13 and 10 11 14 15.
  assert.deepEqual(
    [y.shape, [...y.dataSync()]],
    [
      [1, 4, 1],
      [145.5, 2367.5, 9033.5, 11255.5],
    ],
  );
});

test('ssru: a gate that is open keeps the cell, one that is shut takes the candidate', () => {
  const { output, cell } = ssru(
    tensor([Infinity, -Infinity, 0], [3, 1]),
    tensor([7, -3, 5], [3, 1]),
    Int32Array.of(0),
    tensor([2], [1, 1]),
  );
  assert.deepEqual([...output.dataSync()], [2, 0, 1]);
  assert.deepEqual([...cell.dataSync()], [1]);
});
