// The key/value cache of one batch: keys and values of every layer for the tokens seen so far. Without gradients new
// tokens are written into room kept for them; where a gradient flows, or the cache is shared, they are joined to it and
// the cache stays as it was.

import { keep } from '../autograd/scope.js';
import { allocate, create } from '../tensor/create.js';
import { concat } from '../tensor/layout.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Kept, LayerCache } from './kept.js';

export type { LayerCache } from './kept.js';

export class KVCache implements Kept {
  /** Tokens held by every layer once a forward pass is over. */
  length = 0;
  private readonly layers: LayerCache[] = [];
  private readonly recurrent: (Tensor[] | undefined)[] = [];
  private readonly acrossLayers: (LayerCache | undefined)[] = [];
  private readonly room: number;
  /** A shared cache is only read: the prefix of a training example. */
  shared = false;

  /** `room`: tokens to keep memory for; the cache grows past it if it must. */
  constructor(room = 64) {
    this.room = room;
  }

  /** Keys and values of `layer` with the new ones [B, KV, T, D] at the end: [B, KV, length + T, D]. */
  extend(layer: number, keys: Tensor, values: Tensor): { keys: Tensor; values: Tensor } {
    const before = this.layers[layer];
    const total = this.length + keys.shape[2];
    if (this.shared || keys.needsGrad || values.needsGrad) {
      if (!before) return { keys, values };
      return {
        keys: concat([before.keys.slice(2, 0, this.length), keys], 2),
        values: concat([before.values.slice(2, 0, this.length), values], 2),
      };
    }
    const held = before && before.keys.shape[2] >= total ? before : this.grow(layer, keys, total);
    copyInto(keys, held.keys, this.length);
    copyInto(values, held.values, this.length);
    return { keys: held.keys.slice(2, 0, total), values: held.values.slice(2, 0, total) };
  }

  /**
   * Keys and values of an encoder for `layer`, computed once and kept: packed rows [M, heads, D]. Where a gradient
   * flows they are computed each time.
   */
  across(layer: number, compute: () => LayerCache): LayerCache {
    const before = this.acrossLayers[layer];
    if (before) return before;
    const made = compute();
    if (made.keys.needsGrad || made.values.needsGrad) return made;
    this.acrossLayers[layer] = { keys: keep(made.keys), values: keep(made.values) };
    return made;
  }

  states(layer: number): readonly Tensor[] | null {
    return this.recurrent[layer] ?? null;
  }

  keepStates(layer: number, states: readonly Tensor[]): void {
    if (this.shared) return;
    const before = this.recurrent[layer];
    this.recurrent[layer] = states.map(state => keep(state.mul(1)));
    for (const state of before ?? []) state.storage.dispose();
  }

  /** Called once a forward pass over all layers is over. */
  advance(tokens: number): void {
    if (!this.shared) this.length += tokens;
  }

  private grow(layer: number, like: Tensor, total: number): LayerCache {
    const before = this.layers[layer];
    const capacity = Math.max(total, this.room, before ? 2 * before.keys.shape[2] : 0);
    const make = (): Tensor =>
      keep(allocate('KV cache', [like.shape[0], like.shape[1], capacity, like.shape[3]], like.dtype, like.backend));
    const grown = { keys: make(), values: make() };
    if (before) {
      copyInto(before.keys.slice(2, 0, this.length), grown.keys, 0);
      copyInto(before.values.slice(2, 0, this.length), grown.values, 0);
      before.keys.storage.dispose();
      before.values.storage.dispose();
    }
    this.layers[layer] = grown;
    return grown;
  }

  /** A copy of the first `length` tokens at the layers from `fromLayer` on, that outlives every scope. */
  prefix(length: number, fromLayer: number): KVCache {
    const copy = new KVCache();
    copy.length = length;
    copy.shared = true;
    for (let layer = fromLayer; layer < this.layers.length; layer++) {
      const { keys, values } = this.layers[layer];
      const [B, KV, , D] = keys.shape;
      const make = (from: Tensor): Tensor => {
        const made = keep(allocate('KV cache', [B, KV, length, D], from.dtype, from.backend));
        copyInto(from.slice(2, 0, length), made, 0);
        return made;
      };
      copy.layers[layer] = { keys: make(keys), values: make(values) };
    }
    return copy;
  }

  /** What each layer holds, by its number. */
  get layersHeld(): [number, LayerCache][] {
    return this.layers.flatMap((held, layer): [number, LayerCache][] => [[layer, held]]);
  }

  /** A cache of `length` tokens, only to be read, of what layers held. It owns the tensors. */
  static holding(length: number, layers: readonly (readonly [number, LayerCache])[]): KVCache {
    const cache = new KVCache();
    cache.length = length;
    cache.shared = true;
    for (const [layer, held] of layers) cache.layers[layer] = held;
    return cache;
  }

  /**
   * Caches as the rows of one batch, with zeros on the left of the shorter ones; only to be read, owned by the scope it
   * is made in.
   */
  static joined(parts: readonly KVCache[]): KVCache {
    const joined = new KVCache();
    joined.shared = true;
    joined.length = Math.max(...parts.map(p => p.length));
    parts[0].layers.forEach(
      (
        {
          keys: {
            shape: [, KV, , D],
            dtype,
            backend,
          },
        },
        layer,
      ) => {
        const join = (of: 'keys' | 'values'): Tensor => {
          const rows = create.zeros([parts.length, KV, joined.length, D], { dtype, backend });
          parts.forEach((part, b) =>
            copyInto(part.layers[layer][of], rows.slice(0, b, b + 1), joined.length - part.length),
          );
          return rows;
        };
        joined.layers[layer] = { keys: join('keys'), values: join('values') };
      },
    );
    return joined;
  }

  dispose(): void {
    for (const layer of [...this.layers, ...this.acrossLayers]) {
      layer?.keys.storage.dispose();
      layer?.values.storage.dispose();
    }
    for (const states of this.recurrent) for (const state of states ?? []) state.storage.dispose();
    this.recurrent.length = 0;
    this.layers.length = 0;
    this.acrossLayers.length = 0;
    this.length = 0;
  }
}

/** Copies [B, KV, n, D] into positions `position`.. of axis 2 of `to`. */
export function copyInto(from: Tensor, to: Tensor, position: number): void {
  if (from.size === 0) return;
  const window = to.detach().slice(2, position, position + from.shape[2]);
  to.storage.version++;
  to.backend.kernels.copy({ input: from.view('KV cache'), output: window.view('KV cache') });
}
