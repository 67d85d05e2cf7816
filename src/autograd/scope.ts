// Scopes: memory without dispose(). What is allocated inside a scope is freed at its end, unless it is returned, kept,
// or still needed by the backward pass of something returned. Ownership itself is kept in tensor/storage.ts.

import { enterScope, leaveScope, type ScopeFrame, type Storage } from '../tensor/storage.js';
import { Tensor } from '../tensor/tensor.js';
import { graphOf, nodeClock } from './tape.js';

/**
 * Runs `body` and frees every tensor made inside that it does not return (in arrays, objects and maps too) or `keep`.
 * Synchronous.
 */
export function scope<T>(body: () => T): T {
  const frame = enterScope();
  const start = nodeClock();
  let result: T;
  try {
    result = body();
  } catch (error) {
    leaveScope(frame, () => 'free');
    throw error;
  }
  if (result instanceof Promise || (typeof result === 'object' && result !== null && 'then' in result)) {
    leaveScope(frame, () => 'free');
    throw new Error('scope: the body returned a promise; a scope is synchronous, await outside of it');
  }
  finish(frame, start, tensorsIn(result));
  return result;
}

/** A scope for `using`: ends with the block; what leaves it must be given to `keep`. */
export function openScope(): Disposable & { keep<T extends Tensor>(tensor: T): T } {
  const frame = enterScope();
  const start = nodeClock();
  const kept: Tensor[] = [];
  return {
    keep: tensor => {
      kept.push(tensor);
      return tensor;
    },
    [Symbol.dispose]: () => finish(frame, start, kept),
  };
}

/** Takes a tensor out of every scope: it lives until it is disposed or collected. */
export function keep<T extends Tensor>(tensor: T): T {
  tensor.storage.check('keep');
  tensor.storage.moveTo(null);
  tensor.storage.orphan = false;
  return tensor;
}

function finish(frame: ScopeFrame, start: number, results: readonly Tensor[]): void {
  const returned = new Set<Storage>(results.map(t => t.storage));
  const saved = new Set<Storage>();
  // Only nodes made inside can have saved what was allocated inside.
  for (const node of graphOf(results, start)) for (const storage of node.savedStorages) saved.add(storage);
  leaveScope(frame, storage => (returned.has(storage) ? 'kept' : saved.has(storage) ? 'saved' : 'free'));
}

/** Every tensor in a value: itself, or inside arrays, maps, sets, plain objects and class instances. */
export function tensorsIn(value: unknown, found: Tensor[] = [], seen = new Set<object>()): Tensor[] {
  if (value instanceof Tensor) {
    found.push(value);
    if (value.grad) found.push(value.grad);
  } else if (typeof value === 'object' && value !== null && !ArrayBuffer.isView(value) && !seen.has(value)) {
    seen.add(value);
    if (value instanceof Map) for (const [k, v] of value) tensorsIn([k, v], found, seen);
    else if (Array.isArray(value) || value instanceof Set) for (const v of value) tensorsIn(v, found, seen);
    else for (const v of Object.values(value)) tensorsIn(v, found, seen);
  }
  return found;
}
