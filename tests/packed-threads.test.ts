// Packed weights on several threads: decoding, rows by number and products give one thread's bits.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { scope } from '../src/autograd/scope.js';
import { create } from '../src/tensor/create.js';
import { unpack } from '../src/tensor/layout.js';
import { cpu, cpuPlain, type Machine } from './helpers/machines.js';
import { allPackings, columnsFor, randomPacked } from './helpers/packedWeights.js';
import { bitsOf, threadedMachine } from './helpers/threaded.js';

const pairs: readonly (readonly [Machine, readonly Machine[]])[] = [
  [cpu, [threadedMachine(2), threadedMachine(3)]],
  [cpuPlain, [threadedMachine(2, { relaxed: false })]],
];
after(async () => {
  for (const { backend } of pairs.flatMap(([, machines]) => machines)) await backend.close();
});

for (const packing of allPackings) {
  test(`${packing}: one thread's bits`, () => {
    const shapes = fc.record({
      rows: fc.constantFrom(1, 3, 16, 33, 100),
      side: fc.constantFrom(31, 64, 160),
      m: fc.constantFrom(1, 2, 5, 20),
      seed: fc.nat(99),
    });
    fc.assert(
      fc.property(shapes, ({ rows, side, m, seed }) => {
        const columns = columnsFor(packing, side);
        const w = randomPacked(packing, rows, columns, seed);
        const results = ({ backend }: Machine): string[] =>
          scope(() => {
            const t = create.packed(w.bytes, [rows, columns], packing, { backend });
            const x = create.normal([m, columns], { seed, backend });
            const z = create.normal([m, rows], { seed, backend });
            return [
              unpack(t),
              t.takeRows([rows - 1, -1, 0]),
              x.matmulT(t),
              z.matmul(t),
              x.matmulT(t.slice(0, rows >> 1, rows)),
            ].map(r => bitsOf(r.dataSync()));
          });
        for (const [alone, machines] of pairs) {
          const expected = results(alone);
          for (const machine of machines) assert.deepEqual(results(machine), expected, machine.name);
        }
      }),
      { seed: 12, numRuns: 15 },
    );
  });
}
