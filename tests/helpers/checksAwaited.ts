// What an op with a recipe must pass on a machine whose results are awaited: values and gradients as the oracle's, and
// the same from other layouts. The bounds are the recipes'; the machines that can be read at once are tested more
// broadly by ./checks.ts.

import { test } from 'node:test';
import fc from 'fast-check';
import { scope } from '../../src/autograd/index.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { closeTo, compareExtremes, compareValues, hostOf, type Values } from './bounds.js';
import {
  cotangentFor,
  disguise,
  flattened,
  floatFunction,
  floats,
  gradientsOn,
  gradientTensors,
  movedByRounding,
  zerosLike,
} from './cases.js';
import { Draw, emptyAndOne, forwardDraws, gradientDraws, runs } from './draw.js';
import { oracle, place, type Machine } from './machines.js';
import { compareUlps, sweepCase } from './sweep.js';
import { labelled, type Case, type Recipe } from './recipe.js';

const forwardCap = 3000;
const gradientCap = 100;

/** Runs `body` in a scope and reads what it returns, all of it at once. */
export async function readAll(body: () => readonly (Tensor | null)[]): Promise<(Values | null)[]> {
  const tensors = scope(body);
  const values = await Promise.all(
    tensors.map(async t => t && { shape: t.shape, dtype: t.dtype, data: await t.data() }),
  );
  for (const t of tensors) t?.storage.dispose();
  return values;
}

const valuesOf = async (body: () => Tensor): Promise<Values> => (await readAll(() => [body()]))[0] as Values;

/** Gradients of the case's float inputs for the cotangent that `gradientsOn` would be given. */
export async function gradientsAwaited(c: Case, machine: Machine): Promise<number[][]> {
  const inputs = floats(c);
  const gradients = await readAll(() =>
    gradientTensors(floatFunction(c, machine)[0], inputs, cotangentFor(7), machine),
  );
  return gradients.map((g, i) => (g ? Array.from(g.data) : zerosLike(inputs[i])));
}

/** Registers the tests of a table on a machine without f64; `usual` runs of each property. */
export function checkTableOn(machine: Machine, table: readonly Recipe[], usual: number): void {
  for (const [r, label] of labelled(table.filter(recipe => !recipe.needsF64))) {
    const make =
      (smooth: boolean) =>
      (drawn: ConstructorParameters<typeof Draw>[0]): Case =>
        r.make(new Draw(drawn, { smooth, cap: smooth ? gradientCap : forwardCap }));
    const property = (
      draws: typeof forwardDraws,
      smooth: boolean,
      body: (c: Case, way: number) => Promise<void>,
    ): Promise<void> =>
      fc.assert(
        fc.asyncProperty(draws, fc.nat(100), (drawn, way) => body(make(smooth)(drawn), way)),
        runs(usual),
      );
    const roundings = r.gradientRoundings?.[0] ?? 64;

    test(`${machine.name}, ${label}: equals its reference`, async () => {
      await property(forwardDraws, false, c => parity(c, machine));
      for (const drawn of emptyAndOne) await parity(make(false)(drawn), machine);
    });
    const { extremes, ulps } = r;
    if (ulps)
      test(`${machine.name}, ${label}: within ${ulps[1]} ulp for every exponent`, async () => {
        const c = sweepCase(r);
        compareUlps(await valuesOf(() => c.run(...c.inputs.map(h => place(h, machine)))), c, ulps, machine);
      });
    if (extremes)
      test(`${machine.name}, ${label}: NaN, infinities, zeros and subnormals`, async () =>
        compareExtremes(
          await valuesOf(() => extremes.run(...extremes.inputs.map(h => place(h, machine)))),
          extremes,
          machine,
        ));
    if (r.views !== false)
      test(`${machine.name}, ${label}: views equal copies`, () =>
        property(forwardDraws, false, (c, way) => viewsEqualCopies(c, way, machine)));
    if (r.differentiable !== false)
      test(`${machine.name}, ${label}: gradients equal the oracle's`, async () => {
        await property(gradientDraws, true, c => gradientParity(c, roundings, machine));
        for (const drawn of emptyAndOne) await gradientParity(make(true)(drawn), roundings, machine);
      });
  }
}

async function parity(c: Case, machine: Machine): Promise<void> {
  const values = await valuesOf(() => c.run(...c.inputs.map(h => place(h, machine))));
  compareValues(values, c.reference(...c.inputs), c.magnitude?.(...c.inputs), c.roundings, machine);
}

async function viewsEqualCopies(c: Case, way: number, machine: Machine): Promise<void> {
  const flat = flattened(c, way);
  const [copies, views] = await readAll(() => [
    c.run(...flat.map(h => place(h, machine))),
    c.run(...flat.map(h => disguise(h, way, machine))),
  ]);
  compareValues(views as Values, hostOf(copies as Values), c.magnitude?.(...flat), 2 * c.roundings, machine);
}

async function gradientParity(c: Case, roundings: number, machine: Machine): Promise<void> {
  const expected = gradientsOn(floatFunction(c)[0], floats(c), cotangentFor(7), oracle);
  const moved = movedByRounding(c, expected);
  const actual = await gradientsAwaited(c, machine);
  actual.forEach((g, i) =>
    closeTo(g, expected[i], roundings, `${machine.name}: gradient of input ${i}`, c.gradientScale, 16 * moved[i]),
  );
}
