// The fused kernels of WebGPU, by the name of their op (or name.vjp). All take f32; anything else, and layouts a kernel
// was not written for, they decline before recording. Only wiring here.

import type { FusedKernel } from '../../backend.js';
import type { KernelContext } from '../context.js';
import { registerAttention } from './attention.js';
import { registerEdit } from './edit.js';
import { registerRows } from './rows.js';
import { registerScans } from './scans.js';

export function registerFused(fused: Map<string, FusedKernel>, context: KernelContext): void {
  registerAttention(fused, context);
  registerEdit(fused, context);
  registerRows(fused, context);
  registerScans(fused, context);
}
