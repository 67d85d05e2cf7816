// Weights that are read by one product: q, k and v, gate and up lie in one allocation where they stay packed alike, and
// generation multiplies them together; what is taken from them is as if each were alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { scope } from '../src/autograd/scope.js';
import { Linear, project } from '../src/nn/linear.js';
import { create } from '../src/tensor/create.js';
import { roundedProducts } from '../src/tensor/rounding.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { cpu } from './helpers/machines.js';
import { allPackings, columnsFor, randomPacked } from './helpers/packedWeights.js';
import { bitsOf } from './helpers/threaded.js';

const { backend } = cpu;
const sides = [5, 3, 4];

/** Layers whose weights are neighbours in one allocation, the second with a bias. */
function layersOf(packing: (typeof allPackings)[number], order = [0, 1, 2]): { layers: Linear[]; columns: number } {
  const columns = columnsFor(packing, 64);
  const rows = sides.reduce((a, b) => a + b);
  const whole = create.packed(randomPacked(packing, rows, columns, 6).bytes, [rows, columns], packing, { backend });
  const starts = sides.map((_, i) => sides.slice(0, i).reduce((a, b) => a + b, 0));
  const layers = order.map(
    i =>
      new Linear(
        whole.slice(0, starts[i], starts[i] + sides[i]),
        i === 1 ? create.ones([sides[i]], { backend }) : null,
      ),
  );
  return { layers, columns };
}

/** Matrix products that `body` computes. */
function products(body: () => void): number {
  const { matmul } = backend.kernels;
  let count = 0;
  (backend.kernels as { matmul: typeof matmul }).matmul = call => {
    count++;
    matmul(call);
  };
  try {
    body();
  } finally {
    (backend.kernels as { matmul: typeof matmul }).matmul = matmul;
  }
  return count;
}

for (const packing of allPackings) {
  test(`${packing}: neighbours are one product while rounding is allowed, and give what each gives alone`, () => {
    scope(() => {
      const { layers, columns } = layersOf(packing);
      for (const shape of [
        [1, 1, columns],
        [2, 3, columns],
      ]) {
        const x = create.normal(shape, { seed: 4, backend });
        const alone = roundedProducts(() => layers.map(layer => layer.forward(x)));
        let together: Tensor[] = [];
        assert.equal(
          products(() => {
            together = roundedProducts(() => project(x, layers));
          }),
          1,
        );
        together.forEach((y, i) => {
          assert.deepEqual(y.shape, [...shape.slice(0, -1), sides[i]]);
          assert.equal(bitsOf(y.dataSync()), bitsOf(alone[i].dataSync()), `layer ${i}`);
        });
        assert.equal(
          products(() => {
            together = project(x, layers);
          }),
          3,
          'not rounded',
        );
        together.forEach((y, i) => assert.equal(bitsOf(y.dataSync()), bitsOf(layers[i].forward(x).dataSync())));
      }
    });
  });
}

test('weights that are no neighbours, or not packed, or differentiated are multiplied one by one', () => {
  scope(() => {
    const { layers, columns } = layersOf('q4_1', [0, 2, 1]);
    const x = create.normal([1, columns], { seed: 4, backend });
    assert.equal(
      products(() => void roundedProducts(() => project(x, layers))),
      3,
      'another order',
    );
    const other = layersOf('q4_1').layers;
    assert.equal(
      products(() => void roundedProducts(() => project(x, [other[0], layersOf('q4_1').layers[1]]))),
      2,
      'another allocation',
    );
    const dense = [0, 1].map(stream => Linear.create({ input: columns, output: 3, seed: 1, stream, backend }));
    assert.equal(
      products(() => void roundedProducts(() => project(x, dense))),
      2,
    );
    assert.equal(
      products(() => void roundedProducts(() => project(create.ones([1, columns], { backend }).requireGrad(), other))),
      3,
      'a gradient flows',
    );
  });
});
