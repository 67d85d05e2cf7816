// What is kept of a running batch whose rows come and go: for each layer one block of memory with a row a sequence,
// each row with a length of its own. Rows lie without gaps: where one ends, the last one takes its place. The passes
// over it are seen through views: prompts into new rows, one token onto every row.

import { keep } from '../../autograd/scope.js';
import { allocate } from '../../tensor/create.js';
import { concat } from '../../tensor/layout.js';
import { copyInto } from '../cache.js';
import type { Tensor } from '../../tensor/tensor.js';
import type { Kept, LayerCache } from '../kept.js';

export class BatchCache {
  /** Tokens of each row. */
  readonly lengths: number[] = [];
  private readonly layers: (LayerCache | undefined)[] = [];
  private readonly recurrent: (Tensor[] | undefined)[] = [];
  private capacity: number;

  /** `capacity`: tokens a row to have room for; it grows. */
  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get rows(): number {
    return this.lengths.length;
  }

  /** Adds rows for prompts of these lengths, behind `past` tokens that are there for each (see `put`). */
  prompts(lengths: readonly number[], past: number, whole: number): Kept {
    const first = this.rows;
    this.lengths.push(...lengths.map(length => past + length));
    return this.view(first, lengths.length, past, whole);
  }

  /** One new token for every row. */
  step(): Kept {
    const past = Int32Array.from(this.lengths);
    const longest = Math.max(...this.lengths);
    return {
      length: longest,
      shared: false,
      rowLengths: past,
      extend: (layer, keys, values) => {
        const { keys: allKeys, values: allValues } = this.room(layer, keys, this.rows, longest + 1);
        for (const [from, to] of [
          [keys, allKeys],
          [values, allValues],
        ] as const) {
          if (past.every(n => n === past[0])) copyInto(from, to.slice(0, 0, past.length), past[0]);
          else past.forEach((n, b) => void copyInto(from.slice(0, b, b + 1), to.slice(0, b, b + 1), n));
        }
        const seen = (t: Tensor): Tensor => t.slice(0, 0, past.length).slice(2, 0, longest + 1);
        return { keys: seen(allKeys), values: seen(allValues) };
      },
      across: (_, compute) => compute(),
      states: layer => this.recurrent[layer] ?? null,
      keepStates: (layer, states) => {
        this.replaceStates(layer, states);
      },
      advance: () => {
        past.forEach((n, b) => (this.lengths[b] = n + 1));
      },
    };
  }

  private view(first: number, count: number, past: number, whole: number): Kept {
    return {
      length: past,
      shared: false,
      extend: (layer, keys, values) => {
        const total = past + keys.shape[2];
        const all = this.room(layer, keys, first + count, Math.max(total, past + whole));
        const rows = (t: Tensor): Tensor => t.slice(0, first, first + count);
        copyInto(keys, rows(all.keys), past);
        copyInto(values, rows(all.values), past);
        return { keys: rows(all.keys).slice(2, 0, total), values: rows(all.values).slice(2, 0, total) };
      },
      across: (_, compute) => compute(),
      states: () => null,
      keepStates: (layer, states) => {
        const before = this.recurrent[layer];
        this.replaceStates(layer, before ? states.map((state, i) => joinRows(before[i], state)) : states);
      },
      advance: () => undefined,
    };
  }

  private replaceStates(layer: number, states: readonly Tensor[]): void {
    const before = this.recurrent[layer];
    this.recurrent[layer] = states.map(state => keep(copyOf(state)));
    for (const state of before ?? []) state.storage.dispose();
  }

  /** Puts keys and values [1, KV, n, D] of a prompt's first tokens into a row. */
  put(layer: number, row: number, part: LayerCache, position: number): void {
    const all = this.room(layer, part.keys, row + 1, position + part.keys.shape[2]);
    copyInto(part.keys, all.keys.slice(0, row, row + 1), position);
    copyInto(part.values, all.values.slice(0, row, row + 1), position);
  }

  /** Keys and values of tokens from..to of a row, each layer's [1, KV, n, D]: windows on the cache's own memory. */
  part(row: number, from: number, to: number): LayerCache[] {
    const window = (t: Tensor): Tensor => t.slice(0, row, row + 1).slice(2, from, to);
    return this.layers.flatMap(layer => (layer ? [{ keys: window(layer.keys), values: window(layer.values) }] : []));
  }

  /** A row's sequence is over: the last row takes its place. Gives the number that the last row had. */
  drop(row: number): number {
    const last = this.rows - 1;
    if (row !== last) {
      for (const layer of this.layers) {
        if (!layer) continue;
        for (const t of [layer.keys, layer.values])
          copyInto(t.slice(0, last, last + 1).slice(2, 0, this.lengths[last]), t.slice(0, row, row + 1), 0);
      }
      this.lengths[row] = this.lengths[last];
    }
    this.lengths.pop();
    this.recurrent.forEach((states, layer) => {
      if (!states) return;
      if (last === 0) {
        for (const state of states) state.storage.dispose();
        this.recurrent[layer] = undefined;
        return;
      }
      const order = Int32Array.from({ length: last }, (_, i) => (i === row ? last : i));
      this.replaceStates(
        layer,
        states.map(state => state.takeRows(order)),
      );
    });
    return last;
  }

  /** Memory of a layer for so many rows and columns; what is there is carried over where it must grow. */
  private room(layer: number, like: Tensor, rows: number, columns: number): LayerCache {
    const before = this.layers[layer];
    if (before && before.keys.shape[0] >= rows && before.keys.shape[2] >= columns) return before;
    const [, heads, , width] = like.shape;
    const [slots, held] = before ? [before.keys.shape[0], before.keys.shape[2]] : [0, 0];
    if (columns > this.capacity) this.capacity = Math.max(columns, 2 * this.capacity);
    const shape = [rows > slots ? Math.max(rows, 2 * slots) : slots, heads, Math.max(this.capacity, held), width];
    const make = (): Tensor => keep(allocate('KV cache', shape, like.dtype, like.backend));
    const grown = { keys: make(), values: make() };
    if (before) {
      copyInto(before.keys, grown.keys.slice(0, 0, slots), 0);
      copyInto(before.values, grown.values.slice(0, 0, slots), 0);
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
    for (const states of this.recurrent) for (const state of states ?? []) state.storage.dispose();
    this.layers.length = 0;
    this.recurrent.length = 0;
    this.lengths.length = 0;
  }
}

/** A tensor of its own memory. */
const copyOf = (t: Tensor): Tensor => t.mul(1);

const joinRows = (a: Tensor, b: Tensor): Tensor => concat([a, b], 0);
