// Choosing the next token from logits on the host: repetition penalty, temperature, top-k, top-p, greedy. In the order transformers
// applies them.

import type { Random } from '../tensor/threefry.js';

export interface SamplingOptions {
  /** 0 (default) takes the most likely token. */
  readonly temperature?: number;
  /** Sample among the k most likely. */
  readonly topK?: number;
  /** Sample among the most likely tokens whose probabilities add to this. */
  readonly topP?: number;
  /** Above 1 makes tokens seen so far less likely (Keskar et al. 2019). */
  readonly repetitionPenalty?: number;
}

export function checkSampling({ temperature = 0, topK, topP, repetitionPenalty = 1 }: SamplingOptions): void {
  const fail = (name: string, expected: string, got: unknown): never => {
    throw new RangeError(`${name}: expected ${expected}, got ${String(got)}`);
  };
  if (!(temperature >= 0 && Number.isFinite(temperature))) fail('temperature', 'a number of at least 0', temperature);
  if (topK !== undefined && !(Number.isInteger(topK) && topK > 0)) fail('topK', 'a whole number above 0', topK);
  if (topP !== undefined && !(topP > 0 && topP <= 1)) fail('topP', 'a number above 0, at most 1', topP);
  if (!(repetitionPenalty > 0 && Number.isFinite(repetitionPenalty))) fail('repetitionPenalty', 'a number above 0', repetitionPenalty);
}

/** The next token for one row of logits (changed in place); `seen` are the tokens so far. */
export function sample(logits: Float32Array, seen: Iterable<number>, options: SamplingOptions, random: Random): number {
  const { temperature = 0, topK, topP, repetitionPenalty = 1 } = options;
  if (repetitionPenalty !== 1) {
    for (const id of new Set(seen)) logits[id] = logits[id] > 0 ? logits[id] / repetitionPenalty : logits[id] * repetitionPenalty;
  }
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  if (!Number.isFinite(logits[best])) throw new Error(`generate: the largest logit is ${logits[best]}; the model or an edit produced values that are not finite`);
  if (temperature === 0) return best;

  const top = logits[best];
  let candidates = Array.from(logits.keys());
  if (topK !== undefined || topP !== undefined) candidates.sort((a, b) => logits[b] - logits[a] || a - b);
  if (topK !== undefined) candidates = candidates.slice(0, topK);
  const weights = candidates.map(id => Math.exp((logits[id] - top) / temperature));
  let total = weights.reduce((a, b) => a + b, 0);
  let count = candidates.length;
  if (topP !== undefined) {
    let sum = 0;
    for (count = 0; count < candidates.length && sum < topP * total; count++) sum += weights[count];
    total = sum;
  }
  let draw = random.next() * total;
  for (let i = 0; i < count; i++) {
    draw -= weights[i];
    if (draw < 0) return candidates[i];
  }
  return candidates[count - 1];
}
