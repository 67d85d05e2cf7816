// The strided copy against element loops: permuted, sliced, repeated and gapped views on both sides, and nothing else
// written.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createCopy } from '../src/backends/cpu/wasm/copy.js';

const runs = { seed: Number(process.env.FC_SEED ?? 20240404), numRuns: Number(process.env.FC_RUNS ?? 300) };

interface Side {
  /** Sort keys that give the order of axes in memory. */
  order: number[];
  /** Unused elements after each axis. */
  gaps: number[];
}

function layOut(
  shape: readonly number[],
  { order, gaps }: Side,
  repeat: readonly boolean[],
): { strides: number[]; span: number } {
  const axes = shape.map((_, i) => i).sort((x, y) => order[x] - order[y] || x - y);
  const strides = new Array<number>(shape.length).fill(0);
  let step = 1;
  for (const axis of axes.reverse()) {
    if (repeat[axis]) continue;
    strides[axis] = step;
    step = step * shape[axis] + gaps[axis];
  }
  return { strides, span: step + 8 };
}

const rank = 5;
const side: fc.Arbitrary<Side> = fc.record({
  order: fc.array(fc.nat(9), { minLength: rank, maxLength: rank }),
  gaps: fc.array(fc.constantFrom(0, 0, 0, 1, 5), { minLength: rank, maxLength: rank }),
});
const shape = fc.oneof(
  fc.array(fc.constantFrom(0, 1, 2, 3, 4, 5, 7, 8), { maxLength: rank }),
  fc.array(fc.constantFrom(1, 3, 16, 31, 33, 65, 130), { maxLength: 2 }),
);

const memory = new WebAssembly.Memory({ initial: 64 });
const { copy } = createCopy(memory);

test('copies exactly the elements of the view', () => {
  const flags = fc.array(fc.boolean(), { minLength: rank, maxLength: rank });
  fc.assert(
    fc.property(shape, side, side, flags, fc.boolean(), (sides, from, to, which, repeated) => {
      const input = layOut(sides, from, repeated ? which : []);
      const output = layOut(sides, to, []);
      const inputAt = 64;
      const outputAt = inputAt + 4 * input.span;
      const words = new Int32Array(memory.buffer);
      const source = words.subarray(inputAt / 4, inputAt / 4 + input.span);
      const target = words.subarray(outputAt / 4, outputAt / 4 + output.span);
      source.forEach((_, i) => (source[i] = 1 + i));
      target.fill(-1);
      const expected = target.slice();
      const fill = (axis: number, x: number, y: number): void => {
        if (axis === sides.length) expected[y] = source[x];
        else
          for (let i = 0; i < sides[axis]; i++)
            fill(axis + 1, x + i * input.strides[axis], y + i * output.strides[axis]);
      };
      fill(0, 0, 0);
      assert.equal(
        copy({
          input: { byteOffset: inputAt, shape: sides, strides: input.strides },
          output: { byteOffset: outputAt, shape: sides, strides: output.strides },
        }),
        true,
      );
      assert.deepEqual(target, expected);
    }),
    runs,
  );
});

test('a view of shared memory', () => {
  const shared = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  new Float32Array(shared.buffer).set([1, 2, 3, 4, 5, 6], 16);
  const shape = [3, 2];
  createCopy(shared).copy({
    input: { byteOffset: 64, shape, strides: [1, 3] },
    output: { byteOffset: 128, shape, strides: [2, 1] },
  });
  assert.deepEqual([...new Float32Array(shared.buffer, 128, 6)], [1, 4, 2, 5, 3, 6]);
});
