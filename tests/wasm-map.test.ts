// The SIMD map, reduce, gather and scatterAdd kernels against plain loops over the reference evaluator: element
// functions in ULPs, random programs, every kind of stride, and nothing written outside the outputs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import fc from 'fast-check';
import * as E from '../src/tensor/expr.js';
import type { Expr } from '../src/tensor/expr.js';
import type { DType } from '../src/tensor/dtype.js';
import { contiguousStrides, sizeOf, type Shape } from '../src/tensor/shape.js';
import type { View } from '../src/backends/backend.js';
import { interpret } from '../src/backends/cpu/emitJs.js';
import { erf } from '../src/backends/cpu/erf.js';
import { supportsRelaxedSimd } from '../src/backends/cpu/wasm/emit/assembler.js';
import { createGatherScatter } from '../src/backends/cpu/wasm/gatherScatter.js';
import { createMap } from '../src/backends/cpu/wasm/map.js';
import { createReduce } from '../src/backends/cpu/wasm/reduce.js';
import { Arena, numbers, ulps } from './helpers/wasmArena.js';

if (process.versions.node.startsWith('20.')) setFlagsFromString('--experimental-wasm-relaxed-simd');

const arena = new Arena();
const map = createMap(arena.context());
/** With fused multiply-add too where the engine has it. */
const maps = supportsRelaxedSimd() ? [map, createMap(arena.context(true))] : [map];
const reduce = createReduce(arena.context(), map);
const { gather, scatterAdd } = createGatherScatter(arena.context());

const sides = [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65];

function applyUnary(run: typeof map, e: Expr, xs: readonly number[]): number[] {
  arena.clear();
  const shape = [xs.length];
  const input = arena.view(shape, { value: i => xs[i] });
  const output = arena.view(shape, { value: () => 0 });
  assert.ok(
    arena.run([output], () =>
      run({ program: E.program([e], 1), shape, inputs: [input], outputs: [output], uniforms: [] }),
    ),
    'arena.run([output], () => run({ program: E.program([e], 1), shape, ...',
  );
  return arena.read(output);
}

// --- element functions
// -------------------------------------------------------------------------------------------------

/** Numbers spread evenly over [low, high], and over all magnitudes in it. */
function spread(low: number, high: number, count: number): number[] {
  const random = numbers(7);
  const xs: number[] = [];
  for (let i = 0; i < count; i++) {
    xs.push(Math.fround(low + ((random() + 1) / 2) * (high - low)));
    const scaled = Math.fround(high * 2 ** (-40 * ((random() + 1) / 2)));
    xs.push(low < 0 && i % 2 === 0 ? -Math.min(scaled, -low) : scaled);
  }
  return xs.filter(x => x >= low && x <= high);
}

interface Function1 {
  readonly name: string;
  readonly e: Expr;
  readonly exact: (x: number) => number;
  readonly from: number;
  readonly to: number;
  readonly ulps: number;
}

const x = E.arg(0);
const functions: readonly Function1[] = [
  { name: 'exp', e: E.exp(x), exact: Math.exp, from: -104, to: 89, ulps: 2 },
  { name: 'log', e: E.log(x), exact: Math.log, from: 0, to: 3e38, ulps: 2 },
  { name: 'log near 1', e: E.log(x), exact: Math.log, from: 0.5, to: 2, ulps: 2 },
  { name: 'tanh', e: E.tanh(x), exact: Math.tanh, from: -12, to: 12, ulps: 3 },
  { name: 'erf', e: E.erf(x), exact: erf, from: -6, to: 6, ulps: 3 },
  { name: 'sin', e: E.sin(x), exact: Math.sin, from: -4, to: 4, ulps: 2 },
  { name: 'sin, far', e: E.sin(x), exact: Math.sin, from: -1e6, to: 1e6, ulps: 2 },
  { name: 'sin, anywhere', e: E.sin(x), exact: Math.sin, from: -3e38, to: 3e38, ulps: 2 },
  { name: 'cos', e: E.cos(x), exact: Math.cos, from: -4, to: 4, ulps: 2 },
  { name: 'cos, far', e: E.cos(x), exact: Math.cos, from: -1e6, to: 1e6, ulps: 2 },
  { name: 'cos, anywhere', e: E.cos(x), exact: Math.cos, from: -3e38, to: 3e38, ulps: 2 },
  { name: 'sqrt', e: E.sqrt(x), exact: Math.sqrt, from: 0, to: 3e38, ulps: 0.51 },
  { name: 'rsqrt', e: E.rsqrt(x), exact: v => 1 / Math.sqrt(v), from: 1e-37, to: 3e38, ulps: 1.5 },
  { name: 'floor', e: E.floor(x), exact: Math.floor, from: -1e6, to: 1e6, ulps: 0 },
  { name: 'abs', e: E.abs(x), exact: Math.abs, from: -10, to: 10, ulps: 0 },
  { name: 'neg', e: E.neg(x), exact: v => -v, from: -10, to: 10, ulps: 0 },
];

for (const { name, e, exact, from, to, ulps: bound } of functions) {
  test(`${name} is within ${bound} ULP on [${from}, ${to}]`, () => {
    const xs = spread(from, to, 20000);
    assert.ok(xs.length > 20000, 'xs.length > 20000');
    for (const run of maps) {
      const ys = applyUnary(run, e, xs);
      let [worst, at] = [0, 0];
      xs.forEach((v, i) => {
        const error = ulps(ys[i], exact(v));
        if (!(error <= worst)) [worst, at] = [error, v];
      });
      assert.ok(worst <= bound, `${worst} ULP at ${at}`);
    }
  });
}

test('element functions at infinities, zeros, NaN and beyond the range', () => {
  const at = [Infinity, -Infinity, 0, -0, NaN, 100, -200, -1, 1e-45];
  const expected: [Expr, number[]][] = [
    [E.exp(x), [Infinity, 0, 1, 1, NaN, Infinity, 0, Math.fround(Math.exp(-1)), 1]],
    [
      E.log(x),
      [
        Infinity,
        NaN,
        -Infinity,
        -Infinity,
        NaN,
        Math.fround(Math.log(100)),
        NaN,
        NaN,
        Math.fround(Math.log(2 ** -149)),
      ],
    ],
    [E.tanh(x), [1, -1, 0, -0, NaN, 1, -1, Math.fround(Math.tanh(-1)), 1e-45]],
    [E.erf(x), [1, -1, 0, -0, NaN, 1, -1, Math.fround(erf(-1)), 1e-45]],
    [E.sqrt(x), [Infinity, NaN, 0, -0, NaN, 10, NaN, NaN, Math.sqrt(2 ** -149)]],
    [E.rsqrt(x), [0, NaN, Infinity, -Infinity, NaN, Math.fround(0.1), NaN, NaN, 2 ** 74.5]],
    [E.sin(x), [NaN, NaN, 0, -0, NaN, Math.sin(100), Math.sin(-200), Math.sin(-1), 1e-45]],
    [E.cos(x), [NaN, NaN, 1, 1, NaN, Math.cos(100), Math.cos(-200), Math.cos(-1), 1]],
  ];
  for (const run of maps) {
    for (const [e, values] of expected) {
      const got = applyUnary(run, e, at);
      values.forEach((value, i) => {
        const near = ulps(got[i], value) <= 2 && (value !== 0 || Object.is(got[i], value));
        assert.ok(near, `${e.op}(${at[i]}) = ${got[i]}, expected ${value}`);
      });
    }
  }
});

test('float to integer cuts toward zero and saturates', () => {
  arena.clear();
  const xs = [0.9, -0.9, 1.5, -7.5, 3e9, -3e9, NaN, Infinity, 16777216];
  const input = arena.view([9], { value: i => xs[i] });
  const output = arena.view([9], { dtype: 'i32', value: () => 0 });
  assert.ok(
    map({ program: E.program([E.toI(x)], 1), shape: [9], inputs: [input], outputs: [output], uniforms: [] }),
    'map({ program: E.program([E.toI(x)], 1), shape: [9], inputs: [input...',
  );
  assert.deepEqual(
    arena.read(output).map(v => v + 0),
    [0, 0, 1, -7, 2147483647, -2147483648, 0, 2147483647, 16777216],
  );
});

// --- random programs
// ----------------------------------------------------------------------------------------------------

/**
 * Arguments 0, 1: floats; 2: integer; 3: bool. Uniforms 0: float; 1: integer. Only operations exact in f32 given exact
 * inputs.
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
    E.constant(3, 'i'),
  ];
  const pick = (type: E.ScalarType): Expr => {
    const fits = pool.filter(e => e.type === type);
    return fits[Math.floor(((random() + 1) / 2) * fits.length) % fits.length];
  };
  const makers: (() => Expr)[] = [
    () => E.min(pick('f'), pick('f')),
    () => E.max(pick('f'), pick('f')),
    () => E.abs(pick('f')),
    () => E.neg(pick('f')),
    () => E.floor(pick('f')),
    () => E.sub(E.floor(pick('f')), pick('f')),
    () => E.mul(pick('f'), 0.5),
    () => E.add(pick('f'), 1),
    () => E.add(pick('i'), pick('i')),
    () => E.sub(pick('i'), pick('i')),
    () => E.mul(pick('i'), pick('i')),
    () => E.neg(pick('i')),
    () => E.min(pick('i'), pick('i')),
    () => E.max(pick('u'), pick('u')),
    () => E.abs(pick('i')),
    () => E.mul(pick('u'), pick('u')),
    () => E.bitAnd(pick('i'), pick('i')),
    () => E.bitOr(pick('u'), pick('u')),
    () => E.bitXor(pick('u'), pick('u')),
    () => E.shl(pick('u'), 5),
    () => E.shr(pick('u'), 7),
    () => E.shr(pick('i'), 3),
    () => E.lt(pick('f'), pick('f')),
    () => E.le(pick('i'), pick('i')),
    () => E.lt(pick('u'), pick('u')),
    () => E.eq(pick('f'), pick('f')),
    () => E.ne(pick('i'), pick('i')),
    () => E.eq(pick('b'), pick('b')),
    () => E.lt(pick('b'), pick('b')),
    () => E.le(pick('b'), pick('b')),
    () => E.and(pick('b'), pick('b')),
    () => E.or(pick('b'), pick('b')),
    () => E.not(pick('b')),
    () => E.where(pick('b'), pick('f'), pick('f')),
    () => E.where(pick('b'), pick('i'), pick('i')),
    () => E.where(pick('b'), pick('b'), pick('b')),
    () => E.toF(pick('b')),
    () => E.toI(pick('b')),
    () => E.toU(pick('i')),
    () => E.toI(pick('u')),
    () => E.toI(E.floor(pick('f'))),
    () => E.toF(E.shr(pick('u'), 22)),
    () => E.toF(E.shr(pick('i'), 20)),
    () => E.toB(pick('i')),
  ];
  for (let i = 0; i < steps; i++) pool.push(makers[Math.floor(((random() + 1) / 2) * makers.length) % makers.length]());
  return pool.slice(-3);
}

const storage: Readonly<Record<E.ScalarType, DType>> = { f: 'f32', i: 'i32', u: 'i32', b: 'bool' };

/** Strides of one of the layouts a view can have. */
function layout(kind: number, shape: Shape): number[] {
  const dense = contiguousStrides(shape);
  switch (kind) {
    case 1:
      return dense.map(s => 2 * s); // every second element
    case 2: {
      // last two axes swapped
      const n = shape.length;
      if (n < 2) return dense;
      const swapped = [...shape.slice(0, -2), shape[n - 1], shape[n - 2]];
      const strides = contiguousStrides(swapped);
      return [...strides.slice(0, -2), strides[n - 1], strides[n - 2]];
    }
    case 3:
      // last axis repeated
      return shape.map((_, d) => (d === shape.length - 1 ? 0 : contiguousStrides(shape.slice(0, -1))[d]));
    case 4:
      return shape.map((_, d) => (d === 0 ? 0 : dense[d])); // first axis repeated
    case 5:
      return dense.map(s => -s); // backwards
    case 6: {
      // rows of a wider matrix
      const wide = contiguousStrides([...shape.slice(0, -1), (shape.at(-1) ?? 1) + 3]);
      return wide.slice(0, shape.length);
    }
    case 7:
      return shape.map(() => 0); // one element repeated
    default:
      return dense;
  }
}
const writable = [0, 1, 2, 5, 6];

const shapes: fc.Arbitrary<number[]> = fc
  .array(fc.constantFrom(1, 2, 3, 4, 5, 8), { maxLength: 3 })
  .chain(lead => fc.constantFrom(...sides).map(last => [...lead, last]));

interface Drawn {
  shape: number[];
  kinds: number[];
  outKinds: number[];
  seed: number;
  steps: number;
}
const drawn: fc.Arbitrary<Drawn> = fc.record({
  shape: fc.oneof(
    { weight: 8, arbitrary: shapes },
    { weight: 1, arbitrary: fc.constantFrom<number[][]>([], [3, 0], [0, 4]) },
  ),
  kinds: fc.array(fc.nat(7), { minLength: 4, maxLength: 4 }),
  outKinds: fc.array(fc.constantFrom(...writable), { minLength: 3, maxLength: 3 }),
  seed: fc.nat(1e6),
  steps: fc.constantFrom<number[]>(1, 6, 30),
});
const settings = { seed: Number(process.env.FC_SEED ?? 20240404), numRuns: Number(process.env.FC_RUNS ?? 150) };

/** Inputs of the types that randomProgram expects, with small exact values. */
function drawInputs(shape: Shape, kinds: readonly number[], random: () => number): View[] {
  const dtypes: DType[] = ['f32', 'f32', 'i32', 'bool'];
  return dtypes.map((dtype, k) =>
    arena.view(shape, {
      dtype,
      strides: layout(kinds[k], shape),
      value: () =>
        dtype === 'bool'
          ? Number(random() > 0)
          : dtype === 'i32'
            ? Math.floor(1000 * random())
            : Math.floor(64 * random()) / 8,
    }),
  );
}

/** What the interpreter gives for every element, by output. */
function evaluate(
  outputs: readonly Expr[],
  inputs: readonly View[],
  shape: Shape,
  uniforms: readonly number[],
): number[][] {
  const step = interpret(E.program(outputs, inputs.length));
  const columns = inputs.map(v => arena.read(v));
  const args = new Float64Array(inputs.length);
  const out = new Float64Array(outputs.length);
  const results: number[][] = outputs.map(() => []);
  for (let i = 0; i < sizeOf(shape); i++) {
    columns.forEach((c, k) => (args[k] = c[i]));
    step(args, uniforms, i, out);
    out.forEach((v, j) => results[j].push(v));
  }
  return results;
}

/** As it is stored: 32-bit integers wrap. */
const stored = (type: E.ScalarType, v: number): number => (type === 'f' ? Math.fround(v) : v | 0);

test('random programs over random strides equal the interpreter', () => {
  fc.assert(
    fc.property(drawn, ({ shape, kinds, outKinds, seed, steps }) => {
      arena.clear();
      const random = numbers(seed);
      const outputs = randomProgram(random, steps);
      const inputs = drawInputs(shape, kinds, random);
      const uniforms = [1.5, -3];
      const views = outputs.map((e, j) =>
        arena.view(shape, { dtype: storage[e.type], strides: layout(outKinds[j], shape) }),
      );
      const expected = evaluate(outputs, inputs, shape, uniforms);
      assert.ok(
        arena.run(views, () => map({ program: E.program(outputs, 4), shape, inputs, outputs: views, uniforms })),
        'arena.run(views, () => map({ program: E.program(outputs, 4), shape,...',
      );
      views.forEach((view, j) => {
        const got = arena.read(view);
        got.forEach((v, i) => {
          const want = stored(outputs[j].type, expected[j][i]);
          if (v !== want && !(Number.isNaN(v) && Number.isNaN(want)))
            assert.fail(`output ${j}, element ${i}: ${v}, expected ${want}`);
        });
      });
    }),
    settings,
  );
});

test('an output may be an input', () => {
  for (const n of sides) {
    for (const stride of [1, 3]) {
      arena.clear();
      const a = arena.view([n], { strides: [stride], value: i => i });
      const b = arena.view([n], { value: i => 10 * i });
      assert.ok(
        arena.run([a, b], () =>
          map({
            program: E.program([E.add(E.arg(0), E.arg(1)), E.sub(E.arg(1), E.arg(0))], 2),
            shape: [n],
            inputs: [a, b],
            outputs: [a, b],
            uniforms: [],
          }),
        ),
        'arena.run([a, b], () => map({ program: E.program([E.add(E.arg(0), E...',
      );
      assert.deepEqual(
        arena.read(a),
        Array.from({ length: n }, (_, i) => 11 * i),
      );
      assert.deepEqual(
        arena.read(b),
        Array.from({ length: n }, (_, i) => 9 * i),
      );
    }
  }
});

test('nothing is read past the end of the memory', () => {
  for (const n of sides) {
    arena.clear();
    const input = arena.view([n], { value: i => i, atEnd: true });
    const output = arena.view([n]);
    assert.ok(
      map({ program: E.program([E.add(x, 1)], 1), shape: [n], inputs: [input], outputs: [output], uniforms: [] }),
      'map({ program: E.program([E.add(x, 1)], 1), shape: [n], inputs: [in...',
    );
    assert.equal(arena.read(output)[n - 1], n);
    const total = arena.view([1]);
    assert.ok(
      reduce({
        op: 'sum',
        program: E.program([x], 1),
        shape: [n],
        axes: [0],
        inputs: [input],
        output: total,
        uniforms: [],
      }),
      "reduce({ op: 'sum', program: E.program([x], 1), shape: [n], axes: [...",
    );
    assert.equal(arena.read(total)[0], (n * (n - 1)) / 2);
  }
});

test('other dtypes are declined', () => {
  arena.clear();
  const wide = arena.view([4], { dtype: 'f64', value: i => i });
  const output = arena.view([4], { dtype: 'f64', value: () => 5 });
  assert.ok(
    !arena.run([output], () =>
      map({ program: E.program([E.add(x, 1)], 1), shape: [4], inputs: [wide], outputs: [output], uniforms: [] }),
    ),
    '!arena.run([output], () => map({ program: E.program([E.add(x, 1)], ...',
  );
  const total = arena.view([1], { dtype: 'f64' });
  const call = {
    op: 'sum' as const,
    program: E.program([x], 1),
    shape: [4],
    axes: [0],
    inputs: [wide],
    output: total,
    uniforms: [],
  };
  assert.ok(!arena.run([call.output], () => reduce(call)), '!arena.run([call.output], () => reduce(call))');
  const integers = arena.view([4], { dtype: 'i32', value: i => i });
  assert.ok(
    !map({
      program: E.program([E.add(x, 1)], 1),
      shape: [4],
      inputs: [integers],
      outputs: [arena.view([4])],
      uniforms: [],
    }),
    '!map({ program: E.program([E.add(x, 1)], 1), shape: [4], inputs: [i...',
  );
});

// --- reductions
// ---------------------------------------------------------------------------------------------------------

interface Totals {
  total: number[];
  size: number[];
  terms: number;
}

function reduceNaively(values: readonly number[], shape: Shape, axes: readonly number[], op: 'sum' | 'max'): Totals {
  const kept = shape.map((side, d) => (axes.includes(d) ? 1 : side));
  const dense = contiguousStrides(shape);
  const to = contiguousStrides(kept).map((s, d) => (axes.includes(d) ? 0 : s));
  const total = new Array<number>(sizeOf(kept)).fill(op === 'sum' ? 0 : -Infinity);
  const size = new Array<number>(total.length).fill(0);
  values.forEach((v, i) => {
    const at = shape.reduce((sum, side, d) => sum + (Math.floor(i / dense[d]) % side) * to[d], 0);
    total[at] = op === 'sum' ? total[at] + v : Math.max(total[at], v);
    size[at] += Math.abs(v);
  });
  return { total, size, terms: values.length / Math.max(1, total.length) };
}

const someAxes = fc.array(fc.boolean(), { minLength: 4, maxLength: 4 });

test('sums and maxima of random programs over any axes equal plain loops', () => {
  const arbitrary = fc.tuple(drawn, someAxes, fc.constantFrom('sum' as const, 'max' as const));
  fc.assert(
    fc.property(arbitrary, ([{ shape, kinds, outKinds, seed, steps }, chosen, op]) => {
      arena.clear();
      const random = numbers(seed);
      const e =
        randomProgram(random, steps).find(o => o.type === 'f') ?? E.toF(E.bitAnd(E.arg(2, 'i'), E.constant(1023, 'i')));
      const inputs = drawInputs(shape, kinds, random);
      const axes = shape.map((_, d) => d).filter(d => chosen[d]);
      const kept = shape.map((side, d) => (axes.includes(d) ? 1 : side));
      const output = arena.view(kept, { strides: layout(outKinds[0], kept) });
      const [values] = evaluate([e], inputs, shape, [1.5, -3]);
      const { total, size, terms } = reduceNaively(values, shape, axes, op);
      assert.ok(
        arena.run([output], () =>
          reduce({ op, program: E.program([e], 4), shape, axes, inputs, output, uniforms: [1.5, -3] }),
        ),
        'arena.run([output], () => reduce({ op, program: E.program([e], 4), ...',
      );
      arena.read(output).forEach((v, i) => {
        if (!Number.isFinite(total[i])) return assert.equal(v, total[i]);
        // A sum of k terms: k * 2^-24 * sum |x|; a maximum is exact.
        const bound = op === 'sum' ? (terms + 1) * 2 ** -24 * size[i] : 0;
        assert.ok(Math.abs(v - total[i]) <= bound, `element ${i}: ${v}, expected ${total[i]} +- ${bound}`);
      });
    }),
    settings,
  );
});

test('integers are summed and compared as integers', () => {
  for (const n of sides) {
    arena.clear();
    const input = arena.view([3, n], { dtype: 'i32', value: i => ((i * 7919) % 101) * 20000001 });
    const values = arena.read(input);
    for (const axes of [[0], [1], [0, 1]]) {
      for (const op of ['sum', 'max'] as const) {
        const output = arena.view([axes.includes(0) ? 1 : 3, axes.includes(1) ? 1 : n], { dtype: 'i32' });
        const program = E.program([E.arg(0, 'i')], 1);
        assert.ok(
          arena.run([output], () =>
            reduce({ op, program, shape: [3, n], axes, inputs: [input], output, uniforms: [] }),
          ),
          'arena.run([output], () => reduce({ op, program, shape: [3, n], axes...',
        );
        assert.deepEqual(
          arena.read(output),
          reduceNaively(values, [3, n], axes, op).total.map(v => v | 0),
        );
      }
    }
  }
});

test('long sums are kept in sixteen parts', () => {
  arena.clear();
  const random = numbers(3);
  const n = 100_003;
  const input = arena.view([n], { value: () => random() });
  const output = arena.view([1]);
  const values = arena.read(input);
  assert.ok(
    reduce({ op: 'sum', program: E.program([x], 1), shape: [n], axes: [0], inputs: [input], output, uniforms: [] }),
    "reduce({ op: 'sum', program: E.program([x], 1), shape: [n], axes: [...",
  );
  const exact = values.reduce((a, b) => a + b, 0);
  const size = values.reduce((a, b) => a + Math.abs(b), 0);
  assert.ok(
    Math.abs(arena.read(output)[0] - exact) <= (n / 16) * 2 ** -24 * size,
    'Math.abs(arena.read(output)[0] - exact) <= (n / 16) * 2 ** -24 * size',
  );
});

// --- gather and scatterAdd
// ------------------------------------------------------------------------------------------------

test('gather picks rows and gives zeros for negative numbers', () => {
  for (const dtype of ['f32', 'i32'] as const) {
    for (const width of sides) {
      for (const gap of [0, 5]) {
        arena.clear();
        const input = arena.view([6, width], { dtype, strides: [width + gap, 1], value: i => i + 1 });
        const indices = Int32Array.of(5, 0, -1, 3, 3, -7);
        const output = arena.view([6, width], { dtype });
        const rows = arena.read(input);
        assert.ok(
          arena.run([output], () => gather({ input, indices, output })),
          'arena.run([output], () => gather({ input, indices, output }))',
        );
        const expected = [...indices].flatMap(r =>
          Array.from({ length: width }, (_, c) => (r < 0 ? 0 : rows[r * width + c])),
        );
        assert.deepEqual(arena.read(output), expected);
      }
    }
  }
  arena.clear();
  const [vector, picked] = [arena.view([5], { value: i => i }), arena.view([2])];
  assert.ok(
    arena.run([picked], () => gather({ input: vector, indices: Int32Array.of(4, 2), output: picked })),
    'arena.run([picked], () => gather({ input: vector, indices: Int32Arr...',
  );
  assert.deepEqual(arena.read(picked), [4, 2]);
  const columns = arena.view([4, 3], { strides: [1, 4], value: i => i });
  assert.ok(
    !gather({ input: columns, indices: Int32Array.of(1), output: arena.view([1, 3]) }),
    '!gather({ input: columns, indices: Int32Array.of(1), output: arena....',
  );
});

test('scatterAdd adds rows in order, skips negative numbers and zeroes the rest', () => {
  for (const dtype of ['f32', 'i32'] as const) {
    for (const width of sides) {
      for (const gap of [0, 3]) {
        arena.clear();
        const input = arena.view([5, width], { dtype, strides: [width + gap, 1], value: i => 3 * i + 1 });
        const indices = Int32Array.of(2, 0, 2, -1, 2);
        const output = arena.view([4, width], { dtype });
        const rows = arena.read(input);
        const expected = new Array<number>(4 * width).fill(0);
        indices.forEach((r, i) => {
          for (let c = 0; r >= 0 && c < width; c++) expected[r * width + c] += rows[i * width + c];
        });
        assert.ok(
          arena.run([output], () => scatterAdd({ input, indices, output })),
          'arena.run([output], () => scatterAdd({ input, indices, output }))',
        );
        assert.deepEqual(arena.read(output), expected);
      }
    }
  }
  arena.clear();
  const wide = arena.view([1, 2], { dtype: 'f64', value: i => i });
  const target = arena.view([1, 2], { dtype: 'f64', value: i => i });
  assert.ok(
    !arena.run([target], () => scatterAdd({ input: wide, indices: Int32Array.of(0), output: target })),
    '!arena.run([target], () => scatterAdd({ input: wide, indices: Int32...',
  );
});
