// The reference kernels: plain loops over typed arrays, any dtype, any strides. They are the oracle other kernels are
// held to, so they stay obvious; speed belongs in ./wasm. Floats are computed in f64 and rounded when stored.

import type { TypedArray } from '../../tensor/dtype.js';
import type { Program } from '../../tensor/expr.js';
import { decodePackedRow, packedMatrix } from '../../tensor/packing.js';
import { sizeOf, type Shape } from '../../tensor/shape.js';
import { epilogueMap, type Kernels, type View } from '../backend.js';
import { evaluator } from './emitJs.js';

/** Gives the memory a view lies in as a typed array of its dtype, from the start of its allocation. */
export type Host = (view: View) => TypedArray;

/** Calls `visit` for each index of `shape` in row-major order with the element offset of each stride list. */
function iterate(
  shape: Shape,
  strides: readonly Shape[],
  offsets: readonly number[],
  visit: (at: number[], n: number) => void,
): void {
  const size = sizeOf(shape);
  if (size === 0) return;
  const at = [...offsets];
  const counter = new Array<number>(shape.length).fill(0);
  for (let n = 0; ;) {
    visit(at, n);
    if (++n === size) return;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      counter[axis]++;
      for (let k = 0; k < at.length; k++) at[k] += strides[k][axis];
      if (counter[axis] < shape[axis]) break;
      for (let k = 0; k < at.length; k++) at[k] -= strides[k][axis] * shape[axis];
      counter[axis] = 0;
    }
  }
}

/** A packed view decoded into an array of its own, as a view on it: its transposition and repeats stay strides. */
function decoded(host: Host, view: View): { data: Float32Array; offset: number } {
  const { packing, rows, columns, byteOffset, rowBytes } = packedMatrix(view);
  const memory = host({ ...view, dtype: 'f32' });
  const bytes = new Uint8Array(memory.buffer, memory.byteOffset, memory.byteLength);
  const data = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++)
    decodePackedRow(packing, bytes, byteOffset + row * rowBytes, columns, data, row * columns);
  return { data, offset: 0 };
}

/**
 * The numbers given with a call as kernels of f32 have them: a tensor of 0.1 then equals the number 0.1, whichever
 * kernel compares.
 */
function uniformsOf(program: Program, uniforms: readonly number[], views: readonly View[]): readonly number[] {
  if (views.some(v => v.dtype === 'f64')) return uniforms;
  return uniforms.map((u, n) => (program.uniformTypes[n] === 'f' ? Math.fround(u) : u));
}

export function referenceKernels(host: Host): Kernels {
  // What a view holds, and where its element 0 is in that.
  const open = (view: View): { data: TypedArray; offset: number } =>
    view.packing ? decoded(host, view) : { data: host(view), offset: view.offset };
  return {
    map({ program, shape, inputs, outputs, uniforms }) {
      const evaluate = evaluator(program);
      const views = [...inputs, ...outputs];
      const arrays = views.map(host);
      const args = new Float64Array(inputs.length);
      const out = new Float64Array(outputs.length);
      const given = uniformsOf(program, uniforms, views);
      iterate(
        shape,
        views.map(v => v.strides),
        views.map(v => v.offset),
        (at, n) => {
          for (let i = 0; i < inputs.length; i++) args[i] = arrays[i][at[i]];
          evaluate(args, given, n, out);
          for (let j = 0; j < outputs.length; j++) arrays[inputs.length + j][at[inputs.length + j]] = out[j];
        },
      );
    },

    reduce({ op, program, shape, axes, inputs, output, uniforms }) {
      const evaluate = evaluator(program);
      const arrays = inputs.map(host);
      const target = host(output);
      const args = new Float64Array(inputs.length);
      const out = new Float64Array(1);
      const given = uniformsOf(program, uniforms, [...inputs, output]);
      const reduced = output.strides.map((stride, axis) => (axes.includes(axis) ? 0 : stride));
      const kept = shape.map((side, axis) => (axes.includes(axis) ? 1 : side));
      const sums = new Float64Array(sizeOf(kept)).fill(op === 'sum' ? 0 : -Infinity);
      let step = 1;
      const sumStrides = new Array<number>(shape.length);
      for (let axis = shape.length - 1; axis >= 0; axis--) {
        sumStrides[axis] = kept[axis] === 1 ? 0 : step;
        step *= kept[axis];
      }
      iterate(shape, [...inputs.map(v => v.strides), sumStrides], [...inputs.map(v => v.offset), 0], (at, n) => {
        for (let i = 0; i < inputs.length; i++) args[i] = arrays[i][at[i]];
        evaluate(args, given, n, out);
        const to = at[inputs.length];
        sums[to] = op === 'sum' ? sums[to] + out[0] : Math.max(sums[to], out[0]);
      });
      iterate(kept, [sumStrides, reduced], [0, output.offset], at => {
        target[at[1]] = sums[at[0]];
      });
    },

    matmul({ a, b, output, epilogue }) {
      const [x, z] = [a, output].map(host);
      const { data: y, offset: bOffset } = open(b);
      const rank = output.shape.length;
      const [m, n] = output.shape.slice(-2);
      const k = a.shape[rank - 1];
      const batch = output.shape.slice(0, -2);
      iterate(
        batch,
        [a, b, output].map(v => v.strides.slice(0, -2)),
        [a.offset, bOffset, output.offset],
        ([ao, bo, oo]) => {
          for (let i = 0; i < m; i++) {
            for (let j = 0; j < n; j++) {
              let sum = 0;
              for (let p = 0; p < k; p++) {
                sum +=
                  x[ao + i * a.strides[rank - 2] + p * a.strides[rank - 1]] *
                  y[bo + p * b.strides[rank - 2] + j * b.strides[rank - 1]];
              }
              z[oo + i * output.strides[rank - 2] + j * output.strides[rank - 1]] = sum;
            }
          }
        },
      );
      if (epilogue) this.map(epilogueMap({ output, epilogue }));
    },

    copy({ input, output }) {
      const [from, to] = [host(input), host(output)];
      iterate(input.shape, [input.strides, output.strides], [input.offset, output.offset], at => {
        to[at[1]] = from[at[0]];
      });
    },

    gather({ input, indices, output }) {
      const { data: from, offset } = open(input);
      const to = host(output);
      const row = output.shape.slice(1);
      indices.forEach((source, i) => {
        const start = output.offset + i * output.strides[0];
        iterate(
          row,
          [input.strides.slice(1), output.strides.slice(1)],
          [offset + source * input.strides[0], start],
          at => {
            to[at[1]] = source < 0 ? 0 : from[at[0]];
          },
        );
      });
    },

    scatterAdd({ input, indices, output }) {
      const [from, to] = [host(input), host(output)];
      iterate(output.shape, [output.strides], [output.offset], at => {
        to[at[0]] = 0;
      });
      const row = output.shape.slice(1);
      indices.forEach((target, i) => {
        if (target < 0) return;
        const offsets = [input.offset + i * input.strides[0], output.offset + target * output.strides[0]];
        iterate(row, [input.strides.slice(1), output.strides.slice(1)], offsets, at => {
          to[at[1]] += from[at[0]];
        });
      });
    },

    unpack({ input, output }) {
      host(output).set(decoded(host, input).data, output.offset);
    },
  };
}
