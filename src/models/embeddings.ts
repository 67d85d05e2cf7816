// What goes into the first block: rows of tables by token id, by position and by token type, added up; a scale, a norm
// and a projection where a family has them.

import type { Embedding } from '../nn/embedding.js';
import type { Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import type { Backend } from '../backends/backend.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Norm } from './block.js';

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

  /** Ids, positions and token types (default 0) of N tokens: [N, hidden]. */
  forward(ids: Int32Array, positions: Int32Array, types: Int32Array | null = null): Tensor {
    const { word, position, type, norm, projection } = this.parts;
    const { scale = 1, positionOffset = 0 } = this.#settings;
    let h = word.forward(ids, [ids.length]);
    if (scale !== 1) h = h.mul(scale);
    if (projection) h = projection.forward(h);
    const rows = positionOffset === 0 ? positions : positions.map(p => p + positionOffset);
    if (position) h = h.add(position.forward(rows, [ids.length]));
    if (type) h = h.add(type.forward(types ?? new Int32Array(ids.length), [ids.length]));
    return norm ? norm.forward(h) : h;
  }
}
