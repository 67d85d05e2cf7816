// Iteration spaces: the axes of several strided operands merged into as few loops as possible. How the loops are run is
// each backend's own.

import type { Shape } from '../tensor/shape.js';

/** One loop: how often, and how far each operand's pointer moves in a step (bytes or elements, as the steps given). */
export interface Axis {
  readonly size: number;
  readonly reduced: boolean;
  readonly steps: readonly number[];
}

/** The loops over `shape`, outermost first: sides of 1 dropped, neighbours merged where every operand allows it. */
export function mergedAxes(shape: Shape, steps: readonly (readonly number[])[], reduced?: readonly boolean[]): Axis[] {
  const axes: Axis[] = []; // innermost first
  for (let d = shape.length - 1; d >= 0; d--) {
    if (shape[d] === 1) continue;
    const axis = { size: shape[d], reduced: reduced?.[d] ?? false, steps: steps.map(s => s[d]) };
    const inner = axes.at(-1);
    if (
      inner &&
      inner.reduced === axis.reduced &&
      axis.steps.every((step, k) => step === inner.steps[k] * inner.size)
    ) {
      axes[axes.length - 1] = { ...inner, size: inner.size * axis.size };
    } else axes.push(axis);
  }
  return axes.reverse();
}
