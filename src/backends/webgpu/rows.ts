// Rows picked by number and rows added up by number. The numbers travel with the call. Sums go by target row, in the
// order of the sources, in blocks: no atomics, the same bits every time. Rows further apart than may be bound are taken
// in groups.

import { sizeOf } from '../../tensor/shape.js';
import type { Primitives, View } from '../backend.js';
import { mergedAxes } from '../iteration.js';
import type { KernelContext } from './context.js';
import { WebGPUError } from './errors.js';
import {
  Access,
  addAxes,
  bind,
  checkDtype,
  emitOffsets,
  grid,
  operandOf,
  type Operand,
  type Space,
} from './operands.js';
import { Params, word } from './params.js';
import { rowWindows } from './rowWindows.js';
import { createUnpack } from './unpack.js';

const invocations = 64;
/** Sources are added in blocks of so many: rounding errors do not grow with their number. */
const block = 32;

export function createRows(context: KernelContext): {
  [K in 'gather' | 'scatterAdd' | 'unpack']: (call: Primitives[K]) => void;
} {
  const { queue, settings } = context;
  const packed = createUnpack(context);

  interface Job {
    readonly label: string;
    /** The axes of one row, and the input's and the output's row 0. */
    readonly axes: Space['axes'];
    readonly operands: readonly [Operand, Operand];
    readonly rowSteps: readonly [number, number];
    /** Rows of each side that may be touched. */
    readonly rows: readonly [number, number];
    /** Output rows computed. */
    readonly count: number;
    readonly list: Int32Array;
  }

  /**
   * One invocation for each element of `count` rows. `body` gets names: t, the row's place among `count`; k0 and k1,
   * where the element lies in row 0 of input and output; step0 and step1, from row to row; and the list of numbers,
   * from `first` on.
   */
  function record({ label, axes, operands, rowSteps, rows, count, list }: Job, body: (access: Access) => string): void {
    const everyRow = rows.map((size, k) => ({
      size,
      reduced: false,
      steps: rowSteps.map((s, n) => (n === k ? s : 0)),
    }));
    const bound = bind({ axes: [...everyRow, ...axes], operands }, settings.bindingBytes);
    if (!bound)
      throw new WebGPUError(
        'unsupported',
        label,
        `one row is larger than the ${settings.bindingBytes} bytes that may be bound`,
      );
    const columns = sizeOf(axes.map(a => a.size));
    const params = new Params();
    const countAt = params.add(count * columns);
    const columnsAt = params.add(columns);
    const listAt = params.add(0);
    const stepsAt = params.addAll(rowSteps);
    const offsetsAt = params.addAll(bound.offsets);
    const axisWords = addAxes(params, axes, 2);
    const access = new Access(operands, bound);
    const source = (): string => `${access.declarations}
@group(0) @binding(${bound.bindings.length + 1}) var<storage, read> list: array<i32>;
@compute @workgroup_size(${invocations})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * ${invocations}u + lane;
  if (i >= ${word(countAt)}) { return; }
  let t = i / ${word(columnsAt)};
  let column = i % ${word(columnsAt)};
  let first = ${word(listAt)};
  let step0 = ${word(stepsAt[0])};
  let step1 = ${word(stepsAt[1])};
  ${emitOffsets('column', 'k', offsetsAt.map(word), axisWords)}
  ${body(access)}
}`;
    const pipeline = queue.pipeline(
      label,
      `${axes.length}|${access.key}`,
      [...bound.bindings.map(b => b.write), false],
      params.words.length,
      source,
    );
    queue.dispatch({
      pipeline,
      bindings: bound.bindings,
      params: params.words,
      groups: grid(Math.ceil((count * columns) / invocations)),
      upload: { data: list, at: listAt },
    });
  }

  const rowAxes = (row: readonly number[], views: readonly View[]) =>
    mergedAxes(
      row,
      views.map(v => v.strides.slice(1)),
    );
  /** How many rows of a view may lie in one binding; fewer than all only for buffers larger than may be bound. */
  const rowsAtOnce = (view: View): number => {
    const step = Math.abs(view.strides[0]) * 4;
    const bytes = (view.allocation as Operand['block']).buffer.byteLength;
    const rowReach =
      view.shape.slice(1).reduce((sum, side, d) => sum + (side - 1) * Math.abs(view.strides[d + 1]), 1) * 4;
    if (bytes <= settings.bindingBytes || step === 0) return Math.max(1, view.shape[0]);
    return Math.max(1, Math.floor((settings.bindingBytes - 256 - rowReach) / step) + 1);
  };

  return {
    unpack: packed.unpack,

    gather({ input, indices, output }) {
      checkDtype('gather', input.dtype);
      if (input.packing) return packed.gather({ input, indices, output });
      const row = output.shape.slice(1);
      if (sizeOf(output.shape) === 0) return;
      const axes = rowAxes(row, [input, output]);
      const [sources, targets] = [rowsAtOnce(input), rowsAtOnce(output)];
      for (const { from, to, pairs } of rowWindows(indices, sources, targets)) {
        const operands: [Operand, Operand] = [
          { ...operandOf(input, 'u'), offset: input.offset + from * input.strides[0] },
          { ...operandOf(output, 'u', true), offset: output.offset + to * output.strides[0] },
        ];
        const rows = [
          Math.min(sources, Math.max(1, input.shape[0] - from)),
          Math.min(targets, output.shape[0] - to),
        ] as const;
        record(
          {
            label: 'gather',
            axes,
            operands,
            rowSteps: [input.strides[0], output.strides[0]],
            rows,
            count: pairs.length / 2,
            list: pairs,
          },
          access => `
  let target_ = list[first + 2u * t];
  let source = list[first + 2u * t + 1u];
  var value = 0u;
  if (source >= 0) { value = ${access.load(0, 'k0 + u32(source) * step0')}; }
  ${access.store(1, 'k1 + u32(target_) * step1', 'value')}`,
        );
      }
    },

    scatterAdd({ input, indices, output }) {
      checkDtype('scatterAdd', input.dtype);
      const row = output.shape.slice(1);
      if (sizeOf(output.shape) === 0) return;
      const type = output.dtype === 'f32' ? 'f' : 'i';
      const zero = type === 'f' ? '0.0' : '0';
      const axes = rowAxes(row, [input, output]);
      const rows = output.shape[0];
      // starts[r] .. starts[r + 1] of `order`: the sources of row r, in order.
      const starts = new Int32Array(rows + 1);
      for (const target of indices) if (target >= 0) starts[target + 1]++;
      for (let r = 0; r < rows; r++) starts[r + 1] += starts[r];
      const next = starts.slice();
      const order = new Int32Array(starts[rows]);
      indices.forEach((target, i) => {
        if (target >= 0) order[next[target]++] = i;
      });
      if (rowsAtOnce(input) < input.shape[0])
        throw new WebGPUError(
          'unsupported',
          'scatterAdd',
          `the rows to add are more than the ${settings.bindingBytes} bytes that may be bound`,
        );
      const targets = rowsAtOnce(output);
      for (let from = 0; from < rows; from += targets) {
        const count = Math.min(targets, rows - from);
        const sources = order.subarray(starts[from], starts[from + count]);
        const list = new Int32Array(count + 1 + sources.length);
        for (let r = 0; r <= count; r++) list[r] = starts[from + r] - starts[from] + count + 1;
        list.set(sources, count + 1);
        const operands: [Operand, Operand] = [
          operandOf(input, type),
          { ...operandOf(output, type, true), offset: output.offset + from * output.strides[0] },
        ];
        const touched: [number, number] = [Math.max(1, input.shape[0]), count];
        record(
          {
            label: 'scatterAdd',
            axes,
            operands,
            rowSteps: [input.strides[0], output.strides[0]],
            rows: touched,
            count,
            list,
          },
          access => `
  var total = ${zero};
  let last = u32(list[first + t + 1u]);
  var p = u32(list[first + t]);
  while (p < last) {
    let end = min(p + ${block}u, last);
    var part = ${zero};
    for (; p < end; p++) { part += ${access.load(0, 'k0 + u32(list[first + p]) * step0')}; }
    total += part;
  }
  ${access.store(1, 'k1 + t * step1', 'total')}`,
        );
      }
    },
  };
}
