// The accuracy of functions over the whole range of f32: a few numbers of every exponent and sign, in ulps against the
// recipe's f64 reference.

import assert from 'node:assert/strict';
import type { Machine } from './machines.js';
import { seededRandom } from './mutate.js';
import type { Case, Recipe } from './recipe.js';
import type { Values } from './bounds.js';

/** The recipe's case on numbers of every exponent, subnormal ones included. */
export function sweepCase({ extremes }: Recipe): Case {
  if (!extremes) throw new Error('a sweep needs the case of a recipe');
  const next = seededRandom(5);
  const numbers: number[] = [];
  for (let exponent = -149; exponent < 128; exponent++) {
    for (let i = 0; i < 8; i++)
      numbers.push(Math.fround((i % 2 === 0 ? 1 : -1) * (1 + next() * (1 - 2 ** -23)) * 2 ** exponent));
  }
  return { ...extremes, inputs: [{ shape: [numbers.length], data: Float64Array.from(numbers), dtype: 'float' }] };
}

/** The unit in the last place of an f32. */
const ulp = (x: number): number => 2 ** (Math.max(-126, Math.floor(Math.log2(Math.abs(x)))) - 23);

/** Within `ulps` of the result, or of the magnitude that the recipe's errors are relative to. */
export function compareUlps(
  actual: Values,
  c: Case,
  [onCpu, onGpu]: readonly [number, number],
  machine: Machine,
): void {
  const isCpu = Boolean(machine.backend.readSync);
  const [expected, magnitude] = [c.reference(...c.inputs), c.magnitude?.(...c.inputs)];
  // Exponentials that are subnormal have few digits, or none where a device flushes them.
  const lost = isCpu ? 2 ** -142 : 2 ** -119;
  let [worst, at] = [0, 0];
  for (let i = 0; i < actual.data.length; i++) {
    const [got, want] = [actual.data[i], expected.data[i]];
    if (Object.is(got, Math.fround(want)) || (Number.isNaN(got) && Number.isNaN(want))) continue;
    // A number that a device takes for 0 has the value at 0.
    if (!isCpu && Math.abs(c.inputs[0].data[i]) < 2 ** -126) continue;
    const error = Math.max(0, Math.abs(got - want) - lost) / ulp(Math.max(Math.abs(want), magnitude?.data[i] ?? 0));
    if (!(error <= worst)) [worst, at] = [error, i];
  }
  const bound = isCpu ? onCpu : onGpu;
  const where = `f(${c.inputs[0].data[at]}) is ${actual.data[at]}, expected ${Math.fround(expected.data[at])}`;
  assert.ok(worst <= bound, `${machine.name}: off by ${worst.toFixed(2)} ulp, allowed ${bound}: ${where}`);
}
