// Iteration spaces: merging the axes of several strided operands into as few loops as possible, the description of the outer loops in
// scratch memory, and the WASM code that walks it. What is computed along a row is emitMap.ts's business.

import type { Shape } from '../../../tensor/shape.js';
import { load, op, type FunctionBuilder, type Local, type Operand } from './assembler.js';
import type { Spacing } from './emitMap.js';

/** One loop: how often, and how far each operand's pointer moves in a step (bytes, or elements for an element number). */
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
    if (inner && inner.reduced === axis.reduced && axis.steps.every((step, k) => step === inner.steps[k] * inner.size)) {
      axes[axes.length - 1] = { ...inner, size: inner.size * axis.size };
    } else axes.push(axis);
  }
  return axes.reverse();
}

/** The number of the axis that is best walked in vectors: most operands dense, the innermost of equals. */
export function bestInner(axes: readonly Axis[], operands: number): number {
  let best = axes.length - 1;
  let most = -1;
  for (let d = axes.length - 1; d >= 0; d--) {
    let dense = 0;
    if (axes[d].size >= 4) for (let k = 0; k < operands; k++) if (axes[d].steps[k] === 4) dense++;
    if (dense > most) [best, most] = [d, dense];
  }
  return best;
}

export const spacingOf = (step: number): Spacing => (step === 0 ? 'repeated' : step === 4 ? 'dense' : 'apart');

/** Words of one outer loop in scratch: counter, size, and what each pointer moves when this loop steps and those inside start again. */
export const loopWords = (operands: number): number => 2 + operands;

/** Writes outer loops, innermost first; returns the next word. */
export function writeLoops(words: Int32Array, at: number, axes: readonly Axis[], operands: number): number {
  const back = new Array<number>(operands).fill(0);
  for (let d = axes.length - 1; d >= 0; d--) {
    const { size, steps } = axes[d];
    words[at++] = 0;
    words[at++] = size;
    for (let k = 0; k < operands; k++) {
      words[at++] = steps[k] - back[k];
      back[k] += steps[k] * (size - 1);
    }
  }
  return at;
}

/**
 * Runs `body` for every step of the loops described between the addresses `start` and `end`, moving `pointers`. The counters are 0 again
 * afterwards; the pointers are left at the last step.
 */
export function emitLoops(f: FunctionBuilder, start: Operand, end: Local, pointers: readonly Local[], body: () => void): void {
  const [entry, count] = f.localArray('i32', 2);
  f.block(finished => {
    f.repeat(again => {
      body();
      f.set(entry, start);
      f.repeat(carry => {
        f.branchIf(finished, op('i32.eq', entry, end));
        f.set(count, op('i32.add', load('i32.load', entry), 1));
        f.if(op('i32.eq', count, load('i32.load', entry, 4)), () => {
          f.store('i32.store', entry, 0);
          f.add(entry, 4 * loopWords(pointers.length));
          f.branch(carry);
        });
      });
      f.store('i32.store', entry, count);
      pointers.forEach((pointer, k) => f.add(pointer, load('i32.load', entry, 8 + 4 * k)));
      f.branch(again);
    });
  });
}
