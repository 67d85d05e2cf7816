// Public face of the WebGPU backend.

export {
  createWebGpuBackend,
  findGpu,
  type AdapterDescription,
  type WebGpuBackend,
  type WebGpuOptions,
} from './device.js';
export { WebGPUError, type WebGPUErrorKind } from './errors.js';
export type { Settings as WebGpuSettings } from './context.js';
export type { Counters as WebGpuCounters } from './queue.js';
