// Borders and refusals of shapes, views, creation, products, random numbers and their schedules. Right values are
// stated or computed by a second way; messages name what was expected and what came.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { gradcheck, tensor, type Tensor } from '../src/tensor/index.js';
import { attention } from '../src/nn/attention.js';
import { crossEntropy, crossEntropyMean } from '../src/nn/crossEntropy.js';
import { lengthOf, orthonormalize } from '../src/nn/hostMatrices.js';
import { kaimingUniform, linearInit, normalInit, orthogonalInit } from '../src/nn/init.js';
import { scheduleFactor } from '../src/nn/schedule.js';
import { allocatePacked, create } from '../src/tensor/create.js';
import { defaultBackend } from '../src/devices.js';
import { decodePackedRow, packedMatrix, packedRowBytes, packedWeightBytes, isPacking } from '../src/tensor/packing.js';
import {
  broadcastAxes,
  broadcastShapes,
  broadcastStrides,
  checkShape,
  contiguousStrides,
  isContiguous,
  normalizeAxes,
  normalizeAxis,
  reshapeStrides,
  resolveReshape,
  sameShape,
  sizeOf,
} from '../src/tensor/shape.js';
import { Random, randomWords, seedWords } from '../src/tensor/threefry.js';

const messageOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
  return 'no error';
};
const refused = (run: () => unknown, message: string): void => assert.equal(messageOf(run), message);
const values = (t: Tensor): number[] => [...t.dataSync()];

describe('shapes', () => {
  test('sizes, sameness, strides', () => {
    assert.deepEqual([sizeOf([]), sizeOf([3]), sizeOf([2, 0, 3]), sizeOf([2, 3, 4])], [1, 3, 0, 24]);
    assert.deepEqual(contiguousStrides([2, 3, 4]), [12, 4, 1]);
    assert.deepEqual(contiguousStrides([]), []);
    assert.deepEqual([sameShape([1, 2], [1, 2]), sameShape([1, 2], [1]), sameShape([1], [1, 2])], [true, false, false]);
    assert.deepEqual([sameShape([1, 2], [1, 3]), sameShape([], [])], [false, true]);
    for (const [shape, strides, is] of [
      [[2, 3], [3, 1], true],
      [[2, 3], [1, 2], false],
      [[1, 3], [99, 1], true],
      [[2, 1], [1, 99], true],
      [[2, 1], [2, 1], false],
      [[0, 3], [7, 7], true],
      [[3], [2], false],
      [[], [], true],
    ] as const)
      assert.equal(isContiguous(shape, strides), is, JSON.stringify([shape, strides]));
    refused(() => checkShape('f', [2, -1]), 'ShapeError: f: [2,-1] is not a shape');
    refused(() => checkShape('f', [1.5]), 'ShapeError: f: [1.5] is not a shape');
    refused(() => checkShape('f', [0, 2]), 'no error');
  });

  test('broadcasting', () => {
    assert.deepEqual(broadcastShapes('f', [2, 1, 3], [4, 1], [1]), [2, 4, 3]);
    assert.deepEqual(broadcastShapes('f', [], [2]), [2]);
    assert.deepEqual(broadcastShapes('f'), []);
    assert.deepEqual(broadcastShapes('f', [0], [1]), [0]);
    refused(
      () => broadcastShapes('f', [2, 3], [2, 4]),
      'ShapeError: f: shapes [2,3] and [2,4] do not broadcast (axis -1)',
    );
    refused(
      () => broadcastShapes('f', [2, 3], [3, 3]),
      'ShapeError: f: shapes [2,3] and [3,3] do not broadcast (axis -2)',
    );
    refused(() => broadcastShapes('f', [2], [0]), 'ShapeError: f: shapes [2] and [0] do not broadcast (axis -1)');
    assert.deepEqual(broadcastStrides([3, 1], [1, 1], [2, 3, 4]), [0, 1, 0]);
    assert.deepEqual(broadcastAxes([3, 1], [2, 3, 4]), [0, 2]);
    assert.deepEqual(broadcastAxes([1, 1], [1, 1]), []);
    assert.deepEqual(broadcastAxes([2], [2]), []);
  });

  test('axes', () => {
    assert.deepEqual([normalizeAxis('f', 0, 2), normalizeAxis('f', -1, 2), normalizeAxis('f', -2, 2)], [0, 1, 0]);
    for (const axis of [2, -3, 0.5, NaN])
      refused(() => normalizeAxis('f', axis, 2), `ShapeError: f: axis ${axis} is out of range for rank 2`);
    refused(() => normalizeAxis('f', -0.5, 2), 'ShapeError: f: axis -0.5 is out of range for rank 2');
    refused(() => normalizeAxis('f', 0, 0), 'ShapeError: f: axis 0 is out of range for rank 0');
    assert.deepEqual(normalizeAxes('f', undefined, 3), [0, 1, 2]);
    assert.deepEqual(normalizeAxes('f', [-1, 0, 10 - 9], 3), [0, 1, 2]);
    assert.deepEqual(normalizeAxes('f', 1, 3), [1]);
    assert.deepEqual(
      normalizeAxes(
        'f',
        Array.from({ length: 12 }, (_, i) => 11 - i),
        12,
      ),
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    );
    refused(() => normalizeAxes('f', [0, -2], 2), 'ShapeError: f: axis 0 is named twice');
  });

  test('new shapes', () => {
    assert.deepEqual(resolveReshape([2, 6], [-1, 4]), [3, 4]);
    assert.deepEqual(resolveReshape([2, 6], [12]), [12]);
    assert.deepEqual(resolveReshape([0, 3], [3, -1]), [3, 0]);
    assert.deepEqual(resolveReshape([0, 3], [0, -1]), [0, 0]);
    assert.deepEqual(resolveReshape([1], []), []);
    assert.deepEqual(resolveReshape([4], [-1]), [4]);
    for (const to of [[5], [-1, 5], [-1, -1], [-2, -6], [1.5, 8]])
      refused(
        () => resolveReshape([2, 6], to),
        `ShapeError: reshape: [2,6] has 12 elements and cannot become [${to.join(',')}]`,
      );
    assert.deepEqual(reshapeStrides([2, 3, 4], [12, 4, 1], [6, 4]), [4, 1]);
    assert.deepEqual(reshapeStrides([2, 3, 4], [12, 4, 1], [2, 1, 12]), [12, 1, 1]);
    assert.deepEqual(reshapeStrides([4, 6], [6, 1], [2, 2, 3, 2]), [12, 6, 2, 1]);
    assert.equal(reshapeStrides([3, 2], [1, 3], [6]), undefined);
    assert.equal(reshapeStrides([2, 3], [6, 1], [6]), undefined);
    assert.deepEqual(reshapeStrides([2, 4], [1, 2], [2, 2, 2]), [1, 4, 2]);
    assert.deepEqual(reshapeStrides([2, 1, 3], [3, 77, 1], [6]), [1]);
    assert.deepEqual(reshapeStrides([0, 3], [9, 9], [3, 0]), [0, 1]);
    assert.deepEqual(reshapeStrides([4], [2], [2, 2]), [4, 2]);
  });
});

describe('views', () => {
  const x = tensor.arange(0, 24).reshape([2, 3, 4]);

  test('slices from and to negative ends', () => {
    const row = tensor.arange(0, 5);
    assert.deepEqual(values(row.slice(0, 1, 3)), [1, 2]);
    assert.deepEqual(values(row.slice(0, -2)), [3, 4]);
    assert.deepEqual(values(row.slice(0, 1, -1)), [1, 2, 3]);
    assert.deepEqual(values(row.slice(0, -3, -1)), [2, 3]);
    assert.deepEqual(values(row.slice(0, 2, 2)), []);
    assert.deepEqual(values(row.slice(0, 5)), []);
    assert.deepEqual(values(row.slice(0, -5, 5)), [0, 1, 2, 3, 4]);
    assert.equal(row.slice(0, 0), row, 'all of it is itself');
    assert.deepEqual(values(x.slice(-1, 3).slice(1, 0, 1)), [3, 15]);
    for (const [start, end] of [
      [3, 2],
      [0, 6],
      [-6, undefined],
      [6, undefined],
      [0.5, undefined],
      [0, 1.5],
      [0, -6],
      [4, -4],
    ] as const)
      refused(
        () => row.slice(0, start, end),
        `ShapeError: slice: ${start}..${end ?? ''} is out of range for axis 0 of [5]`,
      );
  });

  test('one of an axis', () => {
    assert.deepEqual(values(x.select(1, -1)), [8, 9, 10, 11, 20, 21, 22, 23]);
    assert.deepEqual(values(x.select(0, 0).select(0, 0)), [0, 1, 2, 3]);
    assert.deepEqual(x.select(-1, -4).shape, [2, 3]);
    for (const index of [3, -4, 0.5])
      refused(() => x.select(1, index), `ShapeError: select: index ${index} is out of range for axis 1 of [2,3,4]`);
  });

  test('axes moved, dropped, added', () => {
    assert.deepEqual(x.permute([2, 0, 1]).shape, [4, 2, 3]);
    assert.equal(x.permute([0, 1, -1]), x);
    for (const axes of [
      [0, 1],
      [0, 1, 1],
      [0, 1, 2, 2],
    ])
      refused(
        () => x.permute(axes),
        `ShapeError: permute: [${axes.join(',')}] does not name each axis of [2,3,4] once`,
      );
    assert.deepEqual(x.transpose(0, -1).shape, [4, 3, 2]);
    const thin = tensor.zeros([1, 2, 1]);
    assert.deepEqual(thin.squeeze().shape, [2]);
    assert.deepEqual(thin.squeeze(0).shape, [2, 1]);
    assert.deepEqual(thin.squeeze([0, -1]).shape, [2]);
    refused(() => thin.squeeze(1), 'ShapeError: squeeze: axis 1 of [1,2,1] has size 2, expected 1');
    assert.deepEqual(thin.unsqueeze(-1).shape, [1, 2, 1, 1]);
    assert.deepEqual(tensor.zeros([2]).unsqueeze(0).shape, [1, 2]);
    assert.deepEqual(tensor.zeros([2]).unsqueeze(1).shape, [2, 1]);
    refused(() => tensor.zeros([2]).unsqueeze(2), 'ShapeError: unsqueeze: axis 2 is out of range for rank 2');
  });

  test('expanding keeps a side of -1', () => {
    assert.deepEqual(tensor.zeros([3, 1]).expand([2, -1, 4]).shape, [2, 3, 4]);
    assert.deepEqual(values(tensor.arange(0, 2).reshape([2, 1]).expand([2, 2])), [0, 0, 1, 1]);
    const same = tensor.zeros([3, 1]);
    assert.equal(same.expand([-1, -1]), same);
    for (const to of [[1], [-1, 3, 4], []])
      refused(() => same.expand(to), `ShapeError: expand: [3,1] cannot become [${to.join(',')}]`);
    refused(() => same.expand([3, 2, 4]), 'ShapeError: expand: shapes [3,1] and [3,2,4] do not broadcast (axis -2)');
  });

  test('splitting and joining', () => {
    const row = tensor.arange(0, 5);
    assert.deepEqual(row.split([2, 0, 3], 0).map(values), [[0, 1], [], [2, 3, 4]]);
    assert.deepEqual(
      x.split([1, 3], -1).map(t => t.shape),
      [
        [2, 3, 1],
        [2, 3, 3],
      ],
    );
    refused(() => row.split([2, 2], 0), 'ShapeError: split: sizes 2+2 do not add to 5, axis 0 of [5]');
    refused(() => row.split([6, -1], 0), 'ShapeError: split: sizes 6+-1 do not add to 5, axis 0 of [5]');
  });

  test('rows by number', () => {
    const rows = tensor.arange(0, 6).reshape([3, 2]);
    assert.deepEqual(values(rows.takeRows([2, 0, 2])), [4, 5, 0, 1, 4, 5]);
    assert.deepEqual(values(rows.takeRows([-1, 1])), [0, 0, 2, 3], 'a negative number takes zeros');
    refused(() => rows.takeRows([0, 3]), 'RangeError: takeRows: index 3 at 1 is out of range for 3 rows');
    refused(() => rows.takeRows([0.5]), 'RangeError: takeRows: index 0.5 at 0 is out of range for 3 rows');
    refused(() => tensor.scalar(1).takeRows([0]), 'ShapeError: takeRows: a tensor of rank 0 has no rows');
    assert.deepEqual(values(rows.scatterAddRows([1, 1, 3], 4)), [0, 0, 2, 4, 0, 0, 4, 5]);
    refused(() => rows.scatterAddRows([0, 1], 4), 'ShapeError: scatterAddRows: 2 indices for shape [3,2]');
    refused(
      () => rows.scatterAddRows([0, 1, 4], 4),
      'RangeError: scatterAddRows: index 4 at 2 is out of range for 4 rows',
    );
  });

  test('triangles', () => {
    const ones = tensor.ones([2, 3]);
    assert.deepEqual(values(ones.tril()), [1, 0, 0, 1, 1, 0]);
    assert.deepEqual(values(ones.tril(1)), [1, 1, 0, 1, 1, 1]);
    assert.deepEqual(values(ones.tril(-1)), [0, 0, 0, 1, 0, 0]);
    assert.deepEqual(values(ones.triu()), [1, 1, 1, 0, 1, 1]);
    assert.deepEqual(values(ones.triu(1)), [0, 1, 1, 0, 0, 1]);
    assert.deepEqual(values(ones.triu(-1)), [1, 1, 1, 1, 1, 1]);
    refused(() => tensor.ones([3]).tril(), 'ShapeError: tril: expected rank 2 or more, got [3]');
    refused(() => tensor.ones([3]).triu(), 'ShapeError: triu: expected rank 2 or more, got [3]');
  });
});

describe('making tensors', () => {
  test('dtypes that are not given', () => {
    assert.deepEqual(
      [
        tensor([1]),
        tensor([true]),
        tensor([true, 1]),
        tensor([]),
        tensor(Float64Array.of(1)),
        tensor(Int32Array.of(1)),
        tensor(Float32Array.of(1)),
        tensor(1),
        tensor(true),
        tensor.zeros([1]),
        tensor.ones([1]),
        tensor.full([1], 2),
        tensor.arange(0, 1),
        tensor.eye(1),
        tensor.scalar(1),
        tensor.normal([1], { seed: 1 }),
        tensor.uniform([1], { seed: 1 }),
      ].map(t => t.dtype),
      ['f32', 'bool', 'f32', 'f32', 'f64', 'i32', 'f32', 'f32', 'bool', ...new Array<string>(8).fill('f32')],
    );
    assert.deepEqual(values(tensor([2, 0, -1], { dtype: 'bool' })), [1, 0, 1]);
    assert.deepEqual(values(tensor([1, 2, 3, 4], [2, 2], { dtype: 'i32' })), [1, 2, 3, 4]);
    assert.deepEqual(tensor(Float32Array.of(1, 2), [1, 2], { dtype: 'f64' }).dtype, 'f64');
    assert.deepEqual(tensor(Float32Array.of(1, 2), { dtype: 'i32' }).dtype, 'i32');
    assert.deepEqual([tensor([[], []]).shape, tensor(5).shape, tensor([[1], [2]]).shape], [[2, 0], [], [2, 1]]);
  });

  test('lists that are no rectangle, and data that does not fit', () => {
    refused(() => tensor([[1, 2], [3]]), 'ShapeError: tensor: expected 2 entries on axis 1, got 1');
    refused(() => tensor([[1], 2]), 'ShapeError: tensor: expected an array on axis 1, got 2');
    refused(() => tensor([1, [2]]), 'ShapeError: tensor: expected a number instead of entries on axis 1, got 1');
    refused(() => tensor([1, 2, 3], [2, 2]), 'ShapeError: tensor: 3 numbers do not fill shape [2,2]');
    refused(() => tensor(Float32Array.of(1), [2]), 'ShapeError: tensor: 1 numbers do not fill shape [2]');
    refused(() => tensor.zeros([-1]), 'ShapeError: zeros: [-1] is not a shape');
  });

  test('ranges', () => {
    assert.deepEqual(values(tensor.arange(0, 5, { step: 2 })), [0, 2, 4]);
    assert.deepEqual(values(tensor.arange(0, 4, { step: 2 })), [0, 2]);
    assert.deepEqual(values(tensor.arange(3, 0, { step: -1 })), [3, 2, 1]);
    assert.deepEqual(values(tensor.arange(3, 0)), []);
    assert.deepEqual(values(tensor.arange(2, 2)), []);
    assert.deepEqual(values(tensor.arange(1, 2, { step: 0.25 })), [1, 1.25, 1.5, 1.75]);
    assert.deepEqual(values(tensor.eye(3)), [1, 0, 0, 0, 1, 0, 0, 0, 1]);
    assert.deepEqual(values(tensor.full([2], 7, { dtype: 'i32' })), [7, 7]);
    assert.deepEqual(values(tensor.full([2], 7, { dtype: 'bool' })), [1, 1]);
  });

  test('random numbers are those of their seed and stream', () => {
    const drawn = (seed: number, stream: number, n: number, next: (r: Random) => number): number[] => {
      const random = new Random(seed, stream);
      return Array.from({ length: n }, () => next(random));
    };
    const f64 = { dtype: 'f64' as const };
    assert.deepEqual(
      values(tensor.normal([3], { seed: 5, ...f64 })),
      drawn(5, 0, 3, r => r.normal()),
    );
    assert.deepEqual(
      values(tensor.normal([3], { seed: 5, stream: 2, mean: 1, std: 3, ...f64 })),
      drawn(5, 2, 3, r => 1 + 3 * r.normal()),
    );
    assert.deepEqual(
      values(tensor.uniform([3], { seed: 5, ...f64 })),
      drawn(5, 0, 3, r => r.next()),
    );
    assert.deepEqual(
      values(tensor.uniform([3], { seed: 5, stream: 1, low: -2, high: 2, ...f64 })),
      drawn(5, 1, 3, r => -2 + 4 * r.next()),
    );
    const [linear, stream] = [
      linearInit([2, 3], { seed: 4, ...f64 }),
      linearInit([2, 3], { seed: 4, stream: 1, ...f64 }),
    ];
    const bound = (b: number, r: Random): number => b * (2 * r.next() - 1);
    assert.deepEqual(
      values(linear),
      drawn(4, 0, 6, r => bound(1 / Math.sqrt(3), r)),
    );
    assert.deepEqual(
      values(stream),
      drawn(4, 1, 6, r => bound(1 / Math.sqrt(3), r)),
    );
    assert.deepEqual(
      values(linearInit([2], { seed: 4, fanIn: 7, ...f64 })),
      drawn(4, 0, 2, r => bound(1 / Math.sqrt(7), r)),
    );
    assert.deepEqual(
      values(normalInit([3], { seed: 4, ...f64 })),
      drawn(4, 0, 3, r => 0.02 * r.normal()),
    );
    assert.deepEqual(
      values(normalInit([3], { seed: 4, std: 2, ...f64 })),
      drawn(4, 0, 3, r => 2 * r.normal()),
    );
    assert.deepEqual(
      values(kaimingUniform([2, 5], { seed: 4, ...f64 })),
      drawn(4, 0, 10, r => bound(Math.sqrt(6 / (6 * 5)), r)),
    );
    assert.deepEqual(
      values(kaimingUniform([2, 5], { seed: 4, a: 0, ...f64 })),
      drawn(4, 0, 10, r => bound(Math.sqrt(6 / 5), r)),
    );
    assert.equal(linearInit([1], { seed: 1 }).dtype, 'f32');
    assert.equal(orthogonalInit([1, 2], { seed: 1 }).dtype, 'f32');
  });

  test('orthonormal rows', () => {
    const R = values(orthogonalInit([3, 3], { seed: 9, dtype: 'f64' }));
    for (let i = 0; i < 3; i++)
      for (let j = 0; j < 3; j++) {
        const dot = [0, 1, 2].reduce((sum, k) => sum + R[3 * i + k] * R[3 * j + k], 0);
        assert.ok(Math.abs(dot - (i === j ? 1 : 0)) < 1e-14, `rows ${i} and ${j}: ${dot}`);
      }
    const other = values(orthogonalInit([3, 3], { seed: 9, stream: 1, dtype: 'f64' }));
    assert.notDeepEqual(other, R);
    for (const shape of [
      [3, 2],
      [0, 2],
    ] as const)
      refused(
        () => orthogonalInit(shape, { seed: 1 }),
        `ShapeError: orthogonalInit: [${shape.join(',')}] cannot have orthonormal rows`,
      );
    const rows = [Float64Array.of(3, 4), Float64Array.of(-1, 2)];
    orthonormalize(rows);
    assert.deepEqual([...rows[0]], [0.6, 0.8]);
    assert.ok(Math.abs(rows[1][0] + 0.8) < 1e-15 && Math.abs(rows[1][1] - 0.6) < 1e-15, String(rows[1]));
    refused(
      () => orthonormalize([Float64Array.of(1, 0), Float64Array.of(2, 0)]),
      'RangeError: orthonormal rows: row 1 depends on those before it, or is not finite',
    );
    refused(
      () => orthonormalize([Float64Array.of(Infinity, 0)]),
      'RangeError: orthonormal rows: row 0 depends on those before it, or is not finite',
    );
    assert.equal(lengthOf(Float64Array.of(3, -4)), 5);
  });
});

describe('random words', () => {
  test('are Threefry-2x32-20: known answers of Random123', () => {
    assert.deepEqual(randomWords(0, 0, 0), [0x6b200159, 0x99ba4efe]);
    // The seed is the key, its low word first; counter and stream are the counter.
    const seed = 0x85a308d3 * 0 + 0x1fffff * 2 ** 32 + 0xffffffff;
    assert.deepEqual(seedWords(seed), [0xffffffff, 0x1fffff]);
    assert.deepEqual(seedWords(2 ** 32), [0, 1]);
    assert.deepEqual(seedWords(2 ** 32 - 1), [0xffffffff, 0]);
    for (const bad of [-1, 1.5, 2 ** 53, NaN])
      refused(() => seedWords(bad), `RangeError: seed: expected an integer from 0 to 2^53 - 1, got ${bad}`);
    refused(() => new Random(-1), 'RangeError: seed: expected an integer from 0 to 2^53 - 1, got -1');
  });

  test('numbers in [0, 1) have 53 bits of them, normals two uniforms a pair', () => {
    const uniform = (counter: number): number => {
      const [high, low] = randomWords(7, 3, counter);
      return ((high >>> 5) * 67108864 + (low >>> 6)) / 9007199254740992;
    };
    const random = new Random(7, 3);
    assert.deepEqual([random.next(), random.next()], [uniform(0), uniform(1)]);
    assert.equal(random.integer(10), Math.floor(10 * uniform(2)));
    const radius = Math.sqrt(-2 * Math.log(1 - uniform(3)));
    const angle = 2 * Math.PI * uniform(4);
    assert.deepEqual([random.normal(), random.normal()], [radius * Math.cos(angle), radius * Math.sin(angle)]);
    assert.equal(random.next(), uniform(5));
    assert.deepEqual([new Random(7).next(), new Random(7).stream], [new Random(7, 0).next(), 0]);
  });

  test('a shuffle draws from the end', () => {
    const [random, again] = [new Random(3), new Random(3)];
    const items = [0, 1, 2, 3, 4];
    const expected = [...items];
    for (let i = 4; i > 0; i--) {
      const j = Math.floor(again.next() * (i + 1));
      [expected[i], expected[j]] = [expected[j], expected[i]];
    }
    assert.equal(random.shuffle(items), items);
    assert.deepEqual(items, expected);
    assert.equal(random.next(), again.next(), 'as many numbers are used');
  });
});

describe('packed rows', () => {
  test('bytes of rows, and where they lie', () => {
    assert.deepEqual(
      (['f16', 'bf16', 'q8_0', 'q4_0', 'q4_1'] as const).map(p => [packedWeightBytes(p, 64), packedRowBytes(p, 64)]),
      [
        [128, 128],
        [128, 128],
        [64, 68],
        [32, 36],
        [32, 40],
      ],
    );
    assert.deepEqual([packedRowBytes('f16', 3), packedRowBytes('q8_0', 32), packedRowBytes('q4_0', 32)], [8, 36, 20]);
    assert.deepEqual(
      [isPacking('q4_0'), isPacking('q5_0'), isPacking('toString'), isPacking(1)],
      [true, false, false, false],
    );
    const view = { packing: 'f16' as const, shape: [2, 3], strides: [3, 1], offset: 3 };
    assert.deepEqual(packedMatrix(view), {
      packing: 'f16',
      rows: 2,
      columns: 3,
      transposed: false,
      byteOffset: 8,
      rowBytes: 8,
    });
    assert.deepEqual(packedMatrix({ ...view, shape: [3, 2], strides: [1, 3] }), {
      packing: 'f16',
      rows: 2,
      columns: 3,
      transposed: true,
      byteOffset: 8,
      rowBytes: 8,
    });
    refused(() => packedMatrix({ ...view, packing: null }), 'Error: packedMatrix: the view is not packed');
    const backend = defaultBackend();
    refused(() => allocatePacked('f', [2, 2], 'f16', backend), 'no error');
    refused(
      () => allocatePacked('f', [2, 1], 'f16', backend),
      'ShapeError: f: f16 needs a matrix [rows, columns] with columns 2 or more, got [2,1]',
    );
    refused(
      () => allocatePacked('f', [2, 48], 'q8_0', backend),
      'ShapeError: f: q8_0 needs a matrix [rows, columns] with columns a multiple of 32, got [2,48]',
    );
    refused(
      () => allocatePacked('f', [64], 'q8_0', backend),
      'ShapeError: f: q8_0 needs a matrix [rows, columns] with columns a multiple of 32, got [64]',
    );
    refused(
      () => create.packed(new Uint8Array(7), [1, 4], 'f16'),
      'ShapeError: packed: 7 bytes do not fill f16[1,4], which takes 8',
    );
  });

  test('each format by its definition, from a place within the bytes', () => {
    const half = { 1: 0x3c00, 2: 0x4000, 0.5: 0x3800 };
    const bytes = new Uint8Array(8 + 40);
    const words = new Uint16Array(bytes.buffer);
    const out = new Float32Array(34);
    for (let i = 0; i < 16; i++) bytes[8 + i] = i | ((15 - i) << 4);
    words[4 + 8] = half[2];
    words[4 + 9] = half[0.5];
    decodePackedRow('q4_0', bytes, 8, 32, out, 1);
    assert.deepEqual(
      [...out.subarray(1, 33)],
      Array.from({ length: 32 }, (_, i) => 2 * ((i < 16 ? i : 31 - i) - 8)),
    );
    assert.deepEqual([out[0], out[33]], [0, 0]);
    decodePackedRow('q4_1', bytes, 8, 32, out, 1);
    assert.deepEqual(
      [...out.subarray(1, 33)],
      Array.from({ length: 32 }, (_, i) => 2 * (i < 16 ? i : 31 - i) + 0.5),
    );
    for (let i = 0; i < 32; i++) bytes[8 + i] = i - 16;
    words[4 + 16] = half[2];
    decodePackedRow('q8_0', bytes, 8, 32, out, 1);
    assert.deepEqual(
      [...out.subarray(1, 33)],
      Array.from({ length: 32 }, (_, i) => 2 * (i - 16)),
    );
    words.set([half[1], half[2], 0xc000], 4);
    decodePackedRow('f16', bytes, 8, 3, out, 2);
    assert.deepEqual([...out.subarray(2, 5)], [1, 2, -2]);
    words.set([0x3f80, 0xc040], 4);
    decodePackedRow('bf16', bytes, 8, 2, out, 2);
    assert.deepEqual([...out.subarray(2, 5)], [1, -3, -2]);
  });
});

describe('products and losses', () => {
  test('what cannot be multiplied', () => {
    const [a, b] = [tensor.ones([2, 3]), tensor.ones([2, 3])];
    refused(() => a.matmul(b), 'ShapeError: matmul: inner sides differ, [2,3] x [2,3]');
    refused(() => tensor.scalar(1).matmul(a), 'ShapeError: matmul: expected rank 1 or more, got [] and [2,3]');
    refused(
      () => a.matmul(tensor.ones([3, 2], { dtype: 'f64' })),
      'ShapeError: matmul: expected two f32 or two f64 tensors, got f32 and f64',
    );
    refused(
      () => a.to('i32').matmul(tensor.ones([3, 2], { dtype: 'i32' })),
      'ShapeError: matmul: expected two f32 or two f64 tensors, got i32 and i32',
    );
    assert.deepEqual(tensor.ones([3]).matmul(tensor.ones([3])).shape, []);
    assert.deepEqual(tensor.ones([3]).matmul(tensor.ones([4, 3, 2])).shape, [4, 2]);
    assert.deepEqual(tensor.ones([4, 2, 3]).matmul(tensor.ones([3])).shape, [4, 2]);
    assert.deepEqual(tensor.ones([4, 2, 3]).matmul(tensor.ones([3, 5])).shape, [4, 2, 5]);
    assert.deepEqual(tensor.ones([4, 2, 3]).matmul(tensor.ones([1, 3, 5])).shape, [4, 2, 5]);
  });

  test('labels', () => {
    const logits = tensor(
      [
        [0, 0],
        [0, Math.log(3)],
        [5, 5],
      ],
      { dtype: 'f64' },
    );
    const losses = values(crossEntropy(logits, Int32Array.of(0, 1, -1)));
    const expected = [Math.log(2), Math.log(4 / 3), 0];
    losses.forEach((loss, i) => assert.ok(Math.abs(loss - expected[i]) < 1e-15, `${i}: ${loss}`));
    const mean = values(crossEntropyMean(logits, Int32Array.of(0, 1, -1)))[0];
    assert.ok(Math.abs(mean - (expected[0] + expected[1]) / 2) < 1e-15, String(mean));
    const zeroCounts = values(crossEntropyMean(logits, Int32Array.of(0, -1, -1)))[0];
    assert.ok(Math.abs(zeroCounts - expected[0]) < 1e-15, String(zeroCounts));
    refused(
      () => crossEntropy(logits, Int32Array.of(0, 2, 0)),
      'RangeError: crossEntropy: label 2 of row 1 is outside the 2 classes',
    );
    refused(() => crossEntropy(logits, Int32Array.of(0, 1)), 'ShapeError: crossEntropy: 2 labels for logits [3,2]');
    refused(
      () => crossEntropy(logits.to('i32'), Int32Array.of(0, 1, 1)),
      'ShapeError: crossEntropy: expected f32 or f64 logits, got i32',
    );
    refused(() => crossEntropyMean(logits, Int32Array.of(-1, -1, -1)), 'RangeError: crossEntropy: no row has a label');
  });

  test('attention that does not fit', () => {
    const of = (...shape: number[]) => tensor.ones(shape);
    const [q, k] = [of(1, 2, 3, 4), of(1, 1, 3, 4)];
    refused(() => attention(q, k, k), 'no error');
    const shapes = (a: Tensor, b: Tensor, c: Tensor): void =>
      refused(
        () => attention(a, b, c),
        `ShapeError: attention: q [${a.shape.join(',')}], k [${b.shape.join(',')}] and v [${c.shape.join(',')}] do not fit [B,H,T,D], [B,KV,S,D], [B,KV,S,D]`,
      );
    shapes(of(2, 3, 4), k, k);
    shapes(q, of(1, 1, 3, 5), of(1, 1, 3, 5));
    shapes(q, k, of(1, 1, 2, 4));
    shapes(q, of(2, 1, 3, 4), of(2, 1, 3, 4));
    shapes(of(1, 3, 3, 4), of(1, 2, 3, 4), of(1, 2, 3, 4));
    refused(
      () => attention(q, k, k.to('f64')),
      'ShapeError: attention: expected three f32 or three f64 tensors, got f32, f32 and f64',
    );
    const one = Int32Array.of(1);
    refused(
      () => attention(q, k, k, { keyStart: new Int32Array(2), keyEnd: one }),
      'ShapeError: attention: keyStart and keyEnd need 1 entries, got 2 and 1',
    );
    refused(
      () => attention(q, k, k, { keyEnd: Int32Array.of(4) }),
      'RangeError: attention: row 0 sees keys 0 to 4 of 3',
    );
    refused(
      () => attention(q, k, k, { keyStart: Int32Array.of(-1) }),
      'RangeError: attention: row 0 sees keys -1 to 3 of 3',
    );
    refused(
      () => attention(q, k, k, { keyEnd: Int32Array.of(-1) }),
      'RangeError: attention: row 0 sees keys 0 to -1 of 3',
    );
    refused(
      () => attention(q, k, k, { window: 1.5 }),
      'RangeError: attention: window must be a whole number from 0, got 1.5',
    );
    refused(
      () => attention(q, k, k, { causalOffset: -1 }),
      'RangeError: attention: causalOffset must be a whole number from 0, got -1',
    );
    refused(() => attention(q, k, k, { scale: NaN }), 'RangeError: attention: scale must be a finite number, got NaN');
  });

  test('a wrong gradient is named with its entry', async () => {
    const x = tensor.normal([2, 3], { seed: 1, dtype: 'f64' });
    await gradcheck(t => t.square().sum(), [x]);
    await assert.rejects(
      gradcheck(t => t.square().sum(), [x.to('f32')]),
      { message: 'gradcheck: input 0 is f32, expected f64' },
    );
    const wrong = (t: Tensor): Tensor => t.square().sum().add(t.select(0, 1).select(0, 2).detach().mul(0.5));
    const value = 2 * values(x)[5];
    await assert.rejects(gradcheck(wrong, [x]), (error: Error) => {
      const [, analytic, numeric] =
        /^gradcheck: input 0 \[2,3\] at \[1,2\]: analytic (\S+), numeric (\S+) \(square -> sum/.exec(error.message)!;
      // Both have the same random weight.
      const ratio = Number(numeric) / Number(analytic);
      assert.ok(Math.abs(ratio / (1 + 0.5 / value) - 1) < 1e-4, error.message);
      return true;
    });
  });
});

describe('schedules', () => {
  test('warm-up as a share below 1, or as steps', () => {
    const of = (name: Parameters<typeof scheduleFactor>[0], step: number, warmup?: number) =>
      scheduleFactor(name, step, 10, warmup);
    assert.deepEqual([of('linear', 0), of('linear', 5), of('linear', 10), of('linear', 11)], [1, 0.5, 0, 0]);
    assert.deepEqual([of('cosine', 0), of('cosine', 10)], [1, 0]);
    assert.ok(Math.abs(of('cosine', 5) - 0.5) < 1e-15, 'half way');
    assert.ok(Math.abs(of('cosine', 2) - 0.5 * (1 + Math.cos(0.2 * Math.PI))) < 1e-15, 'a fifth');
    assert.deepEqual([of('constant', 0), of('constant', 99)], [1, 1]);
    assert.deepEqual(
      [0, 1, 2, 3].map(step => of('constant', step, 0.15)),
      [0, 0.5, 1, 1],
      'rounded up',
    );
    assert.deepEqual(
      [0, 1, 2].map(step => of('constant', step, 1)),
      [0, 1, 1],
    );
    assert.deepEqual(
      [0, 2, 4].map(step => of('linear', step, 4)),
      [0, 0.5, 1],
    );
    assert.equal(of('linear', 7, 4), 0.5);
    assert.equal(of('linear', 9, 10), 0.9);
    refused(() => of('linear', 0, -1), 'RangeError: warmup: expected a fraction or a number of steps, got -1');
    refused(() => of('linear', 0, NaN), 'RangeError: warmup: expected a fraction or a number of steps, got NaN');
    refused(() => of('step' as 'linear', 0), "RangeError: schedule: expected constant, linear, cosine, got 'step'");
  });
});
