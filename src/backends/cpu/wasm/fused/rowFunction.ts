// Fused kernels that go row by row over dense rows: a few passes along each row, each a handful of expressions, with
// the totals of one pass known to the next. The walk along a row is emitMap.ts; which passes there are is each kernel's
// business.

import type { Expr } from '../../../../tensor/expr.js';
import { isContiguous, sizeOf } from '../../../../tensor/shape.js';
import type { View } from '../../../backend.js';
import {
  op,
  type FunctionBuilder,
  type Local,
  type ModuleBuilder,
  type Value,
  type WasmFunction,
} from '../emit/assembler.js';
import type { WasmContext } from '../context.js';
import { accumulator, emitRow, resetAccumulator, totalOf } from '../emit/emitMap.js';
import { hold, LaneMath } from '../emit/lanes.js';

/** How a pointer moves from row to row: by a row, by one element, not at all. */
export type Movement = 'row' | 'element' | 'stay';

export interface Pass {
  /** Address of each argument's row. */
  readonly inputs: readonly Local[];
  readonly uniforms?: readonly Value[];
  /** Rows written, and what with. */
  readonly write?: readonly (readonly [Local, Expr])[];
  readonly sum?: readonly Expr[];
  readonly max?: readonly Expr[];
}

/**
 * One pass along `count` dense elements; gives the sums and then the maxima, in every lane. The addresses stay as they
 * are.
 */
export function emitPass(
  math: LaneMath,
  count: Local,
  { inputs, uniforms = [], write = [], sum = [], max = [] }: Pass,
): Local[] {
  const { f } = math;
  const stream = (base: Local) => {
    const pointer = f.local('i32');
    f.set(pointer, base);
    return { pointer, spacing: 'dense' as const };
  };
  const sums = [
    ...sum.map(value => ({ into: accumulator(f, 'sum'), value })),
    ...max.map(value => ({ into: accumulator(f, 'max'), value })),
  ];
  for (const { into } of sums) resetAccumulator(f, into);
  emitRow(math, {
    count,
    uniforms,
    inputs: inputs.map(stream),
    outputs: write.map(([base, value]) => ({ stream: stream(base), value })),
    sums,
  });
  return sums.map(({ into }) => totalOf(f, into));
}

export interface RowKernel {
  readonly f: FunctionBuilder;
  readonly math: LaneMath;
  /** Elements in a row. */
  readonly count: Local;
  /** Where this row of each operand is. */
  readonly at: readonly Local[];
  /** The f32 parameters, in every lane. */
  readonly scalars: readonly Local[];
  pass(pass: Pass): Local[];
}

/** Adds name(rows, count, ...addresses, ...scalars), which runs `body` for each row; called through `runRows`. */
export function addRowFunction(
  m: ModuleBuilder,
  name: string,
  relaxed: boolean,
  moves: readonly Movement[],
  scalars: number,
  body: (row: RowKernel) => void,
): void {
  const f = m.function(name, {
    params: ['i32', 'i32', ...moves.map(() => 'i32' as const), ...new Array<'f32'>(scalars).fill('f32')],
    results: [],
  });
  const math = new LaneMath(f, relaxed);
  const [rows, count] = f.params;
  const at = f.params.slice(2, 2 + moves.length);
  const splats = f.params.slice(2 + moves.length).map(x => hold(f, op('f32x4.splat', x)));
  const [row, rowBytes] = f.localArray('i32', 2);
  f.set(rowBytes, op('i32.mul', count, 4));
  f.loop(row, rows, 1, () => {
    body({ f, math, count, at, scalars: splats, pass: pass => emitPass(math, count, pass) });
    moves.forEach((move, k) => {
      if (move !== 'stay') f.add(at[k], move === 'row' ? rowBytes : 4);
    });
  });
}

/**
 * How long an element of a row takes, in multiply-adds (see Threads.pays): about that of a pass with a sum, or of one
 * with an exponential.
 */
export const plainRows = 10;
export const exponentialRows = 40;

/** Calls a row function for `rows` rows of `count` elements, on several threads where that pays. */
export function runRows(
  { threads }: WasmContext,
  f: WasmFunction,
  moves: readonly Movement[],
  rows: number,
  count: number,
  addresses: readonly number[],
  workOfElement: number,
  scalars: readonly number[] = [],
): void {
  const height = Math.ceil(rows / threads.parts(rows * count * workOfElement));
  const bytes = { row: 4 * count, element: 4, stay: 0 };
  threads.run(
    f,
    Array.from({ length: rows === 0 ? 0 : Math.ceil(rows / height) }, (_, i) => [
      Math.min(height, rows - i * height),
      count,
      ...addresses.map((at, k) => at + i * height * bytes[moves[k]]),
      ...scalars,
    ]),
  );
}

/** Whether all these are dense f32, which is all that row kernels take. */
export function denseFloats(views: readonly (View | null)[]): boolean {
  return views.every(v => !v || (v.dtype === 'f32' && isContiguous(v.shape, v.strides)));
}

/** Dense i32: labels, slots, bounds. */
export function denseIntegers(view: View): boolean {
  return view.dtype === 'i32' && isContiguous(view.shape, view.strides);
}

/** Rows along the last axis. */
export const rowsOf = ({ shape }: View): number => sizeOf(shape.slice(0, -1));
