// Which token a run predicts: the most likely one of the vocabulary, or of the few in question. A subspace that moves
// "is" to "are" shows nothing where the next token is most likely a comma.

import type { Tensor } from '../tensor/tensor.js';

/** The token ids in question for each row of a batch; null: the whole vocabulary. */
export type Candidates = readonly (readonly number[])[] | null;

/**
 * For each row of logits [B, V], the place of the likeliest candidate in its list, or its id in the vocabulary: [B].
 */
export function mostLikely(logits: Tensor, candidates: Candidates): Tensor {
  if (!candidates) return logits.argmax(-1);
  const [batch, vocabulary] = logits.shape;
  const width = Math.max(...candidates.map(ids => ids.length));
  // Shorter lists are filled up with their first token, which changes no first maximum.
  const places = candidates.flatMap((ids, b) =>
    Array.from({ length: width }, (_, k) => b * vocabulary + (ids[k] ?? ids[0])),
  );
  return logits
    .reshape([batch * vocabulary, 1])
    .takeRows(Int32Array.from(places))
    .reshape([batch, width])
    .argmax(-1);
}

/** How many rows predict their label; `best` are the numbers of `mostLikely`. */
export function countRight(best: ArrayLike<number>, labels: ArrayLike<number>, candidates: Candidates): number {
  return Array.from(labels).filter((label, b) => (candidates ? candidates[b][best[b]] : best[b]) === label).length;
}
