// Rows of packed weights decoded to f32: those picked by number (embeddings) and all of a range. One invocation decodes
// four weights, or one where a row is no multiple of four. Products decode for themselves (./registerTile.ts).

import type { Primitives, View } from '../backend.js';
import type { KernelContext } from './context.js';
import { WebGPUError } from './errors.js';
import { bind, grid, operandOf, type Operand } from './operands.js';
import { packedRows, unpackFunctions, type PackedRows } from './packed.js';
import { Params, word } from './params.js';
import { rowWindows } from './rowWindows.js';

const invocations = 64;

export function createUnpack(context: KernelContext): {
  gather(call: Primitives['gather']): void;
  unpack(call: Primitives['unpack']): void;
} {
  const { queue, settings } = context;

  /** Rows of `bytes` that fit one binding wherever the first begins. */
  const rowsAtOnce = (label: string, bytes: number, rows: number): number => {
    if (bytes * rows <= settings.bindingBytes) return rows;
    const fit = Math.floor((settings.bindingBytes - 260) / bytes);
    if (fit < 1)
      throw new WebGPUError(
        'unsupported',
        label,
        `one row is larger than the ${settings.bindingBytes} bytes that may be bound`,
      );
    return fit;
  };

  interface Job {
    readonly label: string;
    readonly input: PackedRows;
    readonly source: View;
    readonly output: View;
    /** Windows: first row and number of rows of each side. */
    readonly from: readonly [number, number];
    readonly to: readonly [number, number];
    /** Output rows computed: all of the window, or those of the pairs. */
    readonly pairs?: Int32Array;
  }

  function record({ label, input, source, output, from, to, pairs }: Job): void {
    const { packing, columns, rowWords } = input;
    const four = columns % 4 === 0;
    const operands: Operand[] = [
      { ...operandOf(source, 'u'), offset: input.offset + from[0] * rowWords },
      { ...operandOf(output, 'f', true), offset: output.offset + to[0] * columns },
    ];
    const sides = [
      [from[1], rowWords, 0],
      [rowWords, 1, 0],
      [to[1] * columns, 0, 1],
    ];
    const bound = bind(
      { axes: sides.map(([size, ...steps]) => ({ size, reduced: false, steps })), operands },
      settings.bindingBytes,
    );
    if (!bound) throw new WebGPUError('internal', label, 'rows reach over more than may be bound');
    const rows = pairs ? pairs.length / 2 : to[1];
    const across = four ? columns / 4 : columns;
    const params = new Params();
    const [countAt, acrossAt, columnsAt, rowAt, scaleAt, listAt] = params.addAll([
      rows * across,
      across,
      columns,
      rowWords,
      input.scaleWord,
      0,
    ]);
    const offsetsAt = params.addAll(bound.offsets);
    const picked = pairs
      ? `let target_ = u32(list[${word(listAt)} + 2u * t]);
  let source = list[${word(listAt)} + 2u * t + 1u];`
      : 'let target_ = t;\n  let source = i32(t);';
    const value = four
      ? `var v = vec4<f32>(0.0);
  if (source >= 0) { v = weights(row, row + ${word(scaleAt)}, 4u * column); }
  let at = ${word(offsetsAt[1])} + target_ * ${word(columnsAt)} + 4u * column;
  decoded[at] = v.x; decoded[at + 1u] = v.y; decoded[at + 2u] = v.z; decoded[at + 3u] = v.w;`
      : `var v = 0.0;
  if (source >= 0) { v = weight(row, column); }
  decoded[${word(offsetsAt[1])} + target_ * ${word(columnsAt)} + column] = v;`;
    const text = (): string => `@group(0) @binding(1) var<storage, read> packed: array<u32>;
@group(0) @binding(2) var<storage, read_write> decoded: array<f32>;
${pairs ? '@group(0) @binding(3) var<storage, read> list: array<i32>;' : ''}
${unpackFunctions(packing, 'packed')}
@compute @workgroup_size(${invocations})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * ${invocations}u + lane;
  if (i >= ${word(countAt)}) { return; }
  let t = i / ${word(acrossAt)};
  let column = i % ${word(acrossAt)};
  ${picked}
  let row = ${word(offsetsAt[0])} + u32(max(source, 0)) * ${word(rowAt)};
  ${value}
}`;
    const access = pairs ? [false, true, false] : [false, true];
    const pipeline = queue.pipeline(
      label,
      `packed ${packing} ${four} ${pairs !== undefined}`,
      access,
      params.words.length,
      text,
    );
    const bindings = bound.slots.map(s => bound.bindings[s]);
    const groups = grid(Math.ceil((rows * across) / invocations));
    queue.dispatch({
      pipeline,
      bindings,
      params: params.words,
      groups,
      ...(pairs && { upload: { data: pairs, at: listAt } }),
    });
  }

  const prepare = (label: string, view: View, output: View) => {
    const input = packedRows(view);
    if (!input) throw new WebGPUError('unsupported', label, 'the input is not packed');
    const targets = output.shape[0];
    return {
      input,
      sources: rowsAtOnce(label, 4 * input.rowWords, input.rows),
      targets: rowsAtOnce(label, 4 * input.columns, targets),
    };
  };

  return {
    gather({ input: view, indices, output }) {
      if (output.shape[0] === 0 || output.shape[1] === 0) return;
      const { input, sources, targets } = prepare('gather', view, output);
      for (const { from, to, pairs } of rowWindows(indices, sources, targets)) {
        record({
          label: 'gather',
          input,
          source: view,
          output,
          pairs,
          from: [from, Math.min(sources, input.rows - from)],
          to: [to, Math.min(targets, output.shape[0] - to)],
        });
      }
    },

    unpack({ input: view, output }) {
      if (output.shape[0] === 0 || output.shape[1] === 0) return;
      const { input, sources, targets } = prepare('unpack', view, output);
      const step = Math.min(sources, targets);
      for (let r = 0; r < input.rows; r += step) {
        const window = [r, Math.min(step, input.rows - r)] as const;
        record({ label: 'unpack', input, source: view, output, from: window, to: window });
      }
    },
  };
}
