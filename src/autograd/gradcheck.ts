// Gradient checks by directional derivatives: <u, vjp(v)> against the 4th-order central difference of <v, f(x + t u)>,
// in f64. On failure the first wrong entry is found and named with the operations on its way.

import { create } from '../tensor/create.js';
import type { DType } from '../tensor/dtype.js';
import { formatShape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { Random } from '../tensor/threefry.js';
import { scope } from './scope.js';
import { enableGrad, gradientsOf, graphOf, noGrad } from './tape.js';

export interface GradcheckOptions {
  /** Directions tried for all inputs together; one more is tried for each input alone. Default 2. */
  directions?: number;
  /** Step of the difference, relative to the size of the inputs. Default 1e-3. */
  step?: number;
  /** |difference| may be tolerance * (|u| |vjp| + |v| |f|). Default 1e-7. */
  tolerance?: number;
  seed?: number;
}

/** Throws unless the gradients of `f` (any shape of result) with respect to its f64 inputs agree with differences. */
export async function gradcheck(
  f: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  options: GradcheckOptions = {},
): Promise<void> {
  const { directions = 2, step = 1e-3, tolerance = 1e-7, seed = 1 } = options;
  inputs.forEach((t, i) => {
    if (t.dtype !== 'f64') throw new Error(`gradcheck: input ${i} is ${t.dtype}, expected f64`);
  });
  const random = new Random(seed, 7);
  const values = await Promise.all(inputs.map(async t => Float64Array.from(await t.data())));
  const backend = inputs[0]?.backend;
  const make = (data: ArrayLike<number>, i: number): Tensor =>
    create.from(Float64Array.from(data), inputs[i].shape, { dtype: 'f64', backend });
  const evaluate = (data: ArrayLike<number>[]): Float64Array =>
    noGrad(() => scope(() => f(...data.map(make)).dataSync() as Float64Array));
  const base = evaluate(values);
  const v = Float64Array.from(base, () => random.normal());
  const { analytic, path } = scope(() =>
    enableGrad(() => {
      const leaves = values.map((data, i) => make(data, i).requireGrad());
      const output = f(...leaves);
      const ops = graphOf([output])
        .map(n => n.op)
        .reverse()
        .join(' -> ');
      const seedGradient = create.from(v, output.shape, { dtype: output.dtype as DType, backend });
      const gradients = output.needsGrad
        ? gradientsOf(output, leaves, { gradient: seedGradient })
        : leaves.map(() => null);
      return {
        analytic: gradients.map((g, i) => (g ? (g.dataSync() as Float64Array) : new Float64Array(values[i].length))),
        path: ops,
      };
    }),
  );
  const scaleOf = (i: number): number =>
    Math.max(1e-3, Math.sqrt(values[i].reduce((s: number, x: number) => s + x * x, 0) / Math.max(1, values[i].length)));

  /** d<v, f>/dt along `u` at t = 0, and the step used. */
  const numeric = (u: Float64Array[]): number => {
    const at = (t: number): number => {
      const y = evaluate(values.map((x, i) => Float64Array.from(x, (xk, k) => xk + t * scaleOf(i) * u[i][k])));
      return y.reduce((s, yk, k) => s + (yk - base[k]) * v[k], 0);
    };
    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
  };
  const length = (x: ArrayLike<number>[]): number =>
    Math.sqrt(x.reduce((s, a) => s + Array.from(a).reduce((q, y) => q + y * y, 0), 0));
  const check = (u: Float64Array[]): boolean => {
    const scaled = u.map((ui, i) => ui.map(x => x * scaleOf(i)));
    const expected = scaled.reduce((s, ui, i) => s + ui.reduce((q, x, k) => q + x * analytic[i][k], 0), 0);
    const bound = tolerance * (length(scaled) * length(analytic) + length([v]) * length([base]) + 1e-12);
    return Math.abs(expected - numeric(u)) <= bound;
  };
  const draw = (only?: number): Float64Array[] =>
    values.map((x, i) => Float64Array.from(x, () => (only === undefined || only === i ? random.normal() : 0)));

  let bad = false;
  for (let n = 0; n < directions && !bad; n++) bad = !check(draw());
  const suspects = values.map((_, i) => i).filter(i => values[i].length > 0 && !check(draw(i)));
  if (!bad && suspects.length === 0) return;

  // Name the first wrong entry.
  for (const i of suspects.length > 0 ? suspects : values.keys()) {
    for (let k = 0; k < values[i].length; k++) {
      const u = values.map((x, j) => Float64Array.from(x, (_, q) => (i === j && k === q ? 1 : 0)));
      if (check(u)) continue;
      const shown = numeric(u) / scaleOf(i);
      throw new Error(
        `gradcheck: input ${i} ${formatShape(inputs[i].shape)} at ${formatShape(coordinates(k, inputs[i].shape))}: ` +
          `analytic ${analytic[i][k].toPrecision(6)}, numeric ${shown.toPrecision(6)} (${path})`,
      );
    }
  }
  throw new Error(
    `gradcheck: the gradients disagree along a random direction, seed ${seed}, though no single entry does (${path})`,
  );
}

function coordinates(k: number, shape: readonly number[]): number[] {
  const at: number[] = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    at.unshift(k % shape[axis]);
    k = Math.floor(k / shape[axis]);
  }
  return at;
}
