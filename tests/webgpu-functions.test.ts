// Scalar programs as WGSL: element functions in ULPs against f64, values at the edges of the range, random programs bit
// by bit against the interpreter, and Threefry's bits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import * as E from '../src/tensor/expr.js';
import type { Expr } from '../src/tensor/expr.js';
import type { DType } from '../src/tensor/dtype.js';
import { randomWords, seedWords, threefry } from '../src/tensor/threefry.js';
import { erf } from '../src/backends/cpu/erf.js';
import type { WebGpuBackend } from '../src/backends/webgpu/index.js';
import { numbers, ulps } from './helpers/wasmArena.js';
import { Mirror, openForTests } from './helpers/webgpu.js';

const backend = await openForTests();
if (backend) tests(backend);

interface Function1 {
  readonly name: string;
  readonly e: Expr;
  readonly exact: (x: number) => number;
  readonly from: number;
  readonly to: number;
  /** Units in the last place; results below the smallest normal number may be flushed to 0. */
  readonly ulps: number;
}

function tests(gpu: WebGpuBackend): void {
  const mirror = new Mirror(gpu);
  const x = E.arg(0);
  const functions: readonly Function1[] = [
    { name: 'exp', e: E.exp(x), exact: Math.exp, from: -104, to: 89, ulps: 3 },
    { name: 'log', e: E.log(x), exact: Math.log, from: 0, to: 3e38, ulps: 3 },
    { name: 'log near 1', e: E.log(x), exact: Math.log, from: 0.5, to: 2, ulps: 3 },
    { name: 'tanh', e: E.tanh(x), exact: Math.tanh, from: -12, to: 12, ulps: 3 },
    { name: 'erf', e: E.erf(x), exact: erf, from: -6, to: 6, ulps: 3 },
    { name: 'sin', e: E.sin(x), exact: Math.sin, from: -4, to: 4, ulps: 3 },
    { name: 'sin, far', e: E.sin(x), exact: Math.sin, from: -1e6, to: 1e6, ulps: 3 },
    { name: 'sin, anywhere', e: E.sin(x), exact: Math.sin, from: -3e38, to: 3e38, ulps: 3 },
    { name: 'cos', e: E.cos(x), exact: Math.cos, from: -4, to: 4, ulps: 3 },
    { name: 'cos, anywhere', e: E.cos(x), exact: Math.cos, from: -3e38, to: 3e38, ulps: 3 },
    // The bounds of WGSL for the device's own.
    { name: 'sqrt', e: E.sqrt(x), exact: Math.sqrt, from: 1e-37, to: 3e38, ulps: 3 },
    { name: 'rsqrt', e: E.rsqrt(x), exact: v => 1 / Math.sqrt(v), from: 1e-37, to: 3e38, ulps: 2 },
    { name: 'a third', e: E.div(x, 3), exact: v => v / 3, from: -1e6, to: 1e6, ulps: 2.5 },
    { name: 'floor', e: E.floor(x), exact: Math.floor, from: -1e6, to: 1e6, ulps: 0 },
    { name: 'abs', e: E.abs(x), exact: Math.abs, from: -10, to: 10, ulps: 0 },
  ];

  async function apply(e: Expr, xs: readonly number[], dtype: DType = 'f32'): Promise<number[]> {
    const input = mirror.view([xs.length], { value: i => xs[i] });
    const output = mirror.view([xs.length], { dtype });
    gpu.kernels.map({
      program: E.program([e], 1),
      shape: [xs.length],
      inputs: [input],
      outputs: [output],
      uniforms: [],
    });
    const result = await mirror.read(output);
    mirror.clear();
    return result;
  }

  /** Numbers spread evenly over [low, high], and over all magnitudes in it. */
  function spread(low: number, high: number, count: number): number[] {
    const random = numbers(7);
    const xs: number[] = [];
    for (let i = 0; i < count; i++) {
      xs.push(Math.fround(low + ((random() + 1) / 2) * (high - low)));
      const scaled = Math.fround(high * 2 ** (-40 * ((random() + 1) / 2)));
      xs.push(low < 0 && i % 2 === 0 ? -Math.min(scaled, -low) : scaled);
    }
    return xs.filter(v => v >= low && v <= high);
  }

  for (const { name, e, exact, from, to, ulps: bound } of functions) {
    test(`WGSL: ${name} is within ${bound} ULP on [${from}, ${to}]`, async () => {
      const xs = spread(from, to, 20000);
      assert.ok(xs.length > 20000, 'xs.length > 20000');
      const ys = await apply(e, xs);
      let [worst, at] = [0, 0];
      xs.forEach((v, i) => {
        const want = exact(v);
        const error = Math.abs(want) < 2 ** -126 && Math.abs(ys[i]) <= 2 ** -126 ? 0 : ulps(ys[i], want);
        if (!(error <= worst)) [worst, at] = [error, v];
      });
      assert.ok(worst <= bound, `${worst} ULP at ${at}`);
    });
  }

  test('WGSL: element functions far out, where nothing may turn into NaN', async () => {
    const at = [0, 1e-20, -1e-20, 100, -200, 1e30, -1e30, 88.7, -1].map(Math.fround);
    const expected: [Expr, (v: number) => number][] = [
      [E.tanh(x), Math.tanh],
      [E.erf(x), erf],
      [E.sin(x), Math.sin],
      [E.cos(x), Math.cos],
      [E.exp(E.min(x, 80)), v => Math.exp(Math.min(v, 80))],
      [E.div(1, E.add(E.exp(E.neg(E.max(x, -80))), 1)), v => 1 / (1 + Math.exp(-Math.max(v, -80)))],
    ];
    for (const [e, exact] of expected) {
      const got = await apply(e, at);
      at.forEach((v, i) =>
        assert.ok(
          Math.abs(got[i] - exact(v)) <= 8 * 2 ** -24 * Math.abs(exact(v)) + 2 ** -126,
          `${e.op}(${v}) = ${got[i]}, expected ${exact(v)}`,
        ),
      );
    }
  });

  test('WGSL: functions through 0 keep the signs of zeros', async () => {
    for (const e of [E.tanh(x), E.erf(x), E.sin(x), E.sqrt(x), E.floor(x)])
      assert.deepEqual(await apply(e, [-0, 0]), [-0, 0], e.op);
  });

  test('WGSL: infinities as data and as constants pass through comparisons and choices', async () => {
    const got = await apply(E.where(E.lt(x, 0), -Infinity, E.where(E.eq(x, Infinity), 7, x)), [-1, Infinity, 2]);
    assert.deepEqual(got, [-Infinity, 7, 2]);
  });

  test('WGSL: float to integer cuts toward zero and saturates', async () => {
    const xs = [0.9, -0.9, 1.5, -7.5, 3e9, -3e9, NaN, Infinity, 16777216];
    assert.deepEqual(
      (await apply(E.toI(x), xs, 'i32')).map(v => v + 0),
      [0, 0, 1, -7, 2147483647, -2147483648, 0, 2147483647, 16777216],
    );
  });

  test('WGSL: random programs equal the reference, bit by bit', async () => {
    const drawn = fc.record({
      n: fc.constantFrom(1, 5, 64, 65),
      rows: fc.constantFrom(1, 3),
      seed: fc.nat(1e6),
      steps: fc.constantFrom(1, 6, 30),
    });
    const settings = {
      seed: Number(process.env['FC_SEED'] ?? 20240404),
      numRuns: Number(process.env['FC_RUNS'] ?? 60),
    };
    await fc.assert(
      fc.asyncProperty(drawn, async ({ n, rows, seed, steps }) => {
        const random = numbers(seed);
        const outputs = randomProgram(random, steps);
        const shape = [rows, n];
        const dtypes: DType[] = ['f32', 'f32', 'i32', 'bool'];
        const inputs = dtypes.map((dtype, k) =>
          mirror.view(shape, {
            dtype,
            strides: k === 1 ? [1, rows] : [n, 1],
            value: () =>
              dtype === 'bool'
                ? Number(random() > 0)
                : dtype === 'i32'
                  ? Math.floor(1000 * random())
                  : Math.floor(64 * random()) / 8,
          }),
        );
        const views = outputs.map(e =>
          mirror.view(shape, { dtype: e.type === 'f' ? 'f32' : e.type === 'b' ? 'bool' : 'i32' }),
        );
        mirror.run('map', { program: E.program(outputs, 4), shape, inputs, outputs: views, uniforms: [1.5, -3] });
        await mirror.compare(`program ${outputs.map(o => o.id).join(',')}`);
      }),
      settings,
    );
  });

  test('WGSL: Threefry gives the bits that the host gives', async () => {
    const seed = 2 ** 40 + 12345;
    const words = {
      word: (value: number) => E.constant(value >>> 0, 'u'),
      add: (a: Expr, b: Expr) => E.add(a, b),
      xor: (a: Expr, b: Expr) => E.bitXor(a, b),
      rotateLeft: (a: Expr, by: number) => E.bitOr(E.shl(a, by), E.shr(a, 32 - by)),
    };
    const [low, high] = threefry(words, [E.uniform(0, 'u'), E.uniform(1, 'u')], [E.index, E.uniform(2, 'u')]);
    const n = 300;
    const outputs = [mirror.view([n], { dtype: 'i32' }), mirror.view([n], { dtype: 'i32' })];
    gpu.kernels.map({
      program: E.program([low, high], 0),
      shape: [n],
      inputs: [],
      outputs,
      uniforms: [...seedWords(seed), 3],
    });
    const got = await Promise.all(outputs.map(o => mirror.read(o)));
    for (let i = 0; i < n; i++) assert.deepEqual([got[0][i] >>> 0, got[1][i] >>> 0], randomWords(seed, 3, i));
    mirror.clear();
  });
}

/**
 * Arguments 0, 1: floats; 2: integer; 3: bool. Uniforms 0: float; 1: integer. Only operations that are exact in f32.
 */
function randomProgram(random: () => number, steps: number): Expr[] {
  const pool: Expr[] = [
    E.arg(0),
    E.arg(1),
    E.arg(2, 'i'),
    E.arg(3, 'b'),
    E.uniform(0),
    E.uniform(1, 'i'),
    E.index,
    E.constant(2),
    E.constant(-3, 'i'),
  ];
  const any = <T>(from: readonly T[]): T => from[Math.floor(((random() + 1) / 2) * from.length) % from.length];
  const pick = (type: E.ScalarType): Expr => any(pool.filter(e => e.type === type));
  const two = (f: (a: Expr, b: Expr) => Expr, type: E.ScalarType): Expr => f(pick(type), pick(type));
  const makers: (() => Expr)[] = [
    ...[E.min, E.max].flatMap(f => (['f', 'i', 'u'] as const).map(t => () => two(f, t))),
    ...[E.add, E.sub, E.mul].flatMap(f => (['i', 'u'] as const).map(t => () => two(f, t))),
    ...[E.bitAnd, E.bitOr, E.bitXor].flatMap(f => (['i', 'u'] as const).map(t => () => two(f, t))),
    ...[E.lt, E.le, E.eq, E.ne].flatMap(f => (['f', 'i', 'u', 'b'] as const).map(t => () => two(f, t))),
    ...[E.and, E.or].map(f => () => two(f, 'b')),
    ...(['f', 'i', 'b'] as const).map(t => () => E.where(pick('b'), pick(t), pick(t))),
    () => E.abs(pick('f')),
    () => E.neg(pick('f')),
    () => E.floor(pick('f')),
    () => E.mul(pick('f'), 0.5),
    () => E.add(pick('f'), 1),
    () => E.neg(pick('i')),
    () => E.abs(pick('i')),
    () => E.shl(pick('u'), 5),
    () => E.shr(pick('u'), 7),
    () => E.shr(pick('i'), 3),
    () => E.not(pick('b')),
    () => E.toF(pick('b')),
    () => E.toI(pick('b')),
    () => E.toU(pick('i')),
    () => E.toI(pick('u')),
    () => E.toI(E.floor(pick('f'))),
    () => E.toF(E.shr(pick('u'), 22)),
    () => E.toF(E.shr(pick('i'), 20)),
    () => E.toB(pick('i')),
    () => E.mul(pick('f'), E.toF(E.not(pick('b')))),
  ];
  for (let i = 0; i < steps; i++) pool.push(any(makers)());
  return pool.slice(-3);
}
