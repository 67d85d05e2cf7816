// How far numbers may be off: entry by entry relative to a magnitude, or relative to the largest entry. No tensors
// here.

import assert from 'node:assert/strict';
import type { DType } from '../../src/tensor/dtype.js';
import type { Host } from './host.js';
import { dtypeOn, type Machine } from './machines.js';
import type { Case } from './recipe.js';

export const eps32 = 2 ** -24;
/** Below this, f32 results may be flushed to 0. */
const floor32 = 2 ** -120;

/** What was read of a tensor. */
export interface Values {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly data: ArrayLike<number>;
}

export function hostOf({ shape, dtype, data }: Values): Host {
  return { shape, data: Float64Array.from(data), dtype: dtype === 'i32' || dtype === 'bool' ? dtype : 'float' };
}

/**
 * |actual - expected| <= roundings * eps * magnitude, entry by entry; the magnitude is |expected| where none is given.
 */
export function compareValues(
  actual: Values,
  expected: Host,
  magnitude: Host | undefined,
  roundings: number,
  machine: Machine,
): void {
  assert.deepEqual([...actual.shape], [...expected.shape], `${machine.name}: shape`);
  assert.equal(actual.dtype, dtypeOn(expected, machine), `${machine.name}: dtype`);
  const { data } = actual;
  const unit = machine.dtype === 'f64' ? 1e-13 : eps32;
  for (let k = 0; k < data.length; k++) {
    const want = expected.data[k];
    const bound = roundings === 0 ? 0 : roundings * unit * Math.max(Math.abs(want), magnitude?.data[k] ?? 0) + floor32;
    const close =
      Object.is(data[k], want) || Math.abs(data[k] - want) <= bound || (Number.isNaN(data[k]) && Number.isNaN(want));
    if (!close)
      assert.fail(
        `${machine.name}: entry ${k} of [${expected.shape.join(',')}] is ${data[k]}, expected ${want}, off by ${Math.abs(data[k] - want)}, allowed ${bound}`,
      );
  }
}

/**
 * Values where inputs are not finite, zero or subnormal: NaN, infinities and, on the CPU, signs of zeros must be the
 * expected ones, finite values within the roundings of their magnitude. A device that is no CPU may take a subnormal
 * for 0, as input and as result.
 */
export function compareExtremes(actual: Values, c: Case, machine: Machine): void {
  const [expected, whenFlushed, magnitude] = [
    c.reference(...c.inputs),
    c.reference(...c.inputs.map(flushed)),
    c.magnitude?.(...c.inputs),
  ];
  assert.deepEqual([...actual.shape], [...expected.shape], `${machine.name}: shape`);
  assert.equal(actual.dtype, dtypeOn(expected, machine), `${machine.name}: dtype`);
  const isCpu = Boolean(machine.backend.readSync);
  const unit = machine.dtype === 'f64' ? 1e-13 : eps32;
  const stored = (x: number): number => (actual.dtype === 'f32' ? Math.fround(x) : x);
  for (let k = 0; k < actual.data.length; k++) {
    const got = actual.data[k];
    const close = (x: number): boolean => {
      const want = stored(x);
      if (Object.is(got, want) || (want === 0 && Math.abs(got) < 2 ** -126 && !isCpu)) return true;
      const bound =
        c.roundings * unit * Math.max(Math.abs(want), stored(magnitude?.data[k] ?? 0)) +
        (isCpu ? 2 ** -148 : 2 ** -126);
      return Number.isFinite(want) && want !== 0 && Math.abs(got - want) <= bound;
    };
    if (close(expected.data[k]) || (!isCpu && close(whenFlushed.data[k]))) continue;
    assert.fail(
      `${machine.name}: f(${c.inputs.map(h => h.data[k]).join(', ')}) is ${text(got)}, expected ${text(stored(expected.data[k]))}`,
    );
  }
}

const text = (x: number): string => (Object.is(x, -0) ? '-0' : String(x));

/** What a device that has no subnormal numbers may make of the inputs. */
const flushed = (h: Host): Host =>
  h.dtype === 'float' ? { ...h, data: h.data.map(x => (Math.abs(x) < 2 ** -126 ? x * 0 : x)) } : h;

/** Entry by entry, relative to the largest (or to `scale`, where that is more), and `beyond`. */
export function closeTo(
  actual: readonly number[],
  expected: readonly number[],
  roundings: number,
  what: string,
  scale = 0,
  beyond = 0,
): void {
  assert.equal(actual.length, expected.length, what);
  const largest = Math.max(scale, ...expected.map(Math.abs));
  const bound = roundings * eps32 * largest + beyond + floor32;
  actual.forEach((x, k) => {
    const off = Math.abs(x - expected[k]);
    if (!(off <= bound))
      assert.fail(
        `${what}: entry ${k} of ${expected.length} is ${x}, expected ${expected[k]}, off by ${off}, allowed ${bound}`,
      );
  });
}
