// Fused kernels that go row by row along the last axis. One invocation takes a row, or a workgroup takes it together
// (Settings.reduce). Rows may lie anywhere, their elements must be neighbours; operands larger than a binding are taken
// in groups of rows. The code of a row is rowCode.ts, which passes there are is each kernel's business.

import type { ScalarType } from '../../../tensor/expr.js';
import { sizeOf } from '../../../tensor/shape.js';
import type { FusedKernel, View } from '../../backend.js';
import { mergedAxes } from '../../iteration.js';
import type { KernelContext } from '../context.js';
import { functionTexts } from '../mathWgsl.js';
import { Access, addAxes, bind, emitOffsets, grid, halves, operandOf, type Bound, type Space } from '../operands.js';
import { held, holdWords, Params } from '../params.js';
import { RowCode, type RowOperand } from './rowCode.js';

/** Rows of a workgroup whose invocations take one each: few, so that wide rows keep several processors busy. */
const rowsTogether = 16;
/** Rows from this length on are taken by more lanes. */
const wide = 2048;
/**
 * Fewer rows than software has lanes, each as long as this: one invocation a row leaves most idle, reductions in parts
 * do not.
 */
const tooFew = { rows: 4, count: 8192 };

/**
 * The first input gives the shape. `body` knows inputs with one value a row and the scalars by their names, `count` and
 * (in f32) `size`.
 */
export interface RowKernel {
  readonly name: string;
  readonly inputs: readonly RowOperand[];
  readonly outputs: readonly RowOperand[];
  /** Attributes that are f32 numbers. */
  readonly scalars?: readonly string[];
  /** Element functions of mathWgsl.ts. */
  readonly functions?: readonly string[];
  body(code: RowCode): void;
}

/** Steps along the axes of the rows and along the row; null where the kernel does not take the view. */
function stepsOf(view: View, { along, type }: RowOperand, rank: number, count: number): number[] | null {
  if (view.dtype !== (type === 'i' ? 'i32' : 'f32')) return null;
  if (along === 'one') return [...view.strides, 0];
  const own = view.strides[view.strides.length - 1];
  if (own !== 1 && count > 1) return null;
  return [...new Array<number>(rank - view.strides.length).fill(0), ...view.strides.slice(0, -1), 1];
}

/** Parts of the rows whose operands may be bound, or null where that fails for a single row. */
function parts(space: Space, limit: number): { space: Space; bound: Bound }[] | null {
  const bound = bind(space, limit);
  if (bound) return [{ space, bound }];
  const d = space.axes.findIndex((a, i) => a.size > 1 && i < space.axes.length - 1);
  if (d < 0) return null;
  const [first, second] = halves(space, d).map(half => parts(half, limit));
  return first && second && [...first, ...second];
}

export function rowKernel({ queue, settings }: KernelContext, kernel: RowKernel): FusedKernel {
  const { name, scalars = [] } = kernel;
  const operands = [...kernel.inputs, ...kernel.outputs];

  function record({ axes, operands: places }: Space, bound: Bound, values: readonly number[]): void {
    const kept = axes.slice(0, -1);
    const rows = sizeOf(kept.map(a => a.size));
    const count = axes[axes.length - 1].size;
    const lanes = settings.reduce === 'invocation' ? 1 : count < wide ? 64 : 256;
    const invocations = lanes > 1 ? lanes : rowsTogether;
    const params = new Params();
    const [rowsAt, countAt] = [params.add(rows), params.add(count)];
    const offsetsAt = params.addAll(bound.offsets);
    const axisWords = addAxes(params, kept, operands.length);
    const scalarsAt = values.map(v => params.addFloat(v));
    const access = new Access(places, bound);
    const source = (): string => {
      const code = new RowCode(operands, access, lanes);
      for (const { name: input, along } of kernel.inputs) if (along === 'one') code.take(input);
      kernel.body(code);
      return `${access.declarations}
${functionTexts(kernel.functions ?? [])}
${Array.from({ length: code.totals }, (_, i) => `var<workgroup> shared${i}: array<f32, ${lanes}>;`).join('\n')}
@compute @workgroup_size(${invocations})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  ${holdWords(params.words.length)}
  let row = (group.y * groups.x + group.x)${lanes > 1 ? '' : ` * ${invocations}u + lane`};
  if (row >= ${held(rowsAt)}) { return; }
  let count = ${held(countAt)};
  let size = f32(count);
  ${scalars.map((scalar, i) => `let ${scalar} = bitcast<f32>(${held(scalarsAt[i])});`).join(' ')}
  ${emitOffsets('row', 'k', offsetsAt.map(held), axisWords, held)}
  ${code.text}
}`;
    };
    const key = `${name}|${kept.length}|${access.key}|${lanes}`;
    const pipeline = queue.pipeline(
      name,
      key,
      bound.bindings.map(b => b.write),
      params.words.length,
      source,
    );
    queue.dispatch({
      pipeline,
      bindings: bound.bindings,
      params: params.words,
      groups: grid(lanes > 1 ? rows : Math.ceil(rows / invocations)),
    });
  }

  return ({ inputs, outputs, attributes }) => {
    const views = [...inputs, ...outputs];
    if (views.length !== operands.length || !views.every((v): v is View => v !== null)) return false;
    const { shape } = views[0];
    if (shape.length === 0 || sizeOf(shape) === 0) return false;
    const count = shape[shape.length - 1];
    if (settings.reduce === 'invocation' && count >= tooFew.count && sizeOf(shape) / count < tooFew.rows) return false;
    const steps = views.map((view, k) => stepsOf(view, operands[k], shape.length, count));
    if (!steps.every((s): s is number[] => s !== null)) return false;
    const kept = mergedAxes(
      shape.slice(0, -1),
      steps.map(s => s.slice(0, -1)),
    );
    if (kept.length === 0) kept.push({ size: 1, reduced: false, steps: steps.map(() => 0) });
    const along = { size: count, reduced: true, steps: steps.map(s => s[s.length - 1]) };
    const typeOf = (o: RowOperand): ScalarType => o.type ?? 'f';
    const places = views.map((view, k) => operandOf(view, typeOf(operands[k]), k >= inputs.length));
    const all = parts({ axes: [...kept, along], operands: places }, settings.bindingBytes);
    if (!all || all.some(({ bound }) => bound.bindings.length > settings.storageBuffers)) return false;
    for (const { space, bound } of all)
      record(
        space,
        bound,
        scalars.map(s => attributes[s]),
      );
    return true;
  };
}
