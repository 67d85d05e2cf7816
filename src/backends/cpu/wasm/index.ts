// The SIMD kernels behind the CPU backend: every kernel may decline a call by returning false before writing anything
// (f64, an unusual layout), and the reference kernel then runs. Only wiring here.

import { packedMatrix } from '../../../tensor/packing.js';
import { epilogueMap, type Epilogue, type FusedKernel, type Primitives, type View } from '../../backend.js';
import { supportsRelaxedSimd } from './emit/assembler.js';
import type { WasmContext } from './context.js';
import { createCopy } from './copy.js';
import { registerFused } from './fused/index.js';
import { createGatherScatter } from './gatherScatter.js';
import { createGemm, type WasmView } from './products/gemm.js';
import { createMap, lanesFit, usesIndex } from './map.js';
import { createPacked } from './products/packed.js';
import { createReduce } from './reduce.js';

export type { WasmContext } from './context.js';

export type WasmKernels = { [K in keyof Primitives]: (call: Primitives[K]) => boolean } & {
  readonly fused: Map<string, FusedKernel>;
};

/** Whether an epilogue has a form that products apply while their elements are near: matrices with dense rows. */
function finishesNear({ b, output }: Primitives['matmul'], { program, operands }: Epilogue): boolean {
  const [rank, last] = [output.shape.length, output.shape.length - 1];
  const dense = (view: View): boolean => view.dtype === 'f32' && (view.strides[last] === 1 || view.shape[last] === 1);
  const transposed = !b.packing || packedMatrix(b).transposed;
  return (
    rank === 2 &&
    transposed &&
    lanesFit(program, [output, ...operands], [output]) &&
    !usesIndex(program) &&
    [output, ...operands].every(dense)
  );
}

/** Kernels over `memory`. With `relaxed`, multiply-adds are fused where the engine can. */
export function createWasmKernels(wanted: WasmContext): WasmKernels {
  const context: WasmContext = { ...wanted, relaxed: wanted.relaxed && supportsRelaxedSimd() };
  const map = createMap(context);
  const gemm = createGemm(context.memory, context.panels, { relaxed: context.relaxed, threads: context.threads });
  const at = (view: View): WasmView => ({
    byteOffset: context.byteOffsetOf(view),
    shape: view.shape,
    strides: view.strides,
  });
  const packed = createPacked(context, gemm);
  const matmul = (call: Primitives['matmul']): boolean => {
    const { a, b, output, epilogue } = call;
    if (output.dtype !== 'f32') return false;
    const views = { a: at(a), b: at(b), output: at(output) };
    const near = epilogue &&
      finishesNear(call, epilogue) && { program: epilogue.program, operands: epilogue.operands.map(at) };
    const done = b.packing
      ? packed.matmul(call, near || undefined)
      : gemm.matmul({ ...views, ...(near && { epilogue: near }) });
    return !epilogue || near ? done : map(epilogueMap({ output, epilogue }));
  };
  const { gather, scatterAdd } = createGatherScatter(context);
  const { copy } = createCopy(context.memory, context.threads);
  const fused = new Map<string, FusedKernel>();
  registerFused(fused, context, gemm);
  return {
    map,
    matmul,
    fused,
    reduce: createReduce(context, map),
    scatterAdd,
    gather: call => (call.input.packing ? packed.gather(call) : gather(call)),
    unpack: packed.unpack,
    copy: ({ input, output }) => output.dtype !== 'f64' && copy({ input: at(input), output: at(output) }),
  };
}
