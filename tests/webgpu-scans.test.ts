// Recurrent and convolutional layers on WebGPU: a sequence's bits alone, among others and token by token, and the
// recipes of layers that are no ops. Those of ops are in webgpu-ops.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { linearScan } from '../src/nn/linearScan.js';
import { concat } from '../src/tensor/layout.js';
import { selectiveScan } from '../src/nn/selectiveScan.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { checkTableOn, readAll } from './helpers/checksAwaited.js';
import { convolutions } from './helpers/recipes/convolutions.js';
import { counted } from './helpers/machines.js';
import { openForTests } from './helpers/webgpu.js';

const taken = new Map<string, number>();
const opened = await openForTests();
const backend = opened && counted(opened, taken);

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

  test('selectiveScan: a sequence has the same bits alone, among others, and token by token', async () => {
    const [rows, d, n] = [7, 70, 5];
    const starts = Int32Array.of(0, 3, 3);
    const [together, apart, steps] = await readAll(() => {
      const draw = (shape: number[], seed: number) => tensor.normal(shape, { seed, backend });
      const tokens = {
        x: draw([rows, d], 1),
        dt: draw([rows, d], 2).softplus(),
        B: draw([rows, n], 3),
        C: draw([rows, n], 4),
      };
      const layer = { A: draw([d, n], 5).exp().neg(), D: draw([d], 6) };
      const before = draw([3, d, n], 7);
      const part = (from: number, to: number, state: Tensor) => {
        const [x, dt, B, C] = [tokens.x, tokens.dt, tokens.B, tokens.C].map(t => t.slice(0, from, to));
        return selectiveScan({ x, dt, B, C, ...layer }, Int32Array.of(0), state);
      };
      const { output, state } = selectiveScan({ ...tokens, ...layer }, starts, before);
      const alone = [
        [0, 3],
        [3, 3],
        [3, rows],
      ].map(([from, to], s) => part(from, to, before.slice(0, s, s + 1)));
      let carried = before.slice(0, 2, 3);
      const outputs = [];
      for (let row = 3; row < rows; row++) {
        const step = part(row, row + 1, carried);
        outputs.push(step.output);
        carried = step.state;
      }
      const flat = (parts: Tensor[], states: Tensor[]) => concat([concat(parts).flatten(), concat(states).flatten()]);
      return [
        flat([output], [state]),
        flat(
          alone.map(p => p.output),
          alone.map(p => p.state),
        ),
        flat([output.slice(0, 0, 3), ...outputs], [state.slice(0, 0, 2), carried]),
      ];
    });
    assert.deepEqual(apart, together);
    assert.deepEqual(steps, together);
  });

  // Tests of a file run in order.
  test('the forward kernels of scans took calls', () => {
    for (const name of ['linearScan', 'selectiveScan']) assert.ok((taken.get(name) ?? 0) > 0, name);
  });
}
