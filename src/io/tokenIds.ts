// Token ids and labels as callers give them. TypeScript cannot see NaN, fractions or numbers beyond the vocabulary, and
// plain JavaScript gives anything: a string, null, lists in lists. All that takes ids asks here; errors name what came.

type Numbers = ArrayLike<number>;

/** A value as errors show it. */
export function shownValue(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object' && value !== null) return `a value of type ${value.constructor?.name ?? 'object'}`;
  return typeof value === 'function' ? 'a function' : String(value);
}

/** @throws TypeError unless it is an array or a typed array of numbers; `what` names it */
function checkNumbers(what: string, list: unknown, expected: string): asserts list is Numbers {
  if (!Array.isArray(list) && (!ArrayBuffer.isView(list) || list instanceof DataView)) {
    const got = shownValue(list);
    throw new TypeError(`${what}: expected ${expected}, an array or an Int32Array, got ${got}`);
  }
  // findIndex passes over no hole of an array.
  const at = (list as unknown[]).findIndex(entry => typeof entry !== 'number');
  if (at >= 0)
    throw new TypeError(`${what}: expected ${expected}, got ${shownValue((list as unknown[])[at])} at ${at}`);
}

/**
 * Checks the ids of a sequence; `what` names it in errors.
 * @throws TypeError for what is no list of numbers, RangeError for a number that is no id
 */
export function checkIds(what: string, ids: unknown, vocabSize = Infinity): asserts ids is Numbers {
  checkNumbers(what, ids, 'token ids');
  for (let t = 0; t < ids.length; t++) {
    const id = ids[t];
    if (!Number.isInteger(id)) throw new RangeError(`${what}: token ${id} at ${t} is no whole number`);
    if (id >= 0 && id < vocabSize) continue;
    const vocabulary = vocabSize < Infinity ? `the vocabulary of ${vocabSize}` : 'any vocabulary';
    throw new RangeError(`${what}: token ${id} at ${t} is outside ${vocabulary}`);
  }
}

/** Checks labels: ids, or negative numbers where nothing is to be predicted. @throws as `checkIds` */
export function checkLabels(what: string, labels: unknown, vocabSize = Infinity): asserts labels is Numbers {
  checkNumbers(what, labels, 'labels');
  for (let t = 0; t < labels.length; t++) {
    const label = labels[t];
    if (!Number.isInteger(label)) throw new RangeError(`${what}: label ${label} at ${t} is no whole number`);
    if (label < vocabSize) continue;
    throw new RangeError(`${what}: label ${label} at ${t} is outside the vocabulary of ${vocabSize}`);
  }
}

/** Checks how many tokens of a sequence are its prompt. @throws RangeError */
export function checkPromptLength(what: string, promptLength: unknown, length: number): void {
  if (Number.isInteger(promptLength) && (promptLength as number) >= 0 && (promptLength as number) <= length) return;
  const got = shownValue(promptLength);
  throw new RangeError(`${what}: expected a prompt length from 0 to the ${length} tokens there are, got ${got}`);
}
