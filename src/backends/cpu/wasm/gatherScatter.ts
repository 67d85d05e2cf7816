// Rows picked by number and rows added up by number, for rows that lie densely. The numbers go through scratch memory.

import { bytesPerElement } from '../../../tensor/dtype.js';
import { isContiguous, sizeOf } from '../../../tensor/shape.js';
import type { Primitives, View } from '../../backend.js';
import { instantiate, load, ModuleBuilder, op, type InstructionName } from './emit/assembler.js';
import { isShared, type WasmContext } from './context.js';

/** Whether each row of a view is one run of memory; rows may lie apart. */
function denseRows({ shape, strides }: View): boolean {
  return isContiguous(shape.slice(1), strides.slice(1));
}

/** gather(indices, count, from, fromRowBytes, to, rowBytes): negative numbers give zeros. */
function addGather(m: ModuleBuilder): void {
  const f = m.function('gather', { params: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], results: [] });
  const [indices, count, from, fromRow, to, rowBytes] = f.params;
  const [i, row, source] = f.localArray('i32', 3);
  f.loop(i, count, 1, () => {
    f.set(row, load('i32.load', indices));
    f.set(source, op('i32.add', from, op('i32.mul', row, fromRow)));
    f.if(
      op('i32.lt_s', row, 0),
      () => f.fill(to, 0, rowBytes),
      () => {
        f.if(
          op('i32.eq', rowBytes, 4),
          () => f.store('i32.store', to, load('i32.load', source)),
          () => f.copy(to, source, rowBytes),
        );
      },
    );
    f.add(indices, 4);
    f.add(to, rowBytes);
  });
}

/**
 * name(indices, count, from, fromRowBytes, to, toRowBytes, rowElements): adds rows in order, skipping negative numbers.
 */
function addScatter(
  m: ModuleBuilder,
  name: string,
  addVectors: InstructionName,
  addScalars: InstructionName,
  type: 'f32' | 'i32',
): void {
  const f = m.function(name, { params: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32'], results: [] });
  const [indices, count, from, fromRow, to, toRow, rowElements] = f.params;
  const [i, row, k, source, target, vectors] = f.localArray('i32', 6);
  f.set(vectors, op('i32.and', rowElements, -4));
  f.loop(i, count, 1, () => {
    f.set(row, load('i32.load', indices));
    f.if(op('i32.ge_s', row, 0), () => {
      f.set(source, from);
      f.set(target, op('i32.add', to, op('i32.mul', row, toRow)));
      f.set(k, 0);
      f.loop(k, vectors, 4, () => {
        f.store('v128.store', target, op(addVectors, load('v128.load', target), load('v128.load', source)));
        f.add(source, 16);
        f.add(target, 16);
      });
      f.loop(k, rowElements, 1, () => {
        f.store(`${type}.store`, target, op(addScalars, load(`${type}.load`, target), load(`${type}.load`, source)));
        f.add(source, 4);
        f.add(target, 4);
      });
    });
    f.add(indices, 4);
    f.add(from, fromRow);
  });
}

export function createGatherScatter(context: WasmContext): {
  gather: (call: Primitives['gather']) => boolean;
  scatterAdd: (call: Primitives['scatterAdd']) => boolean;
} {
  const { memory, scratch, byteOffsetOf } = context;
  const m = new ModuleBuilder({ memory: { shared: isShared(memory) } });
  addGather(m);
  addScatter(m, 'addFloats', 'f32x4.add', 'f32.add', 'f32');
  addScatter(m, 'addInts', 'i32x4.add', 'i32.add', 'i32');
  const code = instantiate(m.bytes(), memory);

  const place = (indices: Int32Array): number => {
    const at = scratch(indices.byteLength);
    new Int32Array(memory.buffer, at, indices.length).set(indices);
    return at;
  };
  const rowSize = (view: View): number => sizeOf(view.shape.slice(1));
  const rowStep = (view: View): number => view.strides[0] * bytesPerElement[view.dtype];

  return {
    gather({ input, indices, output }) {
      if (input.dtype !== output.dtype || !denseRows(input) || !isContiguous(output.shape, output.strides))
        return false;
      const at = place(indices);
      const rowBytes = rowSize(output) * bytesPerElement[output.dtype];
      code.gather(at, indices.length, byteOffsetOf(input), rowStep(input), byteOffsetOf(output), rowBytes);
      return true;
    },
    scatterAdd({ input, indices, output }) {
      const { dtype } = output;
      if (input.dtype !== dtype || (dtype !== 'f32' && dtype !== 'i32')) return false;
      if (!denseRows(input) || !isContiguous(output.shape, output.strides)) return false;
      const at = place(indices);
      const elements = rowSize(output);
      const to = byteOffsetOf(output);
      new Uint8Array(memory.buffer, to, 4 * sizeOf(output.shape)).fill(0);
      (dtype === 'f32' ? code.addFloats : code.addInts)(
        at,
        indices.length,
        byteOffsetOf(input),
        rowStep(input),
        to,
        4 * elements,
        elements,
      );
      return true;
    },
  };
}
