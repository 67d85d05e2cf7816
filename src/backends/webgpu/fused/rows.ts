// The fused kernels that go row by row or pair by pair: softmax, norms, cross-entropy, rotary embeddings. Only wiring
// here.

import type { FusedKernel } from '../../backend.js';
import type { KernelContext } from '../context.js';
import { createMap } from '../map.js';
import { crossEntropy, crossEntropyVjp } from './crossEntropy.js';
import { layerNorm, layerNormVjp, rmsNorm, rmsNormVjp } from './norms.js';
import { ropeKernel } from './rope.js';
import { rowKernel } from './rowKernels.js';
import { softmax, softmaxVjp } from './softmax.js';

export function registerRows(fused: Map<string, FusedKernel>, context: KernelContext): void {
  for (const kernel of [
    softmax,
    softmaxVjp,
    rmsNorm,
    rmsNormVjp,
    layerNorm,
    layerNormVjp,
    crossEntropy,
    crossEntropyVjp,
  ]) {
    fused.set(kernel.name, rowKernel(context, kernel));
  }
  fused.set('rope', ropeKernel(createMap(context), context.settings.bindingBytes));
}
