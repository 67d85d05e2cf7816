// What every op with a recipe must pass, on every machine: values, gradients, linearity, layouts, empty shapes,
// messages. One test a property; a failure names op, machine and entry, and fast-check adds seed and path.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { gradcheck, scope } from '../../src/autograd/index.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { closeTo, compareExtremes, compareValues, hostOf, type Values } from './bounds.js';
import { cotangentFor, disguise, flattened, floatFunction, floats, gradientsOn, movedByRounding } from './cases.js';
import { Draw, emptyAndOne, forwardDraws, gradientDraws, runs } from './draw.js';
import { build, get, type Host } from './host.js';
import { cpu, cpuPlain, machines, oracle, place, referenceF32, withoutKernels, type Machine } from './machines.js';
import { compareUlps, sweepCase } from './sweep.js';
import { labelled, type Case, type Recipe } from './recipe.js';

const forwardCap = 3000;
const gradientCap = 100;

const read = (t: Tensor): Values => ({ shape: t.shape, dtype: t.dtype, data: t.dataSync() });
const compare = (
  actual: Tensor,
  expected: Host,
  magnitude: Host | undefined,
  roundings: number,
  machine: Machine,
): void => compareValues(read(actual), expected, magnitude, roundings, machine);

/** The tests of one recipe. `label` tells recipes of one op apart. */
function checkRecipe(r: Recipe, label: string): void {
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
  if (r.extremes) test(`${label}: NaN, infinities, zeros and subnormals`, () => extremes(r.extremes as Case));
  const { ulps } = r;
  if (ulps)
    test(`${label}: within ${ulps[0]} ulp in f32 for every exponent`, () => {
      const c = sweepCase(r);
      for (const machine of [referenceF32, cpu, cpuPlain])
        scope(() => compareUlps(read(c.run(...c.inputs.map(h => place(h, machine)))), c, ulps, machine));
    });
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
    test(`${label}: messages for bad inputs`, () =>
      r.errors?.forEach(([call, message]) => assert.throws(call, { message })));
}

export function checkTable(table: readonly Recipe[]): void {
  for (const [r, label] of labelled(table)) checkRecipe(r, label);
}

function parity(c: Case): void {
  const expected = c.reference(...c.inputs);
  const magnitude = c.magnitude?.(...c.inputs);
  for (const machine of machines) {
    scope(() => compare(c.run(...c.inputs.map(h => place(h, machine))), expected, magnitude, c.roundings, machine));
  }
}

function extremes(c: Case): void {
  for (const machine of machines)
    scope(() => compareExtremes(read(c.run(...c.inputs.map(h => place(h, machine)))), c, machine));
}

function gradientParity(c: Case, roundings: number): void {
  const expected = gradientsOn(floatFunction(c)[0], floats(c), cotangentFor(7), oracle);
  const moved = movedByRounding(c, expected);
  for (const machine of [referenceF32, cpu, cpuPlain]) {
    const actual = gradientsOn(floatFunction(c, machine)[0], floats(c), cotangentFor(7), machine);
    actual.forEach((g, i) =>
      closeTo(g, expected[i], roundings, `${machine.name}: gradient of input ${i}`, c.gradientScale, 16 * moved[i]),
    );
  }
}

function linear(c: Case, seed: number): void {
  const [f] = floatFunction(c);
  const [p, q] = [1.7, -0.6];
  const [v, w] = [cotangentFor(seed), cotangentFor(seed + 1)];
  const vjp = (cotangent: (shape: readonly number[]) => Host): number[][] =>
    gradientsOn(f, floats(c), cotangent, oracle);
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

function viewsEqualCopies(c: Case, way: number): void {
  const flat = flattened(c, way);
  const magnitude = c.magnitude?.(...flat);
  for (const machine of machines) {
    scope(() => {
      const copies = c.run(...flat.map(h => place(h, machine)));
      const views = c.run(...flat.map(h => disguise(h, way, machine)));
      // The reference kernels read elements one by one: the same bits. Others may take another path.
      compare(
        views,
        hostOf(read(copies)),
        magnitude,
        machine.backend === oracle.backend ? 0 : 2 * c.roundings,
        machine,
      );
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
      compare(run(), hostOf(read(composed)), magnitude, 2 * c.roundings, machine);
    });
  }
}

function kernelGradients(c: Case, roundings: number): void {
  const moved = movedByRounding(c, gradientsOn(floatFunction(c)[0], floats(c), cotangentFor(7), oracle));
  for (const machine of [cpu, cpuPlain]) {
    const run = (): number[][] => gradientsOn(floatFunction(c, machine)[0], floats(c), cotangentFor(7), machine);
    const composed = withoutKernels(machine, run);
    run().forEach((g, i) =>
      closeTo(g, composed[i], 2 * roundings, `${machine.name}: gradient of input ${i}`, c.gradientScale, 32 * moved[i]),
    );
  }
}
