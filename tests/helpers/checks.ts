// What every op with a recipe must pass, on every machine: values, gradients, linearity, layouts, empty shapes, messages.
// One test a property; a failure names op, machine and entry, and fast-check adds seed and path.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { gradcheck, gradientsOf, scope } from '../../src/autograd/index.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { Draw, emptyAndOne, forwardDraws, gradientDraws, runs } from './draw.js';
import { build, get, sizeOf, type Host } from './host.js';
import { cpu, cpuPlain, dtypeOn, machines, oracle, place, referenceF32, withoutKernels, type Machine } from './machines.js';
import { seededRandom } from './mutate.js';
import type { Case, Recipe } from './recipe.js';

const forwardCap = 3000;
const gradientCap = 100;
const eps32 = 2 ** -24;
/** Below this, f32 results may be flushed to 0. */
const floor32 = 2 ** -120;

/** The tests of one recipe. `label` tells recipes of one op apart. */
export function checkRecipe(r: Recipe, label = r.name): void {
  const made =
    (smooth: boolean, cap: number) =>
    (drawn: ConstructorParameters<typeof Draw>[0]): Case =>
      r.make(new Draw(drawn, { smooth, cap }));
  const forward = made(false, forwardCap);
  const smooth = made(true, gradientCap);

  test(`${label}: equals its reference`, () =>
    fc.assert(
      fc.property(forwardDraws, drawn => parity(forward(drawn))),
      runs(25),
    ));
  test(`${label}: empty and one-element shapes`, () => emptyAndOne.forEach(drawn => parity(forward(drawn))));
  if (r.views !== false)
    test(`${label}: views equal copies`, () =>
      fc.assert(
        fc.property(forwardDraws, fc.nat(100), (drawn, way) => viewsEqualCopies(forward(drawn), way)),
        runs(12),
      ));
  if (r.differentiable !== false) {
    test(`${label}: gradients equal differences`, () =>
      fc.assert(
        fc.asyncProperty(gradientDraws, async drawn => {
          const c = smooth(drawn);
          await gradcheck(...floatFunction(c), { seed: drawn.seed });
        }),
        runs(25),
      ));
    test(`${label}: f32 gradients equal the oracle's`, () =>
      fc.assert(
        fc.property(gradientDraws, drawn => gradientParity(smooth(drawn), r.gradientRoundings?.[0] ?? 64)),
        runs(20),
      ));
    test(`${label}: gradients of empty and one-element shapes`, () =>
      emptyAndOne.forEach(drawn => gradientParity(smooth(drawn), r.gradientRoundings?.[0] ?? 64)));
    test(`${label}: the VJP is linear`, () =>
      fc.assert(
        fc.property(gradientDraws, drawn => linear(smooth(drawn), drawn.seed)),
        runs(8),
      ));
  }
  if (r.fused !== undefined) {
    test(`${label}: kernels equal the composition`, () =>
      fc.assert(
        fc.property(forwardDraws, drawn => kernelEqualsComposition(forward(drawn))),
        runs(25),
      ));
    test(`${label}: gradients of kernels equal the composition's`, () =>
      fc.assert(
        fc.property(gradientDraws, drawn => kernelGradients(smooth(drawn), r.gradientRoundings?.[0] ?? 64)),
        runs(25),
      ));
  }
  if (r.errors?.length)
    test(`${label}: messages for bad inputs`, () => r.errors?.forEach(([call, message]) => assert.throws(call, { message })));
}

export function checkTable(table: readonly Recipe[]): void {
  const seen = new Map<string, number>();
  for (const r of table) {
    const n = (seen.get(r.name) ?? 0) + 1;
    seen.set(r.name, n);
    checkRecipe(r, n > 1 ? `${r.name} (${n})` : r.name);
  }
}

function parity(c: Case): void {
  const expected = c.reference(...c.inputs);
  const magnitude = c.magnitude?.(...c.inputs);
  for (const machine of machines) {
    scope(() => compare(c.run(...c.inputs.map(h => place(h, machine))), expected, magnitude, c.roundings, machine));
  }
}

/** |actual - expected| <= roundings * eps * magnitude, entry by entry; the magnitude is |expected| where none is given. */
export function compare(actual: Tensor, expected: Host, magnitude: Host | undefined, roundings: number, machine: Machine): void {
  assert.deepEqual([...actual.shape], [...expected.shape], `${machine.name}: shape`);
  assert.equal(actual.dtype, dtypeOn(expected, machine), `${machine.name}: dtype`);
  const data = actual.dataSync();
  const unit = machine.dtype === 'f64' ? 1e-13 : eps32;
  for (let k = 0; k < data.length; k++) {
    const want = expected.data[k];
    const bound = roundings === 0 ? 0 : roundings * unit * Math.max(Math.abs(want), magnitude?.data[k] ?? 0) + floor32;
    const close = Object.is(data[k], want) || Math.abs(data[k] - want) <= bound || (Number.isNaN(data[k]) && Number.isNaN(want));
    if (!close)
      assert.fail(
        `${machine.name}: entry ${k} of [${expected.shape.join(',')}] is ${data[k]}, expected ${want}, off by ${Math.abs(data[k] - want)}, allowed ${bound}`,
      );
  }
}

/** The case as a function of its float inputs in f64, the others held. */
export function floatFunction(c: Case, machine: Machine = oracle): [(...inputs: Tensor[]) => Tensor, Tensor[]] {
  const f = (...given: Tensor[]): Tensor => {
    let next = 0;
    return c.run(...c.inputs.map(h => (h.dtype === 'float' ? given[next++] : place(h, machine))));
  };
  return [f, c.inputs.filter(h => h.dtype === 'float').map(h => place(h, machine))];
}

/** Gradients of every float input for a cotangent, as numbers; zeros where none flows. */
export function gradientsOn(
  f: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Host[],
  cotangent: (shape: readonly number[]) => Host,
  machine: Machine,
): number[][] {
  return scope(() => {
    const leaves = inputs.map(h => place(h, machine).requireGrad());
    const output = f(...leaves);
    const gradients = output.needsGrad
      ? gradientsOf(output, leaves, { gradient: place(cotangent(output.shape), machine) })
      : leaves.map(() => null);
    return gradients.map((g, i) => {
      if (!g) return new Array<number>(leaves[i].size).fill(0);
      assert.deepEqual([...g.shape], [...leaves[i].shape], `${machine.name}: shape of the gradient of input ${i}`);
      assert.equal(g.dtype, leaves[i].dtype, `${machine.name}: dtype of the gradient of input ${i}`);
      return Array.from(g.dataSync());
    });
  });
}

const cotangentFor =
  (seed: number) =>
  (shape: readonly number[]): Host => {
    const draw = new Draw({ sides: [], extra: [1], seed, scale: 1, kind: 'normal' }, { smooth: true, cap: Infinity });
    return draw.values(shape);
  };

const floats = (c: Case): Host[] => c.inputs.filter(h => h.dtype === 'float');

function gradientParity(c: Case, roundings: number): void {
  const expected = gradientsOn(floatFunction(c)[0], floats(c), cotangentFor(7), oracle);
  const moved = movedByRounding(c, expected);
  for (const machine of [referenceF32, cpu, cpuPlain]) {
    const actual = gradientsOn(floatFunction(c, machine)[0], floats(c), cotangentFor(7), machine);
    actual.forEach((g, i) => closeTo(g, expected[i], roundings, `${machine.name}: gradient of input ${i}`, c.gradientScale, 16 * moved[i]));
  }
}

/** How far the oracle's gradients move, at most, when every number that goes in is off by 2^-24: what no f32 computation can undercut. */
function movedByRounding(c: Case, expected: readonly number[][]): number[] {
  const farthest = expected.map(() => 0);
  for (let sample = 1; sample <= 2; sample++) {
    const next = seededRandom(sample);
    const nudge = (h: Host): Host => ({ ...h, data: h.data.map(x => x * (1 + (next() < 0.5 ? -eps32 : eps32))) });
    const nudged: Case = { ...c, inputs: c.inputs.map(h => (h.dtype === 'float' ? nudge(h) : h)) };
    const gradients = gradientsOn(floatFunction(nudged)[0], floats(nudged), shape => nudge(cotangentFor(7)(shape)), oracle);
    gradients.forEach((g, i) => g.forEach((x, k) => (farthest[i] = Math.max(farthest[i], Math.abs(x - expected[i][k])))));
  }
  return farthest;
}

/** Entry by entry, relative to the largest (or to `scale`, where that is more), and `beyond`. */
export function closeTo(
  actual: readonly number[],
  expected: readonly number[],
  roundings: number,
  what: string,
  scale = 0,
  beyond = 0,
): void {
  const largest = Math.max(scale, ...expected.map(Math.abs));
  const bound = roundings * eps32 * largest + beyond + floor32;
  actual.forEach((x, k) => {
    const off = Math.abs(x - expected[k]);
    if (!(off <= bound)) assert.fail(`${what}: entry ${k} of ${expected.length} is ${x}, expected ${expected[k]}, off by ${off}, allowed ${bound}`);
  });
}

function linear(c: Case, seed: number): void {
  const [f] = floatFunction(c);
  const [p, q] = [1.7, -0.6];
  const [v, w] = [cotangentFor(seed), cotangentFor(seed + 1)];
  const vjp = (cotangent: (shape: readonly number[]) => Host): number[][] => gradientsOn(f, floats(c), cotangent, oracle);
  const [left, a, b] = [vjp(s => build(s, i => p * get(v(s), i) + q * get(w(s), i))), vjp(v), vjp(w)];
  left.forEach((g, i) =>
    g.forEach((x, k) => {
      const largest = Math.max(c.gradientScale ?? 0, ...a[i].map(Math.abs), ...b[i].map(Math.abs));
      assert.ok(
        Math.abs(x - (p * a[i][k] + q * b[i][k])) <= 1e-12 * largest,
        `input ${i}, entry ${k}: ${x}, expected ${p * a[i][k] + q * b[i][k]}`,
      );
    }),
  );
}

/** The same values in another layout: axes swapped in memory, a window of something larger, or repeated by a stride of 0. */
function disguise(h: Host, way: number, machine: Machine): Tensor {
  const rank = h.shape.length;
  const kind = way % 3;
  if (kind === 0 && rank >= 2) {
    const axes = h.shape.map((_, i) => (i + way) % rank);
    const stored = build(
      axes.map(a => h.shape[a]),
      i =>
        get(
          h,
          axes.map((_, axis) => i[axes.indexOf(axis)]),
        ),
      h.dtype,
    );
    return place(stored, machine).permute(axes.map((_, axis) => axes.indexOf(axis)));
  }
  if (kind === 1 && rank >= 1) {
    const axis = way % rank;
    const before = 1 + (way % 2);
    // Around the window lies what must not be read.
    const larger = build(
      h.shape.map((s, i) => (i === axis ? s + before + 1 : s)),
      i => {
        const k = i[axis] - before;
        return k >= 0 && k < h.shape[axis]
          ? get(
              h,
              i.map((x, j) => (j === axis ? k : x)),
            )
          : h.dtype === 'float'
            ? NaN
            : 1;
      },
      h.dtype,
    );
    return place(larger, machine).slice(axis, before, before + h.shape[axis]);
  }
  if (kind === 2 && rank >= 1) {
    const axis = way % rank;
    if (h.shape[axis] === 0) return place(h, machine);
    return place(firstAlong(h, axis, 1), machine).expand(h.shape);
  }
  return place(h, machine);
}

const firstAlong = (h: Host, axis: number, side: number): Host =>
  build(
    h.shape.map((s, i) => (i === axis ? side : s)),
    i =>
      get(
        h,
        i.map((x, j) => (j === axis ? 0 : x)),
      ),
    h.dtype,
  );

function viewsEqualCopies(c: Case, way: number): void {
  const flat = c.inputs.map(h =>
    way % 3 === 2 && h.shape.length >= 1 && sizeOf(h.shape) > 0 ? firstAlong(h, way % h.shape.length, h.shape[way % h.shape.length]) : h,
  );
  const magnitude = c.magnitude?.(...flat);
  for (const machine of machines) {
    scope(() => {
      const copies = c.run(...flat.map(h => place(h, machine)));
      const views = c.run(...flat.map(h => disguise(h, way, machine)));
      const expected: Host = {
        shape: copies.shape,
        data: Float64Array.from(copies.dataSync()),
        dtype: copies.dtype === 'i32' ? 'i32' : copies.dtype === 'bool' ? 'bool' : 'float',
      };
      // The reference kernels read elements one by one: the same bits. Others may take another path.
      compare(views, expected, magnitude, machine.backend === oracle.backend ? 0 : 2 * c.roundings, machine);
    });
  }
}

/** Both sides of a fused op on one machine: with the kernels, and with none registered. */
function kernelEqualsComposition(c: Case): void {
  const magnitude = c.magnitude?.(...c.inputs);
  for (const machine of [cpu, cpuPlain]) {
    scope(() => {
      const run = (): Tensor => c.run(...c.inputs.map(h => place(h, machine)));
      const composed = withoutKernels(machine, run);
      const expected: Host = { shape: composed.shape, data: Float64Array.from(composed.dataSync()), dtype: 'float' };
      compare(run(), expected, magnitude, 2 * c.roundings, machine);
    });
  }
}

function kernelGradients(c: Case, roundings: number): void {
  const moved = movedByRounding(c, gradientsOn(floatFunction(c)[0], floats(c), cotangentFor(7), oracle));
  for (const machine of [cpu, cpuPlain]) {
    const run = (): number[][] => gradientsOn(floatFunction(c, machine)[0], floats(c), cotangentFor(7), machine);
    const composed = withoutKernels(machine, run);
    run().forEach((g, i) => closeTo(g, composed[i], 2 * roundings, `${machine.name}: gradient of input ${i}`, c.gradientScale, 32 * moved[i]));
  }
}
