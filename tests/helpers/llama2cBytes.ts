// A small llama2.c v0 checkpoint for tests: weights count up from 0 in steps of 1/8, so that each place of the file is
// told by its value.

export interface Llama2cSpec {
  readonly dim?: number;
  readonly hidden?: number;
  readonly layers?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  /** Negative: the file has a head of its own. */
  readonly vocabulary?: number;
  readonly length?: number;
}

export function llama2cBytes(spec: Llama2cSpec = {}): Uint8Array {
  const { dim = 8, hidden = 12, layers = 2, heads = 4, kvHeads = 2, vocabulary = 11, length = 5 } = spec;
  const headDim = dim / heads;
  const perLayer = 2 * dim + 2 * dim * dim + 2 * dim * headDim * kvHeads + 3 * dim * hidden;
  const embedding = Math.abs(vocabulary) * dim;
  const count = embedding + layers * perLayer + dim + length * headDim + (vocabulary < 0 ? embedding : 0);
  const bytes = new Uint8Array(28 + 4 * count);
  new Int32Array(bytes.buffer, 0, 7).set([dim, hidden, layers, heads, kvHeads, vocabulary, length]);
  new Float32Array(bytes.buffer, 28).forEach((_, i, weights) => (weights[i] = i / 8));
  return bytes;
}
