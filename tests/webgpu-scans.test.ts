// Recurrent and convolutional layers on WebGPU: a sequence's bits alone, among others and token by token, and the
// recipes of layers that are no ops. Those of ops are in webgpu-ops.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { linearScan } from '../src/nn/linearScan.js';
import { concat } from '../src/tensor/layout.js';
import { tensor } from '../src/tensor/index.js';
import { checkTableOn, readAll } from './helpers/checksAwaited.js';
import { convolutions } from './helpers/recipes/convolutions.js';
import { openForTests } from './helpers/webgpu.js';

const backend = await openForTests();

if (backend) {
  checkTableOn({ name: 'WebGPU', backend, dtype: 'f32' }, convolutions, 4);

  test('linearScan: a sequence has the same bits alone, among others, and token by token', async () => {
    const [rows, width] = [9, 70];
    const starts = Int32Array.of(0, 4, 4);
    const [together, apart, steps] = await readAll(() => {
      const draw = (shape: number[], seed: number) => tensor.normal(shape, { seed, backend });
      const [a, b, initial] = [draw([rows, width], 1), draw([rows, width], 2), draw([3, width], 3)];
      const { states, final } = linearScan(a, b, starts, initial);
      const part = (from: number, to: number, s: number) =>
        linearScan(a.slice(0, from, to), b.slice(0, from, to), Int32Array.of(0), initial.slice(0, s, s + 1));
      const alone = [part(0, 4, 0), part(4, 4, 1), part(4, 9, 2)];
      let state = initial.slice(0, 2, 3);
      const tokens = [];
      for (let row = 4; row < rows; row++) {
        const step = linearScan(a.slice(0, row, row + 1), b.slice(0, row, row + 1), Int32Array.of(0), state);
        tokens.push(step.states);
        state = step.final;
      }
      return [
        concat([states, final]),
        concat([...alone.map(p => p.states), ...alone.map(p => p.final)]),
        concat([states.slice(0, 0, 4), ...tokens, final.slice(0, 0, 2), state]),
      ];
    });
    assert.deepEqual(apart, together);
    assert.deepEqual(steps, together);
  });
}
