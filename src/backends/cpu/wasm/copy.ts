// Copies between strided views of 4-byte elements, whatever they mean. Axes are merged and ordered here; the two
// innermost run in WebAssembly as moved runs, as a blocked transpose, or element by element. No arithmetic and no
// conversion.

import { sizeOf } from '../../../tensor/shape.js';
import { oneThread, type Threads } from '../threads.js';
import { call, load, ModuleBuilder, op, select, type FunctionBuilder, type WasmFunction } from './emit/assembler.js';
import { isShared } from './context.js';
import type { WasmView } from './products/gemm.js';
import { transpose4 } from './products/gemmKernels.js';

export interface Copy {
  /** output = input, same shape, any strides, 4 bytes an element. Always true. */
  copy(call: { input: WasmView; output: WasmView }): boolean;
}

/** One axis of the copy; strides in bytes. */
interface Axis {
  readonly side: number;
  readonly from: number;
  readonly to: number;
}

/**
 * Sides of the square that the blocked transpose finishes before the next: both of its halves fit the first-level
 * cache.
 */
const block = 32;

export function createCopy(memory: WebAssembly.Memory, threads: Threads = oneThread(memory)): Copy {
  const m = new ModuleBuilder({ memory: { shared: isShared(memory) } });
  emitRuns(m);
  emitElements(m);
  emitTranspose(m);
  const kernels = threads.link(m.bytes());
  return {
    copy: ({ input, output }) => {
      if (output.shape.includes(0)) return true;
      const axes = mergeAxes(
        output.shape.map((side, i) => ({ side, from: 4 * input.strides[i], to: 4 * output.strides[i] })),
      );
      copyAxes(
        kernels,
        axes,
        input.byteOffset,
        output.byteOffset,
        threads,
        threads.parts(workOfWord * sizeOf(output.shape)),
      );
      return true;
    },
  };
}

/** Axes of more than one element, the output's fastest last, neighbours that step alike on both sides merged. */
function mergeAxes(axes: readonly Axis[]): Axis[] {
  const order = axes.filter(axis => axis.side !== 1).sort((x, y) => Math.abs(y.to) - Math.abs(x.to));
  const merged: Axis[] = [];
  for (const axis of order) {
    const outer = merged.at(-1);
    if (outer && outer.to === axis.side * axis.to && outer.from === axis.side * axis.from) {
      merged[merged.length - 1] = { ...axis, side: outer.side * axis.side };
    } else {
      merged.push(axis);
    }
  }
  return merged;
}

const single: Axis = { side: 1, from: 4, to: 4 };
/** How long a word takes, in multiply-adds (see Threads.pays). */
const workOfWord = 4;

/**
 * The two innermost axes are a call. In more than one part these are cut along the longer axis, unless there are many
 * anyway.
 */
function copyAxes(
  kernels: Record<string, WasmFunction>,
  axes: readonly Axis[],
  from: number,
  to: number,
  threads: Threads,
  parts: number,
): void {
  const inner = axes.at(-1) ?? single;
  const rest = axes.slice(0, -1);
  // Beside the output's fastest axis, the input's fastest one makes a transpose; else the next one out.
  const across = rest.findLastIndex(axis => axis.from === 4);
  const chosen = across >= 0 ? across : rest.length - 1;
  const outer = rest[chosen] ?? single;
  rest.splice(chosen, rest.length > 0 ? 1 : 0);
  const dense = inner.to === 4 && inner.from === 4;
  const turned = !dense && inner.to === 4 && outer.from === 4;
  const kernel = dense ? kernels.runs : turned ? kernels.transpose : kernels.elements;
  const argsOf = (source: number, target: number, outerSide: number, innerSide: number): number[] => {
    if (dense) return [source, outer.from, target, outer.to, outerSide, 4 * innerSide];
    if (turned) return [source, inner.from, target, outer.to, outerSide, innerSide];
    return [source, outer.from, inner.from, target, outer.to, inner.to, outerSide, innerSide];
  };
  const walk = (axis: number, source: number, target: number, each: (source: number, target: number) => void): void => {
    if (axis === rest.length) return each(source, target);
    for (let i = 0; i < rest[axis].side; i++)
      walk(axis + 1, source + i * rest[axis].from, target + i * rest[axis].to, each);
  };
  if (parts === 1) {
    walk(0, from, to, (source, target) => kernel(...argsOf(source, target, outer.side, inner.side)));
    return;
  }
  const cut = outer.side >= inner.side ? outer : inner;
  const length = 16 * Math.ceil(cut.side / Math.ceil(parts / rest.reduce((n, { side }) => n * side, 1)) / 16);
  const calls: number[][] = [];
  walk(0, from, to, (source, target) => {
    for (let i = 0; i < cut.side; i += length) {
      const side = Math.min(length, cut.side - i);
      calls.push(
        argsOf(
          source + i * cut.from,
          target + i * cut.to,
          cut === outer ? side : outer.side,
          cut === inner ? side : inner.side,
        ),
      );
    }
  });
  threads.run(kernel, calls);
}

/** `count` runs of `bytes` bytes each. */
function emitRuns(m: ModuleBuilder): void {
  const f = m.function('runs', { params: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], results: [] });
  const [from, fromStride, to, toStride, count, bytes] = f.params;
  const [i, at] = f.localArray('i32', 2);
  const move = (body: () => void): void =>
    f.loop(i, count, 1, () => {
      body();
      f.add(from, fromStride);
      f.add(to, toStride);
    });
  // memory.copy costs a call: short runs go by vectors and single words.
  f.if(
    op('i32.gt_u', bytes, 512),
    () => move(() => f.copy(to, from, bytes)),
    () =>
      move(() => {
        f.set(at, 0);
        const [source, target] = [op('i32.add', from, at), op('i32.add', to, at)];
        f.loop(at, op('i32.and', bytes, -16), 16, () => f.store('v128.store', target, load('v128.load', source)));
        f.loop(at, bytes, 4, () => f.store('i32.store', target, load('i32.load', source)));
      }),
  );
}

/** Single words; an inner input stride of 0 into contiguous output repeats one word. */
function emitElements(m: ModuleBuilder): void {
  const f = m.function('elements', { params: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32'], results: [] });
  const [from, fromOuter, fromInner, to, toOuter, toInner, outer, inner] = f.params;
  const [i, j, source, target] = f.localArray('i32', 4);
  const word = f.local('v128');
  const repeats = op('i32.and', op('i32.eqz', fromInner), op('i32.eq', toInner, 4));
  f.loop(i, outer, 1, () => {
    f.set(source, from);
    f.set(target, to);
    f.set(j, 0);
    f.if(repeats, () => {
      f.set(word, load('v128.load32_splat', source));
      f.loop(j, op('i32.and', inner, -4), 4, () => {
        f.store('v128.store', target, word);
        f.add(target, 16);
      });
    });
    f.loop(j, inner, 1, () => {
      f.store('i32.store', target, load('i32.load', source));
      f.add(source, fromInner);
      f.add(target, toInner);
    });
    f.add(from, fromOuter);
    f.add(to, toOuter);
  });
}

/**
 * to[r, c] = from[r, c] where rows of `to` are contiguous (toRow apart) and so are columns of `from` (fromColumn
 * apart).
 */
function emitTranspose(m: ModuleBuilder): void {
  const square = emitTransposeBlock(m);
  const f = m.function('transpose', { params: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], results: [] });
  const [from, fromColumn, to, toRow, rows, columns] = f.params;
  const [row, column, source, target] = f.localArray('i32', 4);
  const part = (whole: typeof rows, at: typeof rows) => {
    const left = op('i32.sub', whole, at);
    return select(left, block, op('i32.lt_u', left, block));
  };
  f.loop(row, rows, block, () => {
    f.set(source, from);
    f.set(target, to);
    f.set(column, 0);
    f.loop(column, columns, block, () => {
      f.do(call(square, source, fromColumn, target, toRow, part(rows, row), part(columns, column)));
      f.add(source, op('i32.mul', fromColumn, block));
      f.add(target, 4 * block);
    });
    f.add(from, 4 * block);
    f.add(to, op('i32.mul', toRow, block));
  });
}

/** The same for one block: squares of 4x4 by shuffles, words at the edges. */
function emitTransposeBlock(m: ModuleBuilder): FunctionBuilder {
  const f = m.function(
    'transposeBlock',
    { params: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], results: [] },
    { exported: false },
  );
  const [from, fromColumn, to, toRow, rows, columns] = f.params;
  const [row, column, wholeColumns] = f.localArray('i32', 3);
  const sources = f.localArray('i32', 4);
  const targets = f.localArray('i32', 4);
  const vectors = f.localArray('v128', 4);
  f.set(wholeColumns, op('i32.and', columns, -4));

  f.loop(row, op('i32.and', rows, -4), 4, () => {
    sources.forEach((p, i) => f.set(p, i === 0 ? from : op('i32.add', sources[i - 1], fromColumn)));
    targets.forEach((p, i) => f.set(p, i === 0 ? to : op('i32.add', targets[i - 1], toRow)));
    f.set(column, 0);
    f.loop(column, wholeColumns, 4, () => {
      vectors.forEach((v, i) => f.set(v, load('v128.load', sources[i])));
      transpose4(f, vectors);
      vectors.forEach((v, i) => f.store('v128.store', targets[i], v));
      sources.forEach(p => f.add(p, op('i32.mul', fromColumn, 4)));
      targets.forEach(p => f.add(p, 16));
    });
    f.loop(column, columns, 1, () => {
      f.set(vectors[0], load('v128.load', sources[0]));
      targets.forEach((p, i) => f.storeLane('v128.store32_lane', i, p, vectors[0]));
      f.add(sources[0], fromColumn);
      targets.forEach(p => f.add(p, 4));
    });
    f.add(from, 16);
    f.add(to, op('i32.mul', toRow, 4));
  });
  f.loop(row, rows, 1, () => {
    f.set(sources[0], from);
    f.set(targets[0], to);
    f.set(column, 0);
    f.loop(column, columns, 1, () => {
      f.store('i32.store', targets[0], load('i32.load', sources[0]));
      f.add(sources[0], fromColumn);
      f.add(targets[0], 4);
    });
    f.add(from, 4);
    f.add(to, toRow);
  });
  return f;
}
