// What goes into the first block: rows of tables by token id, by position and by token type, added up; a scale, a norm
// and a projection where a family has them.

import type { Embedding } from '../nn/embedding.js';
import type { Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import { sinusoidalPositions } from '../nn/sinusoidal.js';
import { create } from '../tensor/create.js';
import type { Backend } from '../backends/backend.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Norm } from './block.js';

/** The id of a place without a token: zeros in place of a row. */
export const noToken = -1;

export interface EmbeddingParts {
  readonly word: Embedding;
  readonly position?: Embedding;
  readonly type?: Embedding;
  readonly norm?: Norm;
  /** To another width than the table's. */
  readonly projection?: Linear;
}

/** What a checkpoint calls them: whole names, `model.embed_tokens`. */
export type EmbeddingNames = Partial<Readonly<Record<keyof EmbeddingParts, string>>>;

export interface EmbeddingSettings {
  /** Words' rows are multiplied by this. */
  readonly scale?: number;
  /** The row of position 0 in the table of positions. */
  readonly positionOffset?: number;
  /** Rows of sines and cosines by position are added. */
  readonly sinusoids?: boolean;
}

export class Embeddings extends Module {
  readonly parts: EmbeddingParts;
  readonly names: EmbeddingNames;
  readonly #settings: EmbeddingSettings;

  constructor(parts: EmbeddingParts, names: EmbeddingNames, settings: EmbeddingSettings = {}) {
    super();
    this.parts = parts;
    this.names = names;
    this.#settings = settings;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    for (const part of Object.keys(this.parts) as (keyof EmbeddingParts)[]) {
      yield* this.parts[part]?.namedParameters(`${this.names[part] ?? part}.`) ?? [];
    }
  }

  /** The table of words, [vocabulary, width]: a tied head is this matrix. */
  get weight(): Tensor {
    return this.parts.word.weight;
  }

  get backend(): Backend {
    return this.weight.backend;
  }

  /** Ids, positions and token types (default 0) of N tokens: [N, hidden]. An id of -1 is a row of zeros. */
  forward(ids: Int32Array, positions: Int32Array, types: Int32Array | null = null): Tensor {
    const { word, position, type, norm, projection } = this.parts;
    const { scale = 1, positionOffset = 0, sinusoids = false } = this.#settings;
    let h = ids.includes(noToken) ? word.weight.takeRows(ids) : word.forward(ids, [ids.length]);
    if (scale !== 1) h = h.mul(scale);
    if (projection) h = projection.forward(h);
    const rows = positionOffset === 0 ? positions : positions.map(p => p + positionOffset);
    if (sinusoids) h = h.add(this.waves(positions, h));
    if (position) h = h.add(position.forward(rows, [ids.length]));
    if (type) h = h.add(type.forward(types ?? new Int32Array(ids.length), [ids.length]));
    return norm ? norm.forward(h) : h;
  }

  /** [N, width] */
  private waves(positions: Int32Array, { shape: [, width], dtype, backend }: Tensor): Tensor {
    const table = sinusoidalPositions(1 + positions.reduce((a, b) => Math.max(a, b), 0), width);
    const rows = new Float32Array(positions.length * width);
    positions.forEach((p, n) => rows.set(table.subarray(p * width, (p + 1) * width), n * width));
    return create.from(rows, [positions.length, width], { dtype: dtype as 'f32' | 'f64', backend });
  }
}
