// Products that may round x: where weights are quantised they stay within half a step of 2^-15 of each block's largest
// number (times the weights it meets) of the exact ones, for any number of rows; rows do not depend on their neighbours
// nor on threads; whatever is differentiated, or not allowed to round, does not round; generation does unless told
// otherwise.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { noGrad } from '../src/autograd/tape.js';
import { scope } from '../src/autograd/scope.js';
import { create } from '../src/tensor/create.js';
import type { Packing } from '../src/tensor/packing.js';
import { roundedProducts } from '../src/tensor/rounding.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { Random } from '../src/tensor/threefry.js';
import { cpu, cpuPlain, referenceF32, type Machine } from './helpers/machines.js';
import { allPackings, columnsFor, halfValue, randomPacked, type PackedWeights } from './helpers/packedWeights.js';
import { bitsOf, threadedMachine } from './helpers/threaded.js';

const threaded = [threadedMachine(2), threadedMachine(3)];
after(async () => {
  for (const { backend } of threaded) await backend.close();
});

/** Largest size a code of the block that column `p` of row `j` is in can stand for, minimum or offset counted apart. */
function reachOf(w: PackedWeights, packing: Packing, columns: number, j: number, p: number): number {
  const rowBytes = w.bytes.length / w.rows;
  const half = (at: number): number => Math.abs(halfValue(w.bytes[at] | (w.bytes[at + 1] << 8)));
  const at = j * rowBytes + (packing === 'q8_0' ? columns : columns / 2) + (p >> 5) * (packing === 'q4_1' ? 4 : 2);
  if (packing === 'q8_0') return 128 * half(at);
  return packing === 'q4_0' ? 23 * half(at) : 15 * half(at) + half(at + 2);
}

/** y [m, rows] against x W^T: off by no more than rounding x, and a few f32 roundings of the parts. */
function check(y: Tensor, x: Float32Array, w: PackedWeights, packing: Packing, columns: number, what: string): void {
  const data = y.dataSync();
  const m = x.length / columns;
  for (let i = 0; i < m; i++) {
    const largest = Array.from({ length: columns / 32 }, (_, b) =>
      Math.max(...x.subarray(i * columns + 32 * b, i * columns + 32 * b + 32).map(Math.abs)),
    );
    for (let j = 0; j < w.rows; j++) {
      let [sum, bound] = [0, 0];
      for (let p = 0; p < columns; p++) {
        const weight = w.values[j * columns + p];
        sum += x[i * columns + p] * weight;
        bound += Math.abs(weight) * largest[p >> 5] * (0.501 / 32767);
        bound += 24 * 2 ** -24 * reachOf(w, packing, columns, j, p) * largest[p >> 5];
      }
      const off = Math.abs(data[i * w.rows + j] - sum);
      if (!(off <= bound))
        assert.fail(`${what}: [${i}, ${j}] is ${data[i * w.rows + j]}, expected ${sum}, off by ${off}, bound ${bound}`);
    }
  }
}

/** Rows whose blocks are of very different size, one of zeros among them. */
function rowsOf(m: number, columns: number, seed: number): Float32Array {
  const random = new Random(seed, 5);
  const x = Float32Array.from({ length: m * columns }, () => random.normal());
  for (let b = 0; b < x.length / 32; b++) {
    const scale = [1, 1e-3, 50, 0, 1e-20][random.integer(5)];
    for (let i = 0; i < 32; i++) x[32 * b + i] *= scale;
  }
  return x;
}

const place = (w: PackedWeights, columns: number, packing: Packing, { backend }: Machine): Tensor =>
  create.packed(w.bytes, [w.rows, columns], packing, { backend });
const quantised = allPackings.filter(p => p.startsWith('q'));

for (const packing of quantised) {
  test(`${packing}: rounded products stay near the exact ones, whatever the rows beside, on every machine`, () => {
    const shapes = fc.record({
      rows: fc.constantFrom(1, 2, 7, 33, 65),
      blocks: fc.constantFrom(1, 2, 3, 4, 5, 8, 18),
      seed: fc.nat(1000),
      m: fc.constantFrom(1, 2, 3, 4, 5, 8, 9, 17, 38),
    });
    fc.assert(
      fc.property(shapes, ({ rows, blocks, seed, m }) => {
        const columns = 32 * blocks;
        const w = randomPacked(packing, rows, columns, seed);
        const x = rowsOf(m, columns, seed);
        const run = (machine: Machine, from: number, to: number): Tensor =>
          noGrad(() =>
            roundedProducts(() =>
              create
                .from(x.slice(from * columns, to * columns), [to - from, columns], { backend: machine.backend })
                .matmulT(place(w, columns, packing, machine)),
            ),
          );
        scope(() => {
          for (const machine of [referenceF32, cpu, cpuPlain])
            check(run(machine, 0, m), x, w, packing, columns, machine.name);
          const whole = bitsOf(run(cpu, 0, m).dataSync());
          for (const machine of threaded) assert.equal(bitsOf(run(machine, 0, m).dataSync()), whole, machine.name);
          if (m > 4)
            assert.equal(
              bitsOf(run(cpu, 1, m - 1).dataSync()),
              bitsOf(
                run(cpu, 0, m)
                  .slice(0, 1, m - 1)
                  .dataSync(),
              ),
              'rows by themselves',
            );
        });
      }),
      { seed: 43, numRuns: 40 },
    );
  });

  test(`${packing}: what is not finite is not hidden, and stays in its row`, () => {
    const columns = 64;
    const w = randomPacked(packing, 3, columns, 5);
    for (const value of [NaN, Infinity, -Infinity]) {
      const x = rowsOf(2, columns, 1);
      x[40] = value;
      const y = scope(() =>
        roundedProducts(() =>
          create.from(x, [2, columns], { backend: cpu.backend }).matmulT(place(w, columns, packing, cpu)),
        ).dataSync(),
      );
      assert.ok(
        y.subarray(0, 3).every(v => !Number.isFinite(v)),
        `${value}: ${y.join(' ')}`,
      );
      assert.ok(y.subarray(3).every(Number.isFinite), `${value}: ${y.join(' ')}`);
    }
  });
}

test('many rows, in more panels than are gone over together: each as if it were one of a few', () => {
  scope(() => {
    const columns = 1536;
    const w = place(randomPacked('q4_1', 21, columns, 8), columns, 'q4_1', cpu);
    const data = rowsOf(301, columns, 3);
    const product = (from: number, to: number): Float32Array =>
      roundedProducts(() =>
        create
          .from(data.slice(from * columns, to * columns), [to - from, columns], { backend: cpu.backend })
          .matmulT(w)
          .dataSync(),
      ) as Float32Array;
    const whole = product(0, 301);
    for (const [from, to] of [
      [0, 3],
      [127, 132],
      [296, 301],
    ])
      assert.equal(bitsOf(product(from, to)), bitsOf(whole.slice(21 * from, 21 * to)));
  });
});

test('halves are never rounded; nor is what is differentiated, or outside', () => {
  for (const packing of allPackings) {
    const columns = columnsFor(packing, 64);
    const w = randomPacked(packing, 5, columns, 8);
    const data = rowsOf(3, columns, 2);
    scope(() => {
      const t = place(w, columns, packing, cpu);
      const x = create.from(data, [3, columns], { backend: cpu.backend });
      const exact = bitsOf(x.matmulT(t).dataSync());
      const rounded = roundedProducts(() => bitsOf(x.matmulT(t).dataSync()));
      assert.equal(rounded === exact, !packing.startsWith('q'), packing);
      assert.equal(
        roundedProducts(() => bitsOf(x.matmulT(t).dataSync()), false),
        exact,
      );
      const leaf = create.from(data, [3, columns], { backend: cpu.backend }).requireGrad();
      assert.equal(
        roundedProducts(() => bitsOf(leaf.matmulT(t).detach().dataSync())),
        exact,
      );
      assert.throws(
        () =>
          roundedProducts(() => {
            throw new Error('inside');
          }),
        /inside/,
      );
      assert.equal(bitsOf(x.matmulT(t).dataSync()), exact, 'after an error too');
    });
  }
});

test('a NaN or an infinity is not rounded away: its row has no finite number, others have no other', () => {
  for (const machine of [cpu, cpuPlain, ...threaded]) {
    for (const packing of allPackings) {
      const { backend } = machine;
      const weight = create.packed(randomPacked(packing, 40, 64, 3).bytes, [40, 64], packing, { backend });
      for (const m of [1, 2, 3, 9]) {
        for (const value of [NaN, -Infinity]) {
          const x = create.from(
            Float32Array.from({ length: 64 * m }, (_, i) => (i === 64 * (m - 1) + 37 ? value : 0.1)),
            [m, 64],
            { backend },
          );
          const y = roundedProducts(() => noGrad(() => x.matmulT(weight))).dataSync();
          y.forEach((v, i) => {
            assert.equal(
              Number.isFinite(v),
              i < 40 * (m - 1),
              `${machine.name}, ${packing}, ${m} rows, ${value}: entry ${i} is ${v}`,
            );
          });
        }
      }
    }
  }
});
