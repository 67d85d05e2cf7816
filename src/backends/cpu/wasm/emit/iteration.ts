// Loops over an iteration space: which axis is walked in vectors, the description of the outer loops in scratch memory,
// and the WASM code that walks it. What is computed along a row is emitMap.ts's business; merging axes is
// ../../iteration.ts's.

import type { Axis } from '../../../iteration.js';
import { load, op, type FunctionBuilder, type Local, type Operand } from './assembler.js';
import type { Spacing } from './emitMap.js';

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

/**
 * A part of an iteration space: its loops, and how far each operand's first element lies from that of the whole, in the
 * measure of its steps.
 */
export interface Part {
  readonly axes: readonly Axis[];
  readonly start: readonly number[];
}

/** Cuts the longest axis that is not reduced in at most `parts`. */
export function cutAxes(axes: readonly Axis[], parts: number): Part[] {
  const operands = axes[0].steps.length;
  let longest = -1;
  axes.forEach((axis, d) => {
    if (!axis.reduced && axis.size > 1 && (longest < 0 || axis.size >= axes[longest].size)) longest = d;
  });
  if (longest < 0 || parts < 2) return [{ axes, start: new Array<number>(operands).fill(0) }];
  const { size, steps } = axes[longest];
  const even = Math.ceil(size / parts);
  const length = even > 16 ? 16 * Math.ceil(even / 16) : even;
  return Array.from({ length: Math.ceil(size / length) }, (_, i) => ({
    axes: axes.map((axis, d) => (d === longest ? { ...axis, size: Math.min(length, size - i * length) } : axis)),
    start: steps.map(step => i * length * step),
  }));
}

/**
 * Words of one outer loop in scratch: counter, size, and what each pointer moves when this loop steps and those inside
 * start again.
 */
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
 * Runs `body` for every step of the loops described between the addresses `start` and `end`, moving `pointers`. The
 * counters are 0 again afterwards; the pointers are left at the last step.
 */
export function emitLoops(
  f: FunctionBuilder,
  start: Operand,
  end: Local,
  pointers: readonly Local[],
  body: () => void,
): void {
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
