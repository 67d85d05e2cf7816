// What the tests must know of an op: inputs made from a draw, a plain f64 reference, how far f32 may be off and why,
// and what bad inputs are told. The checks that follow from it are in ./checks.ts; the recipes themselves in
// ./recipes/.

import type { Tensor } from '../../src/tensor/tensor.js';
import type { Draw } from './draw.js';
import type { Host } from './host.js';

export interface Case {
  inputs: readonly Host[];
  run(...inputs: Tensor[]): Tensor;
  reference(...inputs: Host[]): Host;
  /**
   * What errors are relative to, where that is more than the result: for a sum, the sum of the magnitudes of its parts.
   */
  magnitude?(...inputs: Host[]): Host;
  /** f32 may be off by this many 2^-24 of the magnitude. Depends on the shape for sums. */
  roundings: number;
  /** What errors of gradients are relative to, where gradients cancel below it. */
  gradientScale?: number;
}

export interface Recipe {
  /** What it covers: 'Tensor.add', 'tensor.concat', 'autograd.swiglu', 'fused.softmax'. */
  readonly name: string;
  make(draw: Draw): Case;
  /** False: no gradient flows (comparisons, indices). */
  readonly differentiable?: boolean;
  /**
   * Gradients in f32 may be off by this many 2^-24 of the largest entry; default 64, sums of a few dozen terms. With
   * the reason.
   */
  readonly gradientRoundings?: readonly [number, string];
  /** The fused op it goes through: kernel and composition are then compared, values and gradients. */
  readonly fused?: string;
  /** False where moving inputs to odd layouts proves nothing (no float inputs). */
  readonly views?: boolean;
  /** Computes in f64 on its way, which not every machine can. */
  readonly needsF64?: boolean;
  /**
   * The case at the ends of the number line: NaN, infinities, zeros of both signs, subnormals, the largest numbers. Its
   * values alone are checked.
   */
  readonly extremes?: Case;
  /** With `extremes`: f32 results are within so many ulps, on the CPU and on a GPU, for numbers of every exponent. */
  readonly ulps?: readonly [number, number];
  /** A call that must throw, and what the message says. */
  readonly errors?: readonly (readonly [() => unknown, RegExp])[];
}

export type Table = Recipe[];

/** Each recipe with its name, numbered where an op has several. */
export function labelled(table: readonly Recipe[]): [Recipe, string][] {
  const seen = new Map<string, number>();
  return table.map(r => {
    const n = (seen.get(r.name) ?? 0) + 1;
    seen.set(r.name, n);
    return [r, n > 1 ? `${r.name} (${n})` : r.name];
  });
}

export const like =
  (f: (...inputs: Host[]) => Host, g: (x: number) => number) =>
  (...inputs: Host[]): Host => {
    const h = f(...inputs);
    return { ...h, data: h.data.map(g) };
  };
