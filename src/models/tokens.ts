// Where the tokens of one stack lie in one forward pass. A batch comes in padded, [B, T]. Inside a model its hidden
// states are packed, [N, width]: the real tokens alone, one after the other, so that nothing is computed for padding.
// `TokenRows` says which tokens some packed rows are; `Tokens` adds what attention needs to know of the whole batch.

import type { Backend } from '../backends/backend.js';
import { shownValue } from '../io/tokenIds.js';
import { attentionBounds, type AttentionBounds, type AttentionOptions } from '../nn/attention.js';
import { formatShape, type Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Kept } from './kept.js';

export interface Padding {
  /** First real key and one past the last, for each row of the batch. */
  readonly keyStart: Int32Array;
  readonly keyEnd: Int32Array;
}

/** The run of ones in each row of a mask [B, S]. @throws RangeError for a row that is anything but one run */
export function paddingOf(mask: Int32Array, shape: Shape): Padding {
  const [batch, length] = shape;
  if (!ArrayBuffer.isView(mask)) throw new TypeError(`attentionMask: expected an Int32Array, got ${shownValue(mask)}`);
  if (mask.length !== batch * length)
    throw new RangeError(
      `attentionMask: expected ${batch * length} entries for ${formatShape(shape)}, got ${mask.length}`,
    );
  const keyStart = new Int32Array(batch);
  const keyEnd = new Int32Array(batch);
  for (let b = 0; b < batch; b++) {
    const row = mask.subarray(b * length, (b + 1) * length);
    const odd = row.find(m => m !== 0 && m !== 1);
    if (odd !== undefined) throw new RangeError(`attentionMask: row ${b} has ${odd}, expected ones and zeros`);
    const first = row.indexOf(1);
    keyStart[b] = first < 0 ? 0 : first;
    keyEnd[b] = first < 0 ? 0 : row.lastIndexOf(1) + 1;
    if (first >= 0 && row.subarray(keyStart[b], keyEnd[b]).some(m => m !== 1)) {
      throw new RangeError(
        `attentionMask: row ${b} is not one run of ones; padding goes on the left, the right, or both`,
      );
    }
  }
  return { keyStart, keyEnd };
}

/** Packed rows [n, width] of a batch [B, T], and which tokens they are. */
export class TokenRows {
  /** [B, T] */
  readonly shape: Shape;
  /** The token b * T + t of each packed row. */
  readonly tokens: Int32Array;
  /** The packed row of each token b * T + t, -1 where it has none; null where rows are all tokens in order. */
  readonly places: Int32Array | null;

  constructor(shape: Shape, tokens: Int32Array, isAll = false) {
    this.shape = shape;
    this.tokens = tokens;
    if (isAll) this.places = null;
    else {
      this.places = new Int32Array(shape[0] * shape[1]).fill(-1);
      for (let row = 0; row < tokens.length; row++) this.places[tokens[row]] = row;
    }
  }

  get count(): number {
    return this.tokens.length;
  }

  /** The packed row of a token b * T + t; -1 where it has none. */
  placeOf(token: number): number {
    return this.places ? this.places[token] : token;
  }

  /** The packed rows of some tokens b * T + t, -1 for one that has none. */
  placesOf(tokens: Int32Array): Int32Array {
    const { places } = this;
    return places ? tokens.map(token => places[token]) : tokens;
  }

  /** Which of some tokens b * T + t are here, and their packed rows. */
  find(tokens: Int32Array): { tokens: Int32Array; places: Int32Array } {
    const { places } = this;
    if (!places) return { tokens, places: tokens };
    const here = tokens.filter(token => places[token] >= 0);
    return { tokens: here, places: here.map(token => places[token]) };
  }

  /** Some of the tokens b * T + t, in the order given. */
  only(tokens: Int32Array): TokenRows {
    return new TokenRows(this.shape, tokens);
  }

  /** [B, T, ..] to packed rows, [n, ..]. */
  gather(x: Tensor): Tensor {
    const flat = x.reshape([x.shape[0] * x.shape[1], ...x.shape.slice(2)]);
    return this.places ? flat.takeRows(this.tokens) : flat;
  }

  /** Packed rows [n, ..] to [B, T, ..], with zeros where a token has none. */
  spread(h: Tensor): Tensor {
    return (this.places ? h.takeRows(this.places) : h).reshape([...this.shape, ...h.shape.slice(1)]);
  }

  /** Those of a list with an entry for each token b * T + t. */
  of(list: Int32Array): Int32Array {
    return this.places ? this.tokens.map(token => list[token]) : list;
  }
}

/** The tokens of a stack: its packed rows, the padding around them, and how many tokens of a cache come before. */
export class Tokens extends TokenRows {
  readonly padding: Padding;
  /** Columns of the cache before this pass: keys lie at [B, past + T]. */
  readonly past: number;
  /** The padding as attention in every layer reads it. */
  readonly bounds: AttentionBounds;
  /** Where each row is one token behind a cache of its own length: those lengths. */
  readonly rowLengths: Int32Array | null;
  private readonly backend: Backend;

  constructor(shape: Shape, padding: Padding, past: number, backend: Backend, rowLengths: Int32Array | null = null) {
    const [batch, length] = shape;
    const tokens: number[] = [];
    for (let b = 0; b < batch; b++) {
      if (rowLengths) tokens.push(b);
      else {
        for (let column = Math.max(past, padding.keyStart[b]); column < padding.keyEnd[b]; column++)
          tokens.push(b * length + column - past);
      }
    }
    super(shape, Int32Array.from(tokens), tokens.length === batch * length);
    this.padding = padding;
    this.past = past;
    this.bounds = attentionBounds(padding.keyStart, padding.keyEnd, backend);
    this.backend = backend;
    this.rowLengths = rowLengths;
  }

  /** One token behind each row of a cache whose rows are of different lengths. */
  static step(rowLengths: Int32Array, backend: Backend): Tokens {
    const keyStart = new Int32Array(rowLengths.length);
    const padding = { keyStart, keyEnd: rowLengths.map(n => n + 1) };
    return new Tokens([rowLengths.length, 1], padding, 0, backend, rowLengths);
  }

  /**
   * What attention is told of where tokens lie: causal order, a window, the padding. `front`: keys in front of those of
   * the sequences, which every query sees.
   */
  seen({ causal = false, window }: Pick<AttentionOptions, 'causal' | 'window'>, front = 0): AttentionOptions {
    const { keyStart, keyEnd } = this.padding;
    if (front > 0 && window !== undefined)
      throw new RangeError('keys and values in front are not supported in layers that have a window');
    if (front > 0 && keyStart.some(start => start > 0))
      throw new RangeError('keys and values in front need padding on the right: they stand in front of the tokens');
    if (this.rowLengths && causal) {
      // A token that is the last of its row sees all keys there, or the last ones.
      if (window === undefined || window === 0) return front === 0 ? { bounds: this.bounds } : this.behind(front);
      const size = typeof window === 'number' ? window : window.before + 1;
      return {
        bounds: attentionBounds(
          keyEnd.map(end => Math.max(0, end - size)),
          keyEnd,
          this.backend,
        ),
      };
    }
    return {
      causal,
      ...(causal ? { causalOffset: this.past + front } : {}),
      ...(window === undefined ? {} : { window }),
      ...(front === 0 ? { bounds: this.bounds } : this.behind(front)),
    };
  }

  private behind(front: number): AttentionOptions {
    const { keyStart, keyEnd } = this.padding;
    return { keyStart, keyEnd: keyEnd.map(end => end + front) };
  }

  /** From a mask [B, past + T] of ones and zeros; default all ones. `kept`: what tokens before have left. */
  static of(
    shape: Shape,
    mask: Int32Array | undefined,
    kept: Pick<Kept, 'length' | 'rowLengths'> | undefined,
    backend: Backend,
  ): Tokens {
    const [batch, length] = shape;
    const past = kept?.length ?? 0;
    if (kept?.rowLengths) {
      if (mask || length !== 1 || kept.rowLengths.length !== batch)
        throw new RangeError(
          `a running batch of ${kept.rowLengths.length} rows takes one token a row and no mask, got ${formatShape(shape)}`,
        );
      return Tokens.step(kept.rowLengths, backend);
    }
    const width = past + length;
    if (mask && mask.length !== batch * width) {
      throw new RangeError(`attentionMask: expected ${batch} x ${width} entries (cache and input), got ${mask.length}`);
    }
    const padding = mask
      ? paddingOf(mask, [batch, width])
      : { keyStart: new Int32Array(batch), keyEnd: new Int32Array(batch).fill(width) };
    return new Tokens(shape, padding, past, backend);
  }

  /** The first packed row of each sequence. */
  get starts(): Int32Array {
    const [batch, length] = this.shape;
    const starts = new Int32Array(batch);
    let row = 0;
    for (let b = 0; b < batch; b++) {
      starts[b] = row;
      while (row < this.count && this.tokens[row] < (b + 1) * length) row++;
    }
    return starts;
  }

  /** [B, T]: how many real tokens of its row come before each token, so that padding on either side changes nothing. */
  defaultPositions(): Int32Array {
    if (this.rowLengths) return this.rowLengths;
    const [batch, length] = this.shape;
    const positions = new Int32Array(batch * length);
    for (let b = 0; b < batch; b++) {
      for (let t = 0; t < length; t++)
        positions[b * length + t] = Math.max(0, this.past + t - this.padding.keyStart[b]);
    }
    return positions;
  }
}
