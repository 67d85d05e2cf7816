// The device's memory as whole buffers in size classes. A freed buffer is reused at once: work runs in the order it was
// recorded, so what was recorded before still finds its data. Host writes do not wait in that order; ./queue.ts looks
// after them.

import { OutOfMemoryError, type Allocation, type MemoryStats } from '../backend.js';
import { sizeClass } from '../sizeClass.js';

/** GPUBufferUsage, which Node has no global for. */
export const usage = { mapRead: 1, copySource: 4, copyTarget: 8, uniform: 64, storage: 128 } as const;

export interface PoolBuffer {
  readonly gpu: GPUBuffer;
  readonly id: number;
  readonly byteLength: number;
  /** The number of the last batch that uses it. */
  lastBatch: number;
}

export interface Block extends Allocation {
  readonly buffer: PoolBuffer;
}

export interface PoolLimits {
  /** The largest single buffer. */
  readonly bufferBytes: number;
  /** The most that live and pooled buffers may have together. */
  readonly totalBytes: number;
}

export class BufferPool {
  readonly limits: PoolLimits;
  private readonly create: (byteLength: number) => PoolBuffer;
  private readonly destroyed: (buffer: PoolBuffer) => void;
  private readonly free = new Map<number, PoolBuffer[]>();
  private liveBytes = 0;
  private freeBytes = 0;
  private peakBytes = 0;
  private liveCount = 0;

  constructor(limits: PoolLimits, create: (byteLength: number) => PoolBuffer, destroyed: (buffer: PoolBuffer) => void) {
    this.limits = limits;
    this.create = create;
    this.destroyed = destroyed;
  }

  allocate(byteLength: number): Block {
    const size = Math.max(256, sizeClass(byteLength));
    const { bufferBytes, totalBytes } = this.limits;
    // The class may be larger than a buffer may be; what was asked for may still fit.
    const capacity = size > bufferBytes && byteLength <= bufferBytes ? bufferBytes - (bufferBytes % 4) : size;
    if (capacity > bufferBytes) {
      throw new OutOfMemoryError(
        `out of memory: ${byteLength} bytes asked for, a buffer of this device holds at most ${bufferBytes}`,
        byteLength,
      );
    }
    const buffer = this.reuse(capacity) ?? this.extend(capacity);
    if (!buffer) {
      throw new OutOfMemoryError(
        `out of memory: ${byteLength} bytes asked for, ${this.liveBytes} in use, limit ${totalBytes}`,
        byteLength,
      );
    }
    this.liveBytes += buffer.byteLength;
    this.liveCount++;
    this.peakBytes = Math.max(this.peakBytes, this.liveBytes + this.freeBytes);
    return { byteLength, buffer };
  }

  release({ buffer }: Block): void {
    this.liveBytes -= buffer.byteLength;
    this.liveCount--;
    this.freeBytes += buffer.byteLength;
    const list = this.free.get(buffer.byteLength);
    if (list) list.push(buffer);
    else this.free.set(buffer.byteLength, [buffer]);
  }

  /** Destroys what is kept for reuse. */
  trim(): void {
    for (const list of this.free.values()) for (const buffer of list) this.destroyed(buffer);
    this.free.clear();
    this.freeBytes = 0;
  }

  stats(): MemoryStats {
    return {
      liveBytes: this.liveBytes,
      pooledBytes: this.freeBytes,
      peakBytes: this.peakBytes,
      liveAllocations: this.liveCount,
      limitBytes: this.limits.totalBytes,
    };
  }

  /** A buffer of this class, or one at most a quarter larger. */
  private reuse(capacity: number): PoolBuffer | undefined {
    let best = capacity;
    if (!this.free.get(capacity)?.length) {
      best = Infinity;
      for (const [size, list] of this.free)
        if (list.length > 0 && size > capacity && size <= 1.25 * capacity && size < best) best = size;
    }
    const buffer = this.free.get(best)?.pop();
    if (buffer) this.freeBytes -= buffer.byteLength;
    return buffer;
  }

  private extend(capacity: number): PoolBuffer | undefined {
    const { totalBytes } = this.limits;
    if (this.liveBytes + this.freeBytes + capacity > totalBytes) this.trim();
    return this.liveBytes + capacity > totalBytes ? undefined : this.create(capacity);
  }
}
