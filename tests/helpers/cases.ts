// What is done with a case on any machine, whether results are then read at once or awaited: its gradients, how far
// rounding moves them, and its inputs in other layouts. What is asserted is in ./checks.ts and ./checksAwaited.ts.

import assert from 'node:assert/strict';
import { gradientsOf, scope } from '../../src/autograd/index.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { eps32 } from './bounds.js';
import { Draw } from './draw.js';
import { build, get, sizeOf, type Host } from './host.js';
import { oracle, place, type Machine } from './machines.js';
import { seededRandom } from './mutate.js';
import type { Case } from './recipe.js';

/** The case as a function of its float inputs in f64, the others held. */
export function floatFunction(c: Case, machine: Machine = oracle): [(...inputs: Tensor[]) => Tensor, Tensor[]] {
  const f = (...given: Tensor[]): Tensor => {
    let next = 0;
    return c.run(...c.inputs.map(h => (h.dtype === 'float' ? given[next++] : place(h, machine))));
  };
  return [f, c.inputs.filter(h => h.dtype === 'float').map(h => place(h, machine))];
}

/** Gradients of every float input for a cotangent; null where none flows. To be called in a scope. */
export function gradientTensors(
  f: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Host[],
  cotangent: (shape: readonly number[]) => Host,
  machine: Machine,
): (Tensor | null)[] {
  const leaves = inputs.map(h => place(h, machine).requireGrad());
  const output = f(...leaves);
  if (!output.needsGrad) return leaves.map(() => null);
  const gradients = gradientsOf(output, leaves, { gradient: place(cotangent(output.shape), machine) });
  gradients.forEach((g, i) => {
    if (!g) return;
    assert.deepEqual([...g.shape], [...leaves[i].shape], `${machine.name}: shape of the gradient of input ${i}`);
    assert.equal(g.dtype, leaves[i].dtype, `${machine.name}: dtype of the gradient of input ${i}`);
  });
  return gradients;
}

/** The same as numbers; zeros where none flows. For machines that can be read at once. */
export function gradientsOn(
  f: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Host[],
  cotangent: (shape: readonly number[]) => Host,
  machine: Machine,
): number[][] {
  return scope(() =>
    gradientTensors(f, inputs, cotangent, machine).map((g, i) => (g ? Array.from(g.dataSync()) : zerosLike(inputs[i]))),
  );
}

export const zerosLike = (h: Host): number[] => new Array<number>(sizeOf(h.shape)).fill(0);

/** A cotangent for each shape, the same every time. */
export const cotangentFor =
  (seed: number) =>
  (shape: readonly number[]): Host => {
    const draw = new Draw({ sides: [], extra: [1], seed, scale: 1, kind: 'normal' }, { smooth: true, cap: Infinity });
    return draw.values(shape);
  };

export const floats = (c: Case): Host[] => c.inputs.filter(h => h.dtype === 'float');

/**
 * How far the oracle's gradients move, at most, when every number that goes in is off by 2^-24: what no f32 computation
 * can undercut.
 */
export function movedByRounding(c: Case, expected: readonly number[][]): number[] {
  const farthest = expected.map(() => 0);
  for (let sample = 1; sample <= 2; sample++) {
    const next = seededRandom(sample);
    const nudge = (h: Host): Host => ({ ...h, data: h.data.map(x => x * (1 + (next() < 0.5 ? -eps32 : eps32))) });
    const nudged: Case = { ...c, inputs: c.inputs.map(h => (h.dtype === 'float' ? nudge(h) : h)) };
    const gradients = gradientsOn(
      floatFunction(nudged)[0],
      floats(nudged),
      shape => nudge(cotangentFor(7)(shape)),
      oracle,
    );
    gradients.forEach((g, i) =>
      g.forEach((x, k) => (farthest[i] = Math.max(farthest[i], Math.abs(x - expected[i][k])))),
    );
  }
  return farthest;
}

/**
 * The same values in another layout: axes swapped in memory, a window of something larger, or repeated by a stride of
 * 0.
 */
export function disguise(h: Host, way: number, machine: Machine): Tensor {
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

/** The inputs as another layout can hold them: equal along the axis that `disguise` repeats. */
export function flattened(c: Case, way: number): Host[] {
  return c.inputs.map(h =>
    way % 3 === 2 && h.shape.length >= 1 && sizeOf(h.shape) > 0
      ? firstAlong(h, way % h.shape.length, h.shape[way % h.shape.length])
      : h,
  );
}
