// The key/value cache of one batch: keys and values of every layer for the tokens seen so far. Without gradients new tokens are written
// into room kept for them; where a gradient flows, or the cache is shared, they are joined to it and the cache stays as it was.

import { keep } from '../autograd/scope.js';
import { allocate } from '../tensor/create.js';
import { concat } from '../tensor/layout.js';
import { Tensor } from '../tensor/tensor.js';

interface LayerCache {
  /** [B, KV, capacity, D], of which the first `length` positions hold tokens. */
  keys: Tensor;
  values: Tensor;
}

export class KVCache {
  /** Tokens held by every layer once a forward pass is over. */
  length = 0;
  private readonly layers: LayerCache[] = [];
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
    write(keys, held.keys, this.length);
    write(values, held.values, this.length);
    return { keys: held.keys.slice(2, 0, total), values: held.values.slice(2, 0, total) };
  }

  /** Called once a forward pass over all layers is over. */
  advance(tokens: number): void {
    if (!this.shared) this.length += tokens;
  }

  private grow(layer: number, like: Tensor, total: number): LayerCache {
    const before = this.layers[layer];
    const capacity = Math.max(total, this.room, before ? 2 * before.keys.shape[2] : 0);
    const make = (): Tensor => keep(allocate('KV cache', [like.shape[0], like.shape[1], capacity, like.shape[3]], like.dtype, like.backend));
    const grown = { keys: make(), values: make() };
    if (before) {
      write(before.keys.slice(2, 0, this.length), grown.keys, 0);
      write(before.values.slice(2, 0, this.length), grown.values, 0);
      before.keys.storage.dispose();
      before.values.storage.dispose();
    }
    this.layers[layer] = grown;
    return grown;
  }

  dispose(): void {
    for (const layer of this.layers) {
      layer?.keys.storage.dispose();
      layer?.values.storage.dispose();
    }
    this.layers.length = 0;
    this.length = 0;
  }
}

/** Copies `from` into positions `at`.. of axis 2 of `to`. */
function write(from: Tensor, to: Tensor, at: number): void {
  const window = to.detach().slice(2, at, at + from.shape[2]);
  to.storage.version++;
  to.backend.kernels.copy({ input: from.view('KV cache'), output: window.view('KV cache') });
}
