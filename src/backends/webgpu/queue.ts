// Recording: many dispatches in one command buffer, parameters of all of them in one uniform write before it. Also host
// writes, reads, and the errors that come late. No kernel is written here.
// A write of the queue runs before everything not yet submitted; so the parameters of a batch may be written just
// before it is submitted, over those of the batch before, and a host write to a buffer that the open batch uses must
// wait for it to be submitted.

import type { TypedArray } from '../../tensor/dtype.js';
import { WebGPUError, type WebGPUErrorKind } from './errors.js';
import { declareParams } from './params.js';
import { usage, type Block, type PoolBuffer } from './pool.js';

export interface Counters {
  dispatches: number;
  submits: number;
  /** Pipelines compiled. */
  pipelines: number;
  bindGroups: number;
  /** Buffers created, pooled ones not counted again. */
  buffers: number;
  /** Times the host asked for results. */
  reads: number;
}

export interface Binding {
  readonly buffer: PoolBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
  readonly write: boolean;
}

export interface Pipeline {
  readonly gpu: GPUComputePipeline;
  readonly label: string;
  readonly layout: Layout;
}

interface Layout {
  readonly key: string;
  readonly bindGroup: GPUBindGroupLayout;
  readonly pipeline: GPUPipelineLayout;
  readonly paramBytes: number;
}

export interface Dispatch {
  readonly pipeline: Pipeline;
  readonly bindings: readonly Binding[];
  readonly params: readonly number[];
  readonly groups: readonly [number, number, number];
  /**
   * Integers for this call alone, bound read-only after `bindings`; the word `at` of the parameters becomes their first
   * element's number.
   */
  readonly upload?: { readonly data: Int32Array; readonly at: number };
}

const slotBytes = 256;
const uniformBytes = 256 * 1024;

export class Queue {
  readonly device: GPUDevice;
  readonly counters: Counters = { dispatches: 0, submits: 0, pipelines: 0, bindGroups: 0, buffers: 0, reads: 0 };
  /** Dispatches recorded before a batch is submitted of itself. */
  readonly batchSize: number;
  private encoder: GPUCommandEncoder | null = null;
  private pass: GPUComputePassEncoder | null = null;
  private boundPipeline: Pipeline | null = null;
  private batch = 1;
  private readonly batchOps = new Set<string>();
  private batchDispatches = 0;
  private lastOp = 'webgpu';
  private readonly pipelines = new Map<string, Pipeline>();
  private readonly layouts = new Map<string, Layout>();
  private readonly groups = new Map<string, GPUBindGroup>();
  private readonly staging = new Uint32Array(uniformBytes / 4);
  private uniformAt = 0;
  private readonly uniforms: PoolBuffer;
  private uploads: PoolBuffer;
  private uploadStaging: Int32Array<ArrayBuffer>;
  private uploadAt = 0;
  private readonly readBuffers: GPUBuffer[] = [];
  private nextBuffer = 1;
  /** What went wrong and was not thrown yet. */
  private failure: WebGPUError | null = null;
  private gone: WebGPUError | null = null;
  private readonly scopes = new Set<Promise<void>>();
  private readonly waiting = new Set<(error: WebGPUError) => void>();

  constructor(device: GPUDevice, batchSize: number) {
    this.device = device;
    this.batchSize = batchSize;
    this.uniforms = this.buffer(uniformBytes, usage.uniform | usage.copyTarget, 'parameters');
    this.uploadStaging = new Int32Array(16384);
    this.uploads = this.buffer(this.uploadStaging.byteLength, usage.storage | usage.copyTarget, 'uploads');
    // A device whose scopes were all passed reports here.
    device.addEventListener('uncapturederror', event => {
      (event as Event).preventDefault?.();
      this.fail(kindOf(event.error), this.lastOp, event.error.message);
    });
    void device.lost.then(info => this.end('lost', `the device was lost (${info.reason}): ${info.message}`));
  }

  // Buffers

  buffer(byteLength: number, flags: number, label: string): PoolBuffer {
    this.counters.buffers++;
    const gpu = this.scoped(label, () => this.device.createBuffer({ size: byteLength, usage: flags, label }));
    return { gpu, id: this.nextBuffer++, byteLength, lastBatch: 0 };
  }

  storageBuffer(byteLength: number): PoolBuffer {
    return this.buffer(
      byteLength,
      usage.storage | usage.copySource | usage.copyTarget,
      `storage of ${byteLength} bytes`,
    );
  }

  /** Gives a buffer back to the device, once what was recorded with it is submitted. */
  destroy(buffer: PoolBuffer): void {
    if (buffer.lastBatch === this.batch) this.submit();
    this.groups.clear();
    buffer.gpu.destroy();
  }

  write({ buffer }: Block, byteOffset: number, data: TypedArray): void {
    this.check();
    if (data.byteLength === 0) return;
    if (buffer.lastBatch === this.batch) this.submit();
    this.device.queue.writeBuffer(buffer.gpu, byteOffset, data as TypedArray & ArrayBufferView<ArrayBuffer>);
  }

  async read({ buffer }: Block, byteOffset: number, byteLength: number): Promise<ArrayBuffer> {
    this.check();
    this.counters.reads++;
    const op = `read after ${this.lastOp}`;
    if (byteLength === 0) {
      await this.settle();
      return new ArrayBuffer(0);
    }
    const at = this.readBuffers.findIndex(b => b.size >= byteLength && b.size <= 4 * byteLength + 4096);
    const target =
      at >= 0
        ? this.readBuffers.splice(at, 1)[0]
        : this.buffer(Math.max(1024, 2 ** Math.ceil(Math.log2(byteLength))), usage.mapRead | usage.copyTarget, 'read')
            .gpu;
    const encoder = this.openEncoder();
    this.closePass();
    encoder.copyBufferToBuffer(buffer.gpu, byteOffset, target, 0, byteLength);
    buffer.lastBatch = this.batch;
    this.submit();
    try {
      await this.wait(op, target.mapAsync(1, 0, byteLength));
      await this.settle();
      const result = target.getMappedRange(0, byteLength).slice(0);
      target.unmap();
      if (this.readBuffers.length < 4) this.readBuffers.push(target);
      else target.destroy();
      return result;
    } catch (error) {
      target.destroy();
      throw error;
    }
  }

  /** Resolves when everything recorded is done. */
  async flush(): Promise<void> {
    this.check();
    this.submit();
    await this.wait(`flush after ${this.lastOp}`, this.device.queue.onSubmittedWorkDone());
    await this.settle();
  }

  // Kernels

  /**
   * The pipeline of a structure, compiled the first time. `source` gets the text; `access` says of each binding whether
   * it is written.
   */
  pipeline(label: string, key: string, access: readonly boolean[], words: number, source: () => string): Pipeline {
    const name = `${label}|${key}|${access.map(w => (w ? 'w' : 'r')).join('')}|${words}`;
    const found = this.pipelines.get(name);
    if (found) return found;
    this.check();
    this.counters.pipelines++;
    const layout = this.layout(access, words);
    const code = `${declareParams(words)}\n${source()}`;
    const gpu = this.scoped(label, () =>
      this.device.createComputePipeline({
        label,
        layout: layout.pipeline,
        compute: { module: this.device.createShaderModule({ label, code }), entryPoint: 'main' },
      }),
    );
    const made = { gpu, label, layout };
    this.pipelines.set(name, made);
    return made;
  }

  dispatch({ pipeline, bindings, params, groups, upload }: Dispatch): void {
    this.check();
    const { layout, label } = pipeline;
    const full = this.uniformAt + layout.paramBytes > uniformBytes || this.batchDispatches >= this.batchSize;
    if (full || (upload && this.uploadAt + upload.data.length > this.uploadStaging.length)) this.submit();
    if (upload && upload.data.length > this.uploadStaging.length) this.growUploads(upload.data.length);
    this.openEncoder();
    this.pass ??= (this.encoder as GPUCommandEncoder).beginComputePass();
    this.staging.set(params, this.uniformAt / 4);
    let all = bindings;
    if (upload) {
      this.staging[this.uniformAt / 4 + upload.at] = this.uploadAt;
      this.uploadStaging.set(upload.data, this.uploadAt);
      this.uploadAt += upload.data.length;
      all = [...bindings, { buffer: this.uploads, byteOffset: 0, byteLength: this.uploads.byteLength, write: false }];
    }
    if (this.boundPipeline !== pipeline) this.pass.setPipeline(pipeline.gpu);
    this.boundPipeline = pipeline;
    this.pass.setBindGroup(0, this.group(layout, all), [this.uniformAt]);
    this.pass.dispatchWorkgroups(...groups);
    this.uniformAt += layout.paramBytes;
    for (const { buffer } of bindings) buffer.lastBatch = this.batch;
    this.batchOps.add(label);
    this.lastOp = label;
    this.batchDispatches++;
    this.counters.dispatches++;
  }

  submit(): void {
    const { encoder, device } = this;
    if (!encoder) return;
    this.closePass();
    if (this.uniformAt > 0) device.queue.writeBuffer(this.uniforms.gpu, 0, this.staging, 0, this.uniformAt / 4);
    if (this.uploadAt > 0) device.queue.writeBuffer(this.uploads.gpu, 0, this.uploadStaging, 0, this.uploadAt);
    device.queue.submit([encoder.finish()]);
    this.encoder = null;
    this.popScope([...this.batchOps].join(', ') || 'read');
    this.batchOps.clear();
    this.uniformAt = this.uploadAt = this.batchDispatches = 0;
    this.batch++;
    this.counters.submits++;
  }

  // Errors

  /** Throws when the device is gone. */
  check(): void {
    if (this.gone) throw this.gone;
  }

  /** After this nothing works any more, and whatever waits is told. */
  end(kind: WebGPUErrorKind, message: string): void {
    if (this.gone) return;
    this.gone = new WebGPUError(kind, this.lastOp, message);
    this.encoder = this.pass = null;
    for (const reject of this.waiting) reject(this.gone);
    this.waiting.clear();
  }

  private fail(kind: WebGPUErrorKind, op: string, message: string): void {
    this.failure ??= new WebGPUError(kind, op, message);
  }

  /** Waits for the reports of what was submitted, and throws the first failure. */
  private async settle(): Promise<void> {
    await this.wait(this.lastOp, Promise.all(this.scopes));
    this.check();
    const { failure } = this;
    this.failure = null;
    if (failure) throw failure;
  }

  /** `work`, cut short when the device goes away. */
  private wait<T>(op: string, work: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.waiting.add(reject);
      const done = (): boolean => this.waiting.delete(reject);
      work.then(
        value => {
          done();
          resolve(value);
        },
        (error: Error) => {
          // A lost device rejects its promises before it says that it is lost; and a bad buffer is explained by its
          // scope.
          void Promise.all(this.scopes)
            .catch(() => undefined)
            .then(() =>
              setTimeout(() => {
                done();
                reject(this.gone ?? this.takeFailure() ?? new WebGPUError('internal', op, error.message));
              }, 20),
            );
        },
      );
    });
  }

  private takeFailure(): WebGPUError | null {
    const { failure } = this;
    this.failure = null;
    return failure;
  }

  private scoped<T>(op: string, body: () => T): T {
    this.pushScope();
    try {
      return body();
    } finally {
      this.popScope(op);
    }
  }

  private pushScope(): void {
    this.device.pushErrorScope('out-of-memory');
    this.device.pushErrorScope('validation');
  }

  private popScope(op: string): void {
    for (let i = 0; i < 2; i++) {
      const report: Promise<void> = this.device
        .popErrorScope()
        .then(
          error => void (error && this.fail(kindOf(error), op, error.message)),
          () => undefined,
        )
        .finally(() => this.scopes.delete(report));
      this.scopes.add(report);
    }
  }

  // Parts of recording

  private openEncoder(): GPUCommandEncoder {
    if (!this.encoder) {
      this.pushScope();
      this.encoder = this.device.createCommandEncoder();
    }
    return this.encoder;
  }

  private closePass(): void {
    this.pass?.end();
    this.pass = this.boundPipeline = null;
  }

  private growUploads(length: number): void {
    this.destroy(this.uploads);
    this.uploadStaging = new Int32Array(2 ** Math.ceil(Math.log2(length)));
    this.uploads = this.buffer(this.uploadStaging.byteLength, usage.storage | usage.copyTarget, 'uploads');
  }

  private layout(access: readonly boolean[], words: number): Layout {
    const paramBytes = Math.max(1, Math.ceil((4 * words) / slotBytes)) * slotBytes;
    const key = `${access.map(w => (w ? 'w' : 'r')).join('')}${paramBytes}`;
    let found = this.layouts.get(key);
    if (!found) {
      const visibility = 4; // GPUShaderStage.COMPUTE
      const bindGroup = this.device.createBindGroupLayout({
        entries: [
          { binding: 0, visibility, buffer: { type: 'uniform', hasDynamicOffset: true } },
          ...access.map((w, i) => ({
            binding: i + 1,
            visibility,
            buffer: { type: w ? ('storage' as const) : ('read-only-storage' as const) },
          })),
        ],
      });
      found = {
        key,
        bindGroup,
        pipeline: this.device.createPipelineLayout({ bindGroupLayouts: [bindGroup] }),
        paramBytes,
      };
      this.layouts.set(key, found);
    }
    return found;
  }

  private group(layout: Layout, bindings: readonly Binding[]): GPUBindGroup {
    let key = layout.key;
    for (const b of bindings) key += `,${b.buffer.id}:${b.byteOffset}:${b.byteLength}`;
    let found = this.groups.get(key);
    if (!found) {
      if (this.groups.size >= 8192) this.groups.clear();
      this.counters.bindGroups++;
      found = this.device.createBindGroup({
        layout: layout.bindGroup,
        entries: [
          { binding: 0, resource: { buffer: this.uniforms.gpu, offset: 0, size: layout.paramBytes } },
          ...bindings.map((b, i) => ({
            binding: i + 1,
            resource: { buffer: b.buffer.gpu, offset: b.byteOffset, size: b.byteLength },
          })),
        ],
      });
      this.groups.set(key, found);
    }
    return found;
  }
}

function kindOf(error: GPUError): WebGPUErrorKind {
  const name = error.constructor.name;
  return name === 'GPUOutOfMemoryError' ? 'out-of-memory' : name === 'GPUInternalError' ? 'internal' : 'validation';
}
