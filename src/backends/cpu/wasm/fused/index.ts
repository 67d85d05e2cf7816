// The fused kernels of the CPU, by the name of their op (or name.vjp). All take f32; anything else, and layouts a
// kernel was not written for, they decline before writing. Only wiring here.

import type { FusedKernel } from '../../../backend.js';
import { ModuleBuilder, type WasmFunction } from '../emit/assembler.js';
import { isShared, type WasmContext } from '../context.js';
import type { Gemm } from '../products/gemm.js';
import { addForward, attentionKernels } from './attention.js';
import { addAttentionVjp } from './attentionVjp.js';
import { editKernels } from './edit.js';
import { addNorms, normKernels } from './norms.js';
import { addRope, ropeKernels } from './rope.js';
import { addScans, scanKernels } from './scans.js';
import { addSelectiveScan, selectiveScanKernels } from './selectiveScan.js';
import { smallMatrixKernels } from './smallMatrices.js';
import { addSoftmax, softmaxKernels } from './softmax.js';

/** Exported functions by name, compiled when first asked for. */
export type Code = () => Readonly<Record<string, WasmFunction>>;

export function registerFused(map: Map<string, FusedKernel>, context: WasmContext, gemm: Gemm): void {
  const lazily = (build: (m: ModuleBuilder, context: WasmContext) => void): Code => {
    let code: ReturnType<Code> | undefined;
    return () => {
      if (!code) {
        const m = new ModuleBuilder({ memory: { shared: isShared(context.memory) } });
        build(m, context);
        code = context.threads.link(m.bytes());
      }
      return code;
    };
  };
  const kernels = [
    ...softmaxKernels(lazily(addSoftmax), context),
    ...normKernels(lazily(addNorms), context),
    ...ropeKernels(lazily(addRope), context),
    ...scanKernels(lazily(addScans), context),
    ...selectiveScanKernels(lazily(addSelectiveScan), context),
    ...editKernels(context, gemm),
    ...smallMatrixKernels(context),
    ...attentionKernels(lazily(addForward), lazily(addAttentionVjp), context),
  ];
  for (const [name, kernel] of kernels) map.set(name, kernel);
}
