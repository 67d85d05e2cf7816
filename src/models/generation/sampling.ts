// Choosing the next token from logits on the host: repetition penalty, temperature, top-k, top-p, greedy. In the order
// transformers applies them.

import type { Random } from '../../tensor/threefry.js';

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
  if (!(repetitionPenalty > 0 && Number.isFinite(repetitionPenalty)))
    fail('repetitionPenalty', 'a number above 0', repetitionPenalty);
}

/**
 * The next token for one row of logits (changed in place). A logit of -Infinity is a token that may not be chosen.
 * @param seen the tokens so far, which the repetition penalty makes less likely: each once, however often it was seen
 * @param place which token of which row this is, for errors
 * @throws Error for a logit that is NaN or Infinity, and where no token may be chosen
 */
export function sample(
  logits: Float32Array,
  seen: Iterable<number>,
  options: SamplingOptions,
  random: Random,
  place = 'a token',
): number {
  const { temperature = 0, topK, topP, repetitionPenalty = 1 } = options;
  const best = mostLikely(logits, place);
  if (repetitionPenalty !== 1) {
    for (const id of new Set(seen))
      logits[id] = logits[id] > 0 ? logits[id] / repetitionPenalty : logits[id] * repetitionPenalty;
  }
  const top = repetitionPenalty === 1 ? best : mostLikely(logits, `${place}, repetitionPenalty ${repetitionPenalty}`);
  if (temperature === 0) return top;

  let candidates = Array.from(logits.keys());
  if (topK !== undefined || topP !== undefined) candidates.sort((a, b) => logits[b] - logits[a] || a - b);
  if (topK !== undefined) candidates = candidates.slice(0, topK);
  const weights = candidates.map(id => Math.exp((logits[id] - logits[top]) / temperature));
  let total = weights.reduce((a, b) => a + b, 0);
  let count = candidates.length;
  if (topP !== undefined) {
    let sum = 0;
    for (count = 0; count < candidates.length && sum < topP * total; count++) sum += weights[count];
    total = sum;
  }
  let draw = random.next() * total;
  // What rounding leaves of the draw goes to the last token that may be chosen.
  let chosen = top;
  for (let i = 0; i < count; i++) {
    if (weights[i] === 0) continue;
    chosen = candidates[i];
    draw -= weights[i];
    if (draw < 0) break;
  }
  return chosen;
}

/** The most likely token, the first of equal ones. */
function mostLikely(logits: Float32Array, place: string): number {
  let best = 0;
  for (let i = 0; i < logits.length; i++) {
    if (Number.isNaN(logits[i]) || logits[i] === Infinity) {
      throw new Error(
        `generate: ${place}: the logit of token ${i} is ${logits[i]}; the model or an edit produced values that are not finite`,
      );
    }
    if (logits[i] > logits[best]) best = i;
  }
  if (logits[best] === -Infinity)
    throw new Error(`generate: ${place}: every logit is -Infinity, so that no token may be chosen`);
  return best;
}
