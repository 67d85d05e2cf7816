// A block of a backend's memory as tensors see it: who owns it, which op made it, whether it is still there; and the
// scopes that give memory back without dispose(). Several tensors (views) share one storage. Nothing about shapes
// belongs here.

import type { Allocation, Backend } from '../backends/backend.js';
import { OutOfMemoryError } from '../backends/backend.js';

export class Storage {
  readonly backend: Backend;
  readonly allocation: Allocation;
  /** The op that made it, for errors and statistics. */
  readonly label: string;
  /** Counts in-place writes: what was saved for backward must not have changed since. */
  version = 0;
  /** The scope that frees it, or null when only the garbage collector does. */
  scope: ScopeFrame | null = null;
  /** How many recorded nodes still need its contents for their VJP. */
  saves = 0;
  /** Its scope has ended and only `saves` keep it: freed when the last of them goes. */
  orphan = false;
  disposed = false;
  private collected = false;

  constructor(backend: Backend, byteLength: number, label: string) {
    this.backend = backend;
    this.label = label;
    try {
      this.allocation = backend.allocate(byteLength);
    } catch (error) {
      if (error instanceof OutOfMemoryError)
        throw new OutOfMemoryError(`${error.message}, in ${label}. ${describeLargest(backend)}`, byteLength);
      throw error;
    }
    live.set(this.allocation, { backend, byteLength, label });
    this.scope = current;
    if (current) current.owned.add(this);
    else this.collect();
  }

  /**
   * Nothing frees it but the garbage collector. Not needed within a scope, and too slow for every tensor that lives for
   * a moment.
   */
  private collect(): void {
    if (this.collected) return;
    this.collected = true;
    collector.register(this, { backend: this.backend, allocation: this.allocation }, this);
  }

  /** Throws when the memory is gone. */
  check(op: string): void {
    if (this.disposed) {
      throw new Error(
        `${op}: this tensor, made by ${this.label}, was used after its scope ended; return it from the scope or keep() it`,
      );
    }
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.scope?.owned.delete(this);
    this.scope = null;
    if (this.collected) collector.unregister(this);
    release(this.backend, this.allocation);
  }

  moveTo(scope: ScopeFrame | null): void {
    this.scope?.owned.delete(this);
    this.scope = scope;
    if (scope) scope.owned.add(this);
    else this.collect();
  }
}

/** What is allocated, by allocation: for the report when memory runs out. */
const live = new Map<Allocation, { backend: Backend; byteLength: number; label: string }>();

function release(backend: Backend, allocation: Allocation): void {
  if (live.delete(allocation)) backend.free(allocation);
}

// The net under scopes, never the plan: it does not run inside synchronous loops.
const collector = new FinalizationRegistry<{ backend: Backend; allocation: Allocation }>(({ backend, allocation }) =>
  release(backend, allocation),
);

/** Drops the books of a closed backend, whose memory is gone as a whole. */
export function forgetBackend(backend: Backend): void {
  for (const [allocation, entry] of live) if (entry.backend === backend) live.delete(allocation);
}

/** The five ops that hold most memory on a backend, as a sentence. */
export function describeLargest(backend: Backend): string {
  const byLabel = new Map<string, { bytes: number; count: number }>();
  for (const entry of live.values()) {
    if (entry.backend !== backend) continue;
    const sum = byLabel.get(entry.label) ?? { bytes: 0, count: 0 };
    byLabel.set(entry.label, { bytes: sum.bytes + entry.byteLength, count: sum.count + 1 });
  }
  const rows = [...byLabel].sort((a, b) => b[1].bytes - a[1].bytes).slice(0, 5);
  if (rows.length === 0) return 'Nothing else is allocated.';
  return `Largest live tensors by op: ${rows.map(([label, { bytes, count }]) => `${label} ${(bytes / 2 ** 20).toFixed(1)} MiB in ${count}`).join(', ')}.`;
}

export interface ScopeFrame {
  readonly parent: ScopeFrame | null;
  readonly owned: Set<Storage>;
}

let current: ScopeFrame | null = null;
let lenient = 0;

/** The innermost scope that has begun. */
export const currentScope = (): ScopeFrame | null => current;

export function enterScope(): ScopeFrame {
  current = { parent: current, owned: new Set() };
  return current;
}

/**
 * Ends `frame`: what `survives` goes to the parent (orphans only until backward is done with them), the rest is freed.
 */
export function leaveScope(frame: ScopeFrame, survives: (storage: Storage) => 'kept' | 'saved' | 'free'): void {
  if (current !== frame) throw new Error('scope: scopes must end in the reverse order of their beginning');
  current = frame.parent;
  const { owned } = frame;
  for (const storage of owned) {
    const fate = lenient > 0 ? 'kept' : survives(storage);
    if (fate === 'free') storage.dispose();
    else {
      storage.moveTo(frame.parent);
      storage.orphan = fate === 'saved';
    }
  }
}

/** While `body` runs, inner scopes free nothing: higher-order derivatives need every intermediate value. */
export function holdIntermediates<T>(body: () => T): T {
  lenient++;
  try {
    return body();
  } finally {
    lenient--;
  }
}

export function holdingIntermediates(): boolean {
  return lenient > 0;
}
