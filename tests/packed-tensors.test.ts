// Packed weights as tensors, on every CPU machine: decoding, rows by number, products with and without transposition,
// row windows and batches against f64 loops over independently decoded values; gradients of the other operand; what is
// refused.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { gradientsOf } from '../src/autograd/tape.js';
import { create } from '../src/tensor/create.js';
import { unpack } from '../src/tensor/layout.js';
import type { Packing } from '../src/tensor/packing.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { Random } from '../src/tensor/threefry.js';
import { scope } from '../src/autograd/scope.js';
import { cpu, cpuPlain, referenceF32, type Machine } from './helpers/machines.js';
import { bitsOf, threadedMachine } from './helpers/threaded.js';
import { allPackings, columnsFor, halfValue, randomPacked, type PackedWeights } from './helpers/packedWeights.js';

const threaded = threadedMachine(2);
after(() => threaded.backend.close());

const machines: readonly Machine[] = [referenceF32, cpu, cpuPlain];
const runs = { seed: 41, numRuns: 40 };
const place = (w: PackedWeights, packing: Packing, { backend }: Machine): Tensor =>
  create.packed(w.bytes, [w.rows, w.columns], packing, { backend });
const normals = (count: number, seed: number): Float32Array => {
  const random = new Random(seed, 5);
  return Float32Array.from({ length: count }, () => random.normal());
};

/** The same numbers; a zero may have either sign. */
const same = (actual: Tensor, expected: Iterable<number>, what?: string): void =>
  assert.deepEqual(
    Float32Array.from(actual.dataSync(), v => v + 0),
    Float32Array.from(expected, v => v + 0),
    what,
  );

/** y[i][j] = sum over p of x[i][p] w(p, j), held to k roundings of the sum of sizes. */
function checkProduct(
  y: Tensor,
  x: Float32Array,
  w: (p: number, j: number) => number,
  [m, n, k]: readonly number[],
  what: string,
): void {
  const data = y.dataSync();
  assert.equal(data.length, m * n, what);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let [sum, size] = [0, 0];
      for (let p = 0; p < k; p++) {
        const term = x[i * k + p] * w(p, j);
        sum += term;
        size += Math.abs(term);
      }
      const off = Math.abs(data[i * n + j] - sum);
      if (!(off <= (k + 2) * 2 ** -24 * size))
        assert.fail(`${what}: [${i}, ${j}] is ${data[i * n + j]}, expected ${sum}, off by ${off}`);
    }
  }
}

for (const packing of allPackings) {
  const shapes = fc.record({
    rows: fc.constantFrom(1, 2, 7, 8, 9, 33, 65),
    side: fc.constantFrom(2, 3, 8, 31, 32, 64, 97, 128, 160),
    seed: fc.nat(1000),
    m: fc.constantFrom(1, 2, 3, 4, 5, 8, 9, 17, 40),
  });

  test(`${packing}: decoding, windows of rows, rows by number are exact`, () => {
    fc.assert(
      fc.property(
        shapes,
        fc.array(fc.integer({ min: -1, max: 6 }), { maxLength: 6 }),
        ({ rows, side, seed }, picks) => {
          const columns = columnsFor(packing, side);
          const w = randomPacked(packing, rows, columns, seed);
          const [from, to] = [Math.floor(rows / 3), rows - Math.floor(rows / 4)];
          const indices = picks.map(i => Math.min(i, rows - 1));
          for (const machine of machines) {
            scope(() => {
              const t = place(w, packing, machine);
              same(unpack(t), w.values, machine.name);
              const turned = unpack(t.transpose());
              assert.deepEqual(turned.shape, [columns, rows]);
              same(turned.transpose(), w.values, machine.name);
              const window = t.slice(0, from, to);
              assert.equal(window.packing, packing);
              assert.equal(window.byteLength, ((to - from) * t.byteLength) / rows);
              same(unpack(window), w.values.subarray(from * columns, to * columns), machine.name);
              const taken = t.takeRows(indices);
              assert.deepEqual(taken.shape, [indices.length, columns]);
              const expected = indices.flatMap(i =>
                i < 0 ? new Array<number>(columns).fill(0) : [...w.values.subarray(i * columns, (i + 1) * columns)],
              );
              same(taken, expected, machine.name);
            });
          }
        },
      ),
      runs,
    );
  });

  test(`${packing}: products with the matrix, its transpose and windows of them`, () => {
    fc.assert(
      fc.property(shapes, ({ rows, side, seed, m }) => {
        const columns = columnsFor(packing, side);
        const w = randomPacked(packing, rows, columns, seed);
        const [x, z] = [normals(m * columns, seed), normals(m * rows, seed + 1)];
        const first = Math.floor(rows / 2);
        for (const machine of machines) {
          scope(() => {
            const { backend } = machine;
            const t = place(w, packing, machine);
            const forward = create.from(x, [m, columns], { backend });
            checkProduct(
              forward.matmulT(t),
              x,
              (p, j) => w.values[j * columns + p],
              [m, rows, columns],
              `${machine.name}: x W^T`,
            );
            checkProduct(
              forward.matmulT(t.slice(0, 0, first)),
              x,
              (p, j) => w.values[j * columns + p],
              [m, first, columns],
              `${machine.name}: first rows`,
            );
            const rest = forward.matmulT(t.slice(0, first, rows));
            checkProduct(
              rest,
              x,
              (p, j) => w.values[(first + j) * columns + p],
              [m, rows - first, columns],
              `${machine.name}: last rows`,
            );
            const back = create.from(z, [m, rows], { backend }).matmul(t);
            checkProduct(back, z, (p, j) => w.values[p * columns + j], [m, columns, rows], `${machine.name}: z W`);
            // The left operand and its rows lie apart.
            const apart = create.from(x, [columns, m], { backend }).transpose().matmulT(t);
            checkProduct(
              apart,
              Float32Array.from(x, (_, i) => x[(i % columns) * m + Math.floor(i / columns)]),
              (p, j) => w.values[j * columns + p],
              [m, rows, columns],
              'apart',
            );
          });
        }
      }),
      runs,
    );
  });

  test(`${packing}: batches share the matrix; the gradient of the other operand`, () => {
    const [rows, columns, batch, m] = [9, columnsFor(packing, 64), 3, 5];
    const w = randomPacked(packing, rows, columns, 3);
    const x = normals(batch * m * columns, 8);
    const cotangent = normals(batch * m * rows, 9);
    for (const machine of machines) {
      scope(() => {
        const { backend } = machine;
        const t = place(w, packing, machine);
        const leaf = create.from(x, [batch, m, columns], { backend }).requireGrad();
        for (const right of [t.transpose(), t.transpose().expand([batch, columns, rows])]) {
          const y = leaf.matmul(right);
          assert.deepEqual(y.shape, [batch, m, rows]);
          checkProduct(y, x, (p, j) => w.values[j * columns + p], [batch * m, rows, columns], machine.name);
          const [gradient] = gradientsOf(y, [leaf], {
            gradient: create.from(cotangent, [batch, m, rows], { backend }),
          });
          assert.ok(gradient, 'gradient');
          checkProduct(
            gradient,
            cotangent,
            (p, j) => w.values[p * columns + j],
            [batch * m, columns, rows],
            `${machine.name}: gradient`,
          );
        }
      });
    }
  });
}

test('a product with many more weights than one piece holds, in pieces of columns or of rows', () => {
  for (const packing of allPackings)
    for (const [rows, columns] of [
      [1100, 320],
      [5000, 64],
    ]) {
      const w = randomPacked(packing, rows, columns, 17);
      for (const m of [1, 11]) {
        const [x, z] = [normals(m * columns, 1), normals(m * rows, 2)];
        scope(() => {
          const t = place(w, packing, cpu);
          checkProduct(
            create.from(x, [m, columns], { backend: cpu.backend }).matmulT(t),
            x,
            (p, j) => w.values[j * columns + p],
            [m, rows, columns],
            `${packing} x W^T`,
          );
          checkProduct(
            create.from(z, [m, rows], { backend: cpu.backend }).matmul(t),
            z,
            (p, j) => w.values[p * columns + j],
            [m, columns, rows],
            `${packing} z W`,
          );
        });
      }
    }
});

test('f16 numbers of every size decode exactly', () => {
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i).filter(b => ((b >> 10) & 31) !== 31);
  const values = Float32Array.from(bits, halfValue);
  for (const { name, backend } of machines) {
    const t = create.packed(new Uint8Array(bits.buffer), [2, bits.length / 2], 'f16', { backend });
    same(unpack(t), values, name);
  }
});

test('bytes of packed weights are those of their rows', () => {
  const [rows, columns] = [3, 64];
  const expected = { f16: 384, bf16: 384, q8_0: 3 * 68, q4_0: 3 * 36, q4_1: 3 * 40 };
  for (const packing of allPackings) {
    const t = place(randomPacked(packing, rows, columns, 1), packing, cpu);
    assert.equal(t.byteLength, expected[packing]);
    assert.equal(t.transpose().byteLength, expected[packing]);
    assert.equal(t.detach().packing, packing);
    t.storage.dispose();
  }
  // An odd row is padded to whole words.
  assert.equal(place(randomPacked('f16', 2, 3, 1), 'f16', cpu).byteLength, 16);
});

test('every other use names itself and the packing', () => {
  const { backend } = cpu;
  const t = place(randomPacked('q8_0', 4, 64, 1), 'q8_0', cpu);
  const x = create.ones([2, 4], { backend });
  const refused: [string, () => unknown][] = [
    ['add', () => t.add(1)],
    ['sum', () => t.sum()],
    ['max', () => t.max()],
    ['reshape', () => t.reshape([64, 4])],
    ['expand', () => t.slice(0, 0, 1).expand([4, 64])],
    ['slice of axis 1', () => t.slice(1, 0, 32)],
    ['matmul', () => t.matmul(create.ones([64, 2], { backend }))],
    ['copy', () => t.transpose().contiguous()],
    ['takeRows of a transpose', () => t.transpose().takeRows([0])],
    ['dataSync', () => t.dataSync()],
    ['scatterAdd', () => t.scatterAddRows([0, 1, 2, 3], 4)],
    ['permute', () => t.expand([2, 4, 64]).permute([1, 0, 2])],
  ];
  for (const [op, use] of refused) {
    assert.throws(
      use,
      (error: Error) => {
        assert.ok(error.message.startsWith(`${op}: does not take packed weights (q8_0[`), error.message);
        assert.match(error.message, /; use unpack\(w\)$/);
        return true;
      },
      op,
    );
  }
  assert.throws(() => t.requireGrad(), /requireGrad: q8_0 weights are frozen/);
  assert.equal(unpack(x), x);
  assert.throws(
    () => create.packed(new Uint8Array(100), [3, 64], 'q8_0', { backend }),
    /packed: 100 bytes do not fill q8_0\[3,64\], which takes 204/,
  );
  assert.throws(
    () => create.packed(new Uint8Array(0), [3, 40], 'q4_0', { backend }),
    /q4_0 needs a matrix \[rows, columns\] with columns a multiple of 32, got \[3,40\]/,
  );
  assert.throws(
    () => create.packed(new Uint8Array(0), [3, 1], 'f16', { backend }),
    /f16 needs a matrix \[rows, columns\] with columns 2 or more, got \[3,1\]/,
  );
});

test('weights decoded into panels: parts of k and more than are packed at once, last columns of a panel, several threads', () => {
  for (const packing of allPackings)
    for (const [rows, columns] of [
      [707, 704],
      [45, 2656],
      [2659, 96],
    ]) {
      const w = randomPacked(packing, rows, columns, 17);
      const m = 23;
      const [x, z] = [normals(m * columns, 1), normals(m * rows, 2)];
      const run = (machine: Machine): Tensor[] => {
        const t = place(w, packing, machine);
        const { backend } = machine;
        return [create.from(x, [m, columns], { backend }).matmulT(t), create.from(z, [m, rows], { backend }).matmul(t)];
      };
      scope(() => {
        const [forward, back] = run(cpu);
        checkProduct(forward, x, (p, j) => w.values[j * columns + p], [m, rows, columns], `${packing} x W^T`);
        checkProduct(back, z, (p, j) => w.values[p * columns + j], [m, columns, rows], `${packing} z W`);
        run(threaded).forEach((y, i) => {
          assert.equal(bitsOf(y.dataSync()), bitsOf([forward, back][i].dataSync()));
        });
      });
    }
});
