// The SIMD kernels behind the CPU backend: every kernel may decline a call by returning false before writing anything (f64, an unusual
// layout), and the reference kernel then runs. Only wiring here.

import type { FusedKernel, Primitives, View } from '../../backend.js';
import { supportsRelaxedSimd } from './assembler.js';
import type { WasmContext } from './context.js';
import { createCopy } from './copy.js';
import { registerFused } from './fused/index.js';
import { createGatherScatter } from './gatherScatter.js';
import { createGemm, type WasmView } from './gemm.js';
import { createMap } from './map.js';
import { createPacked } from './packed.js';
import { createReduce } from './reduce.js';

export type { WasmContext } from './context.js';

export type WasmKernels = { [K in keyof Primitives]: (call: Primitives[K]) => boolean } & { readonly fused: Map<string, FusedKernel> };

/** Kernels over `memory`. With `relaxed`, multiply-adds are fused where the engine can. */
export function createWasmKernels(wanted: WasmContext): WasmKernels {
  const context: WasmContext = { ...wanted, relaxed: wanted.relaxed && supportsRelaxedSimd() };
  const map = createMap(context);
  const gemm = createGemm(context.memory, context.panels, { relaxed: context.relaxed, threads: context.threads });
  const at = (view: View): WasmView => ({ byteOffset: context.byteOffsetOf(view), shape: view.shape, strides: view.strides });
  const packed = createPacked(context, gemm);
  const matmul = (call: Primitives['matmul']): boolean => {
    const { a, b, output } = call;
    if (output.dtype !== 'f32') return false;
    return b.packing ? packed.matmul(call) : gemm.matmul({ a: at(a), b: at(b), output: at(output) });
  };
  const { gather, scatterAdd } = createGatherScatter(context);
  const { copy } = createCopy(context.memory, context.threads);
  const fused = new Map<string, FusedKernel>();
  registerFused(fused, context, gemm);
  return {
    map, matmul, fused, reduce: createReduce(context, map), scatterAdd,
    gather: call => (call.input.packing ? packed.gather(call) : gather(call)), unpack: packed.unpack,
    copy: ({ input, output }) => output.dtype !== 'f64' && copy({ input: at(input), output: at(output) }),
  };
}
