// Public face of the backends: `reft/backends`.

export {
  OutOfMemoryError,
  type Allocation,
  type Attributes,
  type Backend,
  type FusedKernel,
  type Kernels,
  type MemoryStats,
  type Primitives,
  type View,
} from './backend.js';
export { createCpuBackend, type CpuBackend, type CpuOptions } from './cpu/cpu.js';
export { createWebGpuBackend, WebGPUError, type WebGpuBackend, type WebGpuOptions } from './webgpu/index.js';
