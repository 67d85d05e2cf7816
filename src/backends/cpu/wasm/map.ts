// The map kernel: a program over strided operands of any rank, one WASM call each. A module is compiled for a program
// and the spacing of its operands along the innermost loop; shapes, strides, addresses and uniforms are read from
// scratch memory. Descriptor, in words: row length, end of the loops (address), pointers, row steps, uniforms, loops
// (iteration.ts).

import { bytesPerElement, type DType } from '../../../tensor/dtype.js';
import type { Program, ScalarType } from '../../../tensor/expr.js';
import { contiguousStrides, sizeOf } from '../../../tensor/shape.js';
import type { Primitives, View } from '../../backend.js';
import { load, ModuleBuilder, op, type FunctionBuilder, type Local, type Value } from './emit/assembler.js';
import { mergedAxes, type Axis } from '../../iteration.js';
import { isShared, KernelCache, type Kernel, type WasmContext } from './context.js';
import { emittable, emitRow, isCostly, type Stream } from './emit/emitMap.js';
import { bestInner, cutAxes, emitLoops, loopWords, spacingOf, writeLoops } from './emit/iteration.js';
import { hold, LaneMath, splatInt } from './emit/lanes.js';

const storage: Readonly<Record<ScalarType, DType>> = { f: 'f32', i: 'i32', u: 'i32', b: 'bool' };

/** Whether program and views agree on types that have 32-bit lanes. */
export function lanesFit(program: Program, inputs: readonly View[], outputs: readonly View[]): boolean {
  if (!emittable(program)) return false;
  for (const e of program.order) if (e.op === 'arg' && inputs[e.value].dtype !== storage[e.type]) return false;
  return outputs.every((view, j) => view.dtype === storage[program.outputs[j].type]);
}

export const usesIndex = (program: Program): boolean => program.order.some(e => e.op === 'index');

export const byteSteps = (view: View): number[] => view.strides.map(s => s * bytesPerElement[view.dtype]);

/** Uniforms as words: floats by their bits. */
export function writeUniforms(
  buffer: ArrayBufferLike,
  byteOffset: number,
  program: Program,
  uniforms: readonly number[],
): void {
  const words = new Int32Array(buffer, byteOffset, program.uniformTypes.length);
  const floats = new Float32Array(buffer, byteOffset, program.uniformTypes.length);
  program.uniformTypes.forEach((type, i) => {
    if (type === 'f') floats[i] = uniforms[i];
    else words[i] = uniforms[i];
  });
}

/** Splats of the uniforms at `address + byteOffset`. */
export function loadUniforms(f: FunctionBuilder, program: Program, address: Local, byteOffset: number): Value[] {
  return program.uniformTypes.map((type, i) => {
    const value = load('v128.load32_splat', address, byteOffset + 4 * i);
    return hold(f, type === 'b' ? op('i32x4.ne', value, splatInt(0)) : value);
  });
}

/** About how long an element takes, in multiply-adds (see Threads.parts). */
export const workOf = (program: Program): number => program.order.reduce((sum, e) => sum + (isCostly(e) ? 20 : 1), 4);

/** Address words at the start of the descriptor, before those of the operands. */
const headWords = 2;

function compile(
  program: Program,
  operands: number,
  inputs: number,
  indexed: boolean,
  inner: Axis,
  context: WasmContext,
): Kernel {
  const m = new ModuleBuilder({ memory: { shared: isShared(context.memory) } });
  const f = m.function('run', { params: ['i32'], results: [] });
  const [descriptor] = f.params;
  const math = new LaneMath(f, context.relaxed);
  const word = (i: number): Local => {
    const local = f.local('i32');
    f.set(local, load('i32.load', descriptor, 4 * i));
    return local;
  };
  const count = word(0);
  const end = word(1);
  const bases = Array.from({ length: operands }, (_, k) => word(headWords + k));
  const steps = Array.from({ length: operands }, (_, k) => word(headWords + operands + k));
  const uniformsAt = headWords + 2 * operands;
  const uniforms = loadUniforms(f, program, descriptor, 4 * uniformsAt);
  const start = f.local('i32');
  f.set(start, op('i32.add', descriptor, 4 * (uniformsAt + uniforms.length)));
  const pointers = f.localArray('i32', operands);
  const streams = pointers.map((pointer, k): Stream => ({
    pointer,
    spacing: spacingOf(inner.steps[k]),
    step: steps[k],
  }));
  const last = inputs + program.outputs.length;
  emitLoops(f, start, end, bases, () => {
    bases.forEach((base, k) => f.set(pointers[k], base));
    emitRow(math, {
      count,
      uniforms,
      inputs: streams.slice(0, inputs),
      outputs: program.outputs.map((value, j) => ({ stream: streams[inputs + j], value })),
      index: indexed ? { pointer: pointers[last], step: steps[last] } : undefined,
    });
  });
  return context.threads.link(m.bytes()).run;
}

/** A row without length still has to be spaced somehow: dense is what most kernels are compiled for. */
const nowhere = (operands: number): Axis => ({ size: 1, reduced: false, steps: new Array<number>(operands).fill(4) });

export function createMap(context: WasmContext): (call: Primitives['map']) => boolean {
  const cache = new KernelCache();
  return ({ program, shape, inputs, outputs, uniforms }) => {
    if (!lanesFit(program, inputs, outputs)) return false;
    const size = sizeOf(shape);
    if (size === 0) return true;
    if (size > 0x7fffffff) return false;
    const indexed = usesIndex(program);
    const steps = [...inputs, ...outputs].map(byteSteps);
    if (indexed) steps.push(contiguousStrides(shape));
    const operands = steps.length;
    const axes = mergedAxes(shape, steps);
    const inner =
      axes.length > 0 ? axes.splice(bestInner(axes, inputs.length + outputs.length), 1)[0] : nowhere(operands);
    const pattern = inner.steps
      .slice(0, inputs.length + outputs.length)
      .map(spacingOf)
      .join();
    const kernel = cache.get(program, pattern, () =>
      compile(program, operands, inputs.length, indexed, inner, context),
    );

    const uniformsAt = headWords + 2 * operands;
    const loopsAt = uniformsAt + program.uniformTypes.length;
    const length = loopsAt + axes.length * loopWords(operands);
    const { threads, memory } = context;
    const parts = cutAxes([...axes, inner], threads.parts(size * workOf(program)));
    const descriptors = context.scratch(4 * length * parts.length);
    const bases = [...inputs, ...outputs].map(context.byteOffsetOf);
    threads.run(
      kernel,
      parts.map((part, i) => {
        const descriptor = descriptors + 4 * length * i;
        const words = new Int32Array(memory.buffer, descriptor, length);
        words[0] = part.axes[axes.length].size;
        words[1] = descriptor + 4 * writeLoops(words, loopsAt, part.axes.slice(0, -1), operands);
        for (let k = 0; k < operands; k++) {
          words[headWords + k] = (k < bases.length ? bases[k] : 0) + part.start[k];
          words[headWords + operands + k] = inner.steps[k];
        }
        writeUniforms(memory.buffer, descriptor + 4 * uniformsAt, program, uniforms);
        return [descriptor];
      }),
    );
    return true;
  };
}
