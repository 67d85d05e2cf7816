// Random training examples: a prompt of given length and an answer, all of it labelled but the prompt.

import type { Example } from '../../src/data/examples.js';
import { tinyIds } from './tinyModel.js';

export function tinyExample(promptLength: number, answerLength: number, seed: number): Example {
  const ids = tinyIds(promptLength + answerLength, seed);
  return { ids, promptLength, labels: ids.slice().fill(-100, 0, promptLength), truncated: 0, where: `tiny:${seed}` };
}

/** Prompts of 5, 8, 3, .. tokens with answers of 2, 3, 4, .. */
export function tinyExamples(n: number): Example[] {
  return Array.from({ length: n }, (_, i) => tinyExample(3 + ((5 * i + 2) % 8), 2 + (i % 4), 100 + i));
}
