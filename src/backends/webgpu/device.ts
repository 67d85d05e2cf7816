// Opening a GPU: the browser's `navigator.gpu`, in Node the `webgpu` package (Dawn). Nothing is touched before
// `createWebGpuBackend` is called. What the kernels compute is not decided here.

import { bytesPerElement, typedArray, type DType } from '../../tensor/dtype.js';
import type { Allocation, Backend, FusedKernel } from '../backend.js';
import type { KernelContext, Settings } from './context.js';
import { WebGPUError } from './errors.js';
import { registerFused } from './fused/index.js';
import { createMap } from './map.js';
import { createMatmul } from './matmul.js';
import { checkDtype } from './operands.js';
import { BufferPool, type Block } from './pool.js';
import { Queue, type Counters } from './queue.js';
import { createReduce } from './reduce.js';
import { createRows } from './rows.js';

export interface WebGpuOptions extends Partial<Settings> {
  /** Where adapters come from, instead of `navigator.gpu` or the `webgpu` package. */
  gpu?: GPU;
  adapter?: GPURequestAdapterOptions;
  /** The device's name in the messages of the implementation. */
  label?: string;
  /** Most bytes of buffers, live and kept for reuse; a device does not say how much it has. */
  limitBytes?: number;
  /** Dispatches recorded before a batch is submitted of itself. */
  batchSize?: number;
}

/** What an adapter says of itself; names may be empty. */
export interface AdapterDescription {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  /** Computed by the CPU. */
  readonly software: boolean;
  readonly features: readonly string[];
}

export interface WebGpuBackend extends Backend {
  readonly adapter: AdapterDescription;
  readonly settings: Settings;
  /** Since the device was opened. */
  readonly counters: Readonly<Counters>;
  readonly device: GPUDevice;
}

/**
 * The GPU object of this platform.
 * @throws {WebGPUError} 'unavailable' where there is none, saying how to get one.
 */
export async function findGpu(): Promise<GPU> {
  const native = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (native) return native;
  if (typeof process === 'undefined' || !process.versions?.node) {
    throw new WebGPUError(
      'unavailable',
      'webgpu',
      'this browser (or this page, if it is not served over https or from localhost) has no navigator.gpu',
    );
  }
  // A variable keeps bundlers from looking for the package.
  const name = 'webgpu' as string;
  let dawn: { create(options: string[]): GPU };
  try {
    dawn = (await import(/* @vite-ignore */ name)) as typeof dawn;
  } catch (error) {
    throw new WebGPUError(
      'unavailable',
      'webgpu',
      `Node has no WebGPU of its own, and the package 'webgpu' (>= 0.6.2) cannot be loaded: npm install webgpu. ${(error as Error).message}`,
    );
  }
  return dawn.create([]);
}

function describe(adapter: GPUAdapter): AdapterDescription {
  const { vendor, architecture, device, description } = adapter.info;
  const fallback = (adapter.info as { isFallbackAdapter?: boolean }).isFallbackAdapter ?? false;
  const software =
    fallback ||
    /swiftshader|llvmpipe|lavapipe|software|basic render/i.test(`${vendor} ${architecture} ${device} ${description}`);
  return { vendor, architecture, device, description, software, features: [...adapter.features].sort() };
}

/**
 * Opens a device and its kernels. Kernels record and return; what goes wrong on the device is thrown by the next `read`
 * or `flush`.
 * @throws {WebGPUError} 'unavailable' without a GPU object, an adapter or a device.
 */
export async function createWebGpuBackend(options: WebGpuOptions = {}): Promise<WebGpuBackend> {
  // Dawn ends its adapters and devices with this object: it is kept by the backend.
  const gpu = options.gpu ?? (await findGpu());
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance', ...options.adapter });
  if (!adapter) {
    throw new WebGPUError(
      'unavailable',
      'webgpu',
      'no adapter: WebGPU finds neither a GPU with a driver (Vulkan, Metal or Direct3D 12) nor a software one (SwiftShader, named by VK_ICD_FILENAMES)',
    );
  }
  const { maxStorageBufferBindingSize, maxBufferSize } = adapter.limits;
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({
      label: options.label ?? 'reft',
      requiredLimits: { maxStorageBufferBindingSize, maxBufferSize },
    });
  } catch (error) {
    throw new WebGPUError('unavailable', 'webgpu', `the adapter gives no device: ${(error as Error).message}`);
  }
  const description = describe(adapter);
  const settings: Settings = {
    matmul: options.matmul ?? (description.software ? 'register' : 'workgroup'),
    tile: options.tile ?? 16,
    slices: Math.max(1, Math.min(options.slices ?? (description.software ? 4 : 64), 64)),
    invocations: options.invocations ?? (description.software ? 4 : 65536),
    reduce: options.reduce ?? (description.software ? 'invocation' : 'workgroup'),
    groups: Math.min(options.groups ?? (description.software ? 64 : 65535), 65535),
    bindingBytes: Math.min(options.bindingBytes ?? maxStorageBufferBindingSize, maxStorageBufferBindingSize),
    storageBuffers: Math.min(options.storageBuffers ?? 8, 8),
  };
  const queue = new Queue(device, options.batchSize ?? 128);
  const limits = { bufferBytes: maxBufferSize, totalBytes: options.limitBytes ?? Number.MAX_SAFE_INTEGER };
  const pool = new BufferPool(
    limits,
    byteLength => queue.storageBuffer(byteLength),
    buffer => queue.destroy(buffer),
  );
  const context: KernelContext = {
    queue,
    settings,
    allocate: byteLength => pool.allocate(byteLength),
    free: block => pool.release(block),
  };
  const maps = createMap(context);
  const rows = createRows(context);

  const span = (allocation: Allocation, byteOffset: number, byteLength: number): Block => {
    if (byteOffset < 0 || byteOffset + byteLength > allocation.byteLength) {
      throw new RangeError(
        `webgpu: bytes ${byteOffset}..${byteOffset + byteLength} lie outside a block of ${allocation.byteLength} bytes`,
      );
    }
    return allocation as Block;
  };

  const backend: WebGpuBackend & { readonly gpu: GPU } = {
    gpu,
    name: 'webgpu',
    adapter: description,
    settings,
    counters: queue.counters,
    device,
    kernels: {
      map: call => maps.map(call),
      reduce: createReduce(context, maps),
      matmul: createMatmul(context, maps),
      copy: call => maps.copy(call),
      gather: call => rows.gather(call),
      scatterAdd: call => rows.scatterAdd(call),
      unpack: call => rows.unpack(call),
    },
    fused: new Map<string, FusedKernel>(),
    allocate: byteLength => {
      queue.check();
      return pool.allocate(byteLength);
    },
    free: allocation => pool.release(allocation as Block),
    write: (allocation, byteOffset, data) => {
      if (data instanceof Float64Array) checkDtype('write', 'f64');
      queue.write(span(allocation, byteOffset, data.byteLength), byteOffset, data);
    },
    read: async (allocation, dtype: DType, offset, length) => {
      checkDtype('read', dtype);
      const bytes = bytesPerElement[dtype];
      const data = await queue.read(span(allocation, offset * bytes, length * bytes), offset * bytes, length * bytes);
      return typedArray(dtype, data, 0, length);
    },
    flush: () => queue.flush(),
    stats: () => pool.stats(),
    close: async () => {
      queue.end('closed', 'this backend was closed');
      device.destroy();
    },
  };
  registerFused(backend.fused, context);
  return backend;
}
