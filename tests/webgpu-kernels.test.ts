// Every primitive of the WebGPU backend against the reference kernels: shapes at the edges of tiles and workgroups,
// strides, broadcasts, aliasing, empty shapes, both variants of each kernel, and buffers larger than may be bound.
// Values are such that f32 is exact.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as E from '../src/tensor/expr.js';
import { contiguousStrides, sizeOf } from '../src/tensor/shape.js';
import type { View } from '../src/backends/backend.js';
import { Mirror, openForTests, quarters } from './helpers/webgpu.js';

const plain = await openForTests();
// The variants a real GPU would take, and kernels that may bind 4 KiB of a buffer: all larger ones are worked on in
// parts.
const others = plain && [
  await openForTests({ matmul: 'workgroup', reduce: 'workgroup' }),
  await openForTests({ bindingBytes: 4096, matmul: 'register' }),
];

const [x, y] = [E.arg(0), E.arg(1)];
const sides = [1, 2, 5, 63, 64, 65, 129];

for (const [backend, name] of [
  [plain, 'register'],
  [others?.[0], 'workgroup'],
  [others?.[1], 'small bindings'],
] as const) {
  if (!backend) continue;
  const mirror = new Mirror(backend);
  const limited = name === 'small bindings';

  test(`${name}: map over strides and broadcasts`, async () => {
    for (const n of sides) {
      const shape = [3, n, 4];
      const dense = contiguousStrides(shape);
      const layouts = [
        dense,
        [4 * n + 3, 4, 1],
        [1, 3, 3 * n],
        [4, 0, 1],
        [0, 0, 0],
        dense.map(s => -s),
        dense.map(s => 2 * s),
      ];
      for (const [i, strides] of layouts.entries()) {
        const a = mirror.view(shape, { strides, value: quarters(i) });
        const b = mirror.view(shape, { strides: layouts[(i + 3) % layouts.length], value: quarters(9) });
        const outputs = [mirror.view(shape), mirror.view(shape, { strides: [1, 3, 3 * n] })];
        const program = E.program([E.add(E.mul(x, y), E.uniform(0)), E.sub(x, E.toF(E.index))], 2);
        mirror.run('map', { program, shape, inputs: [a, b], outputs, uniforms: [0.75] });
      }
      await mirror.compare(`side ${n}`);
    }
  });

  test(`${name}: map of rank 0, empty shapes, six axes that do not merge`, async () => {
    for (const shape of [[], [0], [3, 0], [2, 3, 2, 3, 2, 3]]) {
      const a = mirror.view(shape, {
        strides: contiguousStrides(shape).map((s, d) => s * (d % 2 === 0 ? 1 : 2)),
        value: quarters(1),
      });
      const output = mirror.view(shape);
      mirror.run('map', { program: E.program([E.neg(x)], 1), shape, inputs: [a], outputs: [output], uniforms: [] });
      await mirror.compare(`[${shape.join(',')}]`);
    }
  });

  test(`${name}: an output may be an input; views of one allocation meet`, async () => {
    for (const n of sides) {
      const a = mirror.view([n], { strides: [3], value: i => i });
      const b = mirror.view([n], { value: i => 10 * i });
      const both = E.program([E.add(x, y), E.sub(y, x)], 2);
      mirror.run('map', { program: both, shape: [n], inputs: [a, b], outputs: [a, b], uniforms: [] });
      // Two windows of one allocation, one read and one written.
      const on = mirror.allocation(2 * n + 10);
      const low = mirror.view([n], { on, at: 1, value: quarters(2) });
      const high = mirror.view([n], { on, at: n + 5, value: quarters(3) });
      mirror.run('map', {
        program: E.program([E.mul(x, y)], 2),
        shape: [n],
        inputs: [low, b],
        outputs: [high],
        uniforms: [],
      });
      mirror.run('copy', { input: high, output: low });
      mirror.run('copy', { input: low, output: mirror.view([n], { strides: [-2] }) });
      await mirror.compare(`side ${n}`);
    }
  });

  test(`${name}: more buffers than a kernel may bind`, async () => {
    for (const [inputs, outputs, shared] of [
      [9, 1, 0],
      [3, 9, 0],
      [12, 10, 4],
      [4, 7, 3],
    ]) {
      const shape = [5, 13];
      const layout = (i: number): number[] => (i % 3 === 1 ? [0, 1] : i % 3 === 2 && i >= shared ? [1, 5] : [13, 1]);
      const ins = Array.from({ length: inputs }, (_, i) =>
        mirror.view(shape, { strides: layout(i), value: quarters(i) }),
      );
      // The first outputs are inputs at the same time; repeated elements may not be written.
      const free = ins.filter((_, i) => i % 3 === 0);
      const fresh = (j: number): View => mirror.view(shape, { strides: j % 2 ? [1, 5] : [13, 1] });
      const outs = Array.from({ length: outputs }, (_, j) => (j < shared && j < free.length ? free[j] : fresh(j)));
      const sum = ins.map((_, i) => E.arg(i)).reduce<E.Expr>((a, b) => E.add(a, b), E.constant(0));
      const program = E.program(
        outs.map((_, j) => E.add(E.mul(sum, j + 1), E.arg(j % inputs))),
        inputs,
      );
      mirror.run('map', { program, shape, inputs: ins, outputs: outs, uniforms: [] });
      const total = mirror.view([5, 1]);
      mirror.run('reduce', {
        op: 'sum',
        program: E.program([sum], inputs),
        shape,
        axes: [1],
        inputs: ins,
        output: total,
        uniforms: [],
      });
      await mirror.compare(`${inputs} in, ${outputs} out`);
    }
  });

  test(`${name}: integers and bools`, async () => {
    const shape = [129];
    const i = mirror.view(shape, { dtype: 'i32', value: n => (n - 64) * 33554467 });
    const b = mirror.view(shape, { dtype: 'bool', value: n => Number(n % 3 === 0) });
    const [p, q] = [E.arg(0, 'i'), E.arg(1, 'b')];
    const outputs: E.Expr[] = [
      E.mul(p, 77777),
      E.shr(p, 5),
      E.toI(E.shr(E.toU(p), 5)),
      E.where(q, p, E.neg(p)),
      E.not(q),
      E.and(q, E.lt(p, 0)),
    ];
    const views = outputs.map(o => mirror.view(shape, { dtype: o.type === 'b' ? 'bool' : 'i32' }));
    mirror.run('map', { program: E.program(outputs, 2), shape, inputs: [i, b], outputs: views, uniforms: [] });
    const [all, most, any] = [
      mirror.view([1], { dtype: 'i32' }),
      mirror.view([1], { dtype: 'i32' }),
      mirror.view([1], { dtype: 'bool' }),
    ];
    mirror.run('reduce', {
      op: 'sum',
      program: E.program([E.toI(E.arg(0, 'b'))], 1),
      shape,
      axes: [0],
      inputs: [b],
      output: all,
      uniforms: [],
    });
    mirror.run('reduce', {
      op: 'max',
      program: E.program([E.arg(0, 'i')], 1),
      shape,
      axes: [0],
      inputs: [i],
      output: most,
      uniforms: [],
    });
    mirror.run('reduce', {
      op: 'max',
      program: E.program([E.arg(0, 'b')], 1),
      shape,
      axes: [0],
      inputs: [b],
      output: any,
      uniforms: [],
    });
    await mirror.compare('integers');
  });

  test(`${name}: reductions over each set of axes`, async () => {
    const program = E.program([E.add(E.mul(x, y), E.mul(E.toF(E.bitAnd(E.index, E.constant(3, 'u'))), 0.25))], 2);
    for (const n of sides) {
      const shape = [4, n, 3];
      for (const axes of [[0], [1], [2], [0, 1], [1, 2], [0, 2], [0, 1, 2], []]) {
        const kept = shape.map((side, d) => (axes.includes(d) ? 1 : side));
        const a = mirror.view(shape, { strides: [1, 4, 4 * n], value: quarters(3) });
        const b = mirror.view(shape, { strides: [0, 3, 1], value: quarters(4) });
        for (const op of ['sum', 'max'] as const) {
          const output = mirror.view(kept, { strides: contiguousStrides(kept).map(s => 2 * s) });
          mirror.run('reduce', { op, program, shape, axes, inputs: [a, b], output, uniforms: [] });
        }
      }
      await mirror.compare(`side ${n}`);
    }
  });

  test(`${name}: long reductions are made in parts, empty ones have a value`, async () => {
    for (const [shape, axes] of [
      [[5000], [0]],
      [[2, 3001], [1]],
      [[1777, 3], [0]],
      [
        [40, 2, 50],
        [0, 2],
      ],
    ] as const) {
      const kept = shape.map((side, d) => ((axes as readonly number[]).includes(d) ? 1 : side));
      const a = mirror.view(shape, { value: quarters(5) });
      const weighted = E.add(x, E.toF(E.bitAnd(E.index, E.constant(1, 'u'))));
      for (const op of ['sum', 'max'] as const) {
        mirror.run('reduce', {
          op,
          program: E.program([weighted], 1),
          shape,
          axes,
          inputs: [a],
          output: mirror.view(kept),
          uniforms: [],
        });
      }
      await mirror.compare(`[${shape.join(',')}]`);
    }
    const nothing = mirror.view([0, 3]);
    for (const op of ['sum', 'max'] as const) {
      mirror.run('reduce', {
        op,
        program: E.program([x], 1),
        shape: [0, 3],
        axes: [0],
        inputs: [nothing],
        output: mirror.view([1, 3]),
        uniforms: [],
      });
    }
    const low = mirror.view([4], { value: () => -Infinity });
    mirror.run('reduce', {
      op: 'max',
      program: E.program([x], 1),
      shape: [4],
      axes: [0],
      inputs: [low],
      output: mirror.view([1]),
      uniforms: [],
    });
    await mirror.compare('empty');
  });

  test(`${name}: products at the edges of tiles, transposed and not`, async () => {
    const tiles = [
      [1, 1, 1],
      [1, 7, 9],
      [2, 8, 5],
      [3, 64, 17],
      [4, 4, 4],
      [8, 16, 8],
      [17, 5, 33],
      [64, 16, 64],
      [65, 31, 63],
      [12, 20, 68],
      [7, 129, 4],
    ];
    for (const [m, k, n] of tiles) {
      for (let way = 0; way < 8; way++) {
        const a = mirror.view([m, k], { strides: way & 1 ? [1, m] : [k, 1], value: quarters(1), at: way & 4 ? 4 : 5 });
        const b = mirror.view([k, n], { strides: way & 2 ? [1, k] : [n, 1], value: quarters(2), at: way & 4 ? 8 : 3 });
        const output = mirror.view([m, n], way === 3 ? { strides: [1, m] } : {});
        mirror.run('matmul', { a, b, output });
      }
      await mirror.compare(`${m}x${k}x${n}`);
    }
  });

  test(`${name}: batches of products, repeated and strided; empty sides; one allocation`, async () => {
    for (const [m, k, n] of [
      [3, 5, 7],
      [8, 4, 8],
    ]) {
      const whole = [2, 3, m, k];
      const views: [View, View][] = [
        [mirror.view(whole, { value: quarters(1) }), mirror.view([2, 3, k, n], { value: quarters(2) })],
        [
          mirror.view(whole, { strides: [0, m * k, k, 1], value: quarters(3) }),
          mirror.view([2, 3, k, n], { strides: [k * n, 0, 1, k], value: quarters(4) }),
        ],
        [
          mirror.view(whole, { strides: [k, 2 * k * m, 2 * k, 1], value: quarters(5) }),
          mirror.view([2, 3, k, n], { strides: [0, 0, n, 1], value: quarters(6) }),
        ],
      ];
      for (const [a, b] of views) mirror.run('matmul', { a, b, output: mirror.view([2, 3, m, n]) });
      await mirror.compare(`${m}x${k}x${n}`);
    }
    mirror.run('matmul', { a: mirror.view([3, 0]), b: mirror.view([0, 4]), output: mirror.view([3, 4]) });
    mirror.run('matmul', { a: mirror.view([0, 2]), b: mirror.view([2, 4]), output: mirror.view([0, 4]) });
    const on = mirror.allocation(40);
    const [a, b] = [
      mirror.view([2, 3], { on, at: 1, value: quarters(1) }),
      mirror.view([3, 2], { on, at: 8, value: quarters(2) }),
    ];
    mirror.run('matmul', { a, b, output: mirror.view([2, 2], { on, at: 20 }) });
    await mirror.compare('empty sides');
  });

  test(`${name}: rows picked and added up`, async () => {
    for (const row of [[], [1], [5], [64], [3, 7]]) {
      const source = [6, ...row];
      const strides = contiguousStrides(source);
      for (const layout of [strides, strides.map(s => 2 * s), [1, ...strides.slice(1).map(s => 6 * s)]]) {
        const input = mirror.view(source, { strides: layout, value: quarters(7) });
        const indices = Int32Array.of(5, 0, -1, 0, 3, 3, 2);
        mirror.run('gather', { input, indices, output: mirror.view([7, ...row]) });
        const many = mirror.view([7, ...row], { value: quarters(8) });
        mirror.run('scatterAdd', { input: many, indices, output: mirror.view(source, { strides: layout }) });
      }
      await mirror.compare(`rows [${row.join(',')}]`);
    }
    const numbers = mirror.view([4, 2], { dtype: 'i32', value: i => 1 << (4 * i) });
    mirror.run('gather', {
      input: numbers,
      indices: Int32Array.of(3, -1),
      output: mirror.view([2, 2], { dtype: 'i32' }),
    });
    mirror.run('scatterAdd', {
      input: numbers,
      indices: Int32Array.of(1, 1, -1, 1),
      output: mirror.view([2, 2], { dtype: 'i32' }),
    });
    mirror.run('scatterAdd', { input: mirror.view([0, 2]), indices: new Int32Array(0), output: mirror.view([3, 2]) });
    await mirror.compare('integers and nothing');
  });

  test(`${name}: larger than one binding`, async () => {
    const shape = [61, 67];
    const a = mirror.view(shape, { value: quarters(1) });
    const b = mirror.view(shape, { strides: [1, 61], value: quarters(2) });
    mirror.run('map', {
      program: E.program([E.add(x, E.add(y, E.toF(E.index)))], 2),
      shape,
      inputs: [a, b],
      outputs: [mirror.view(shape)],
      uniforms: [],
    });
    for (const axes of [[0], [1], [0, 1]]) {
      const kept = shape.map((side, d) => (axes.includes(d) ? 1 : side));
      const program = E.program([E.add(E.mul(x, 1), E.toF(E.bitAnd(E.index, E.constant(7, 'u'))))], 1);
      mirror.run('reduce', { op: 'sum', program, shape, axes, inputs: [a], output: mirror.view(kept), uniforms: [] });
      mirror.run('reduce', { op: 'max', program, shape, axes, inputs: [a], output: mirror.view(kept), uniforms: [] });
    }
    const wide = mirror.view([67, 64], { value: quarters(3) });
    mirror.run('matmul', { a, b: wide, output: mirror.view([61, 64]) });
    mirror.run('matmul', {
      a: mirror.view([3, 67], { value: quarters(4) }),
      b: { ...b, shape: [67, 61], strides: [61, 1] },
      output: mirror.view([3, 61]),
    });
    const indices = Int32Array.from({ length: 50 }, (_, i) => (i === 7 ? -1 : (i * 13) % 61));
    mirror.run('gather', { input: a, indices, output: mirror.view([50, 67]) });
    const added = mirror.view([5, 67], { value: quarters(5) });
    mirror.run('scatterAdd', { input: added, indices: Int32Array.of(60, 3, 60, -1, 3), output: mirror.view(shape) });
    await mirror.compare('large');
    assert.equal(limited, backend.settings.bindingBytes < 4 * sizeOf(shape));
  });
}
