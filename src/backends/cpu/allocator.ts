// Hands out blocks of one growing WebAssembly memory: size classes (eight to an octave) with free lists, neighbours
// merged only when the memory would otherwise have to grow past its limit. No tensors here, only offsets and bytes.

import { OutOfMemoryError, type MemoryStats } from '../backend.js';
import { sizeClass } from '../sizeClass.js';

const pageBytes = 65536;
const alignment = 64;

export interface Block {
  readonly byteOffset: number;
  /** What was asked for. */
  readonly byteLength: number;
  /** What the block really holds. */
  readonly capacity: number;
}

export class Allocator {
  readonly memory: WebAssembly.Memory;
  readonly limitBytes: number;
  private readonly free = new Map<number, number[]>(); // capacity -> offsets
  private top: number;
  private liveBytes = 0;
  private freeBytes = 0;
  private peakBytes = 0;
  private liveCount = 0;

  constructor(memory: WebAssembly.Memory, firstByte: number, limitBytes: number) {
    this.memory = memory;
    this.top = Math.ceil(firstByte / alignment) * alignment;
    this.limitBytes = limitBytes;
  }

  allocate(byteLength: number): Block {
    const capacity = sizeClass(byteLength);
    const offset = this.reuse(capacity) ?? this.extend(capacity) ?? this.reuseMerged(capacity);
    if (offset === undefined) {
      throw new OutOfMemoryError(
        `out of memory: ${byteLength} bytes asked for, ${this.liveBytes} in use, limit ${this.limitBytes}`,
        byteLength,
      );
    }
    this.liveBytes += capacity;
    this.liveCount++;
    this.peakBytes = Math.max(this.peakBytes, this.liveBytes + this.freeBytes);
    return { byteOffset: offset, byteLength, capacity };
  }

  release(block: Block): void {
    this.liveBytes -= block.capacity;
    this.liveCount--;
    this.put(block.byteOffset, block.capacity);
  }

  stats(): MemoryStats {
    return {
      liveBytes: this.liveBytes,
      pooledBytes: this.freeBytes,
      peakBytes: this.peakBytes,
      liveAllocations: this.liveCount,
      limitBytes: this.limitBytes,
    };
  }

  private put(offset: number, capacity: number): void {
    const list = this.free.get(capacity);
    if (list) list.push(offset);
    else this.free.set(capacity, [offset]);
    this.freeBytes += capacity;
  }

  /** A block of this class, or one at most twice as large, whose rest goes back. */
  private reuse(capacity: number, most = 2 * capacity): number | undefined {
    let best = Infinity;
    if (this.free.get(capacity)?.length) best = capacity;
    else
      for (const [size, list] of this.free)
        if (list.length > 0 && size >= capacity && size <= most && size < best) best = size;
    const offset = this.free.get(best)?.pop();
    if (offset === undefined) return undefined;
    this.freeBytes -= best;
    if (best > capacity) this.put(offset + capacity, best - capacity);
    return offset;
  }

  private extend(capacity: number): number | undefined {
    const end = this.top + capacity;
    if (end > this.limitBytes) return undefined;
    const have = this.memory.buffer.byteLength;
    if (end > have) {
      // Grow by at least an eighth, so that many small blocks do not mean many small steps.
      const want = Math.min(this.limitBytes, Math.max(end, have + Math.floor(have / 8)));
      try {
        this.memory.grow(Math.ceil((want - have) / pageBytes));
      } catch {
        try {
          this.memory.grow(Math.ceil((end - have) / pageBytes));
        } catch {
          return undefined;
        }
      }
    }
    const offset = this.top;
    this.top = end;
    return offset;
  }

  /** Merges free neighbours, gives the last one back to the top, and tries again. */
  private reuseMerged(capacity: number): number | undefined {
    const blocks: { offset: number; size: number }[] = [];
    for (const [size, list] of this.free) for (const offset of list) blocks.push({ offset, size });
    blocks.sort((a, b) => a.offset - b.offset);
    this.free.clear();
    this.freeBytes = 0;
    let run: { offset: number; size: number } | undefined;
    for (const block of blocks) {
      if (run && run.offset + run.size === block.offset) run.size += block.size;
      else {
        if (run) this.put(run.offset, run.size);
        run = { ...block };
      }
    }
    if (run) {
      if (run.offset + run.size === this.top) this.top = run.offset;
      else this.put(run.offset, run.size);
    }
    return this.reuse(capacity, Infinity) ?? this.extend(capacity);
  }
}
