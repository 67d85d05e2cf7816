// Matching an expression of somebody else, within a bound. What could take long on a text of this length runs under a
// limit of time in Node; in browsers, where nothing can interrupt, what grows with more than the square of a text is
// refused there.

import { canInterrupt, withinTime } from './timeLimit.js';

/** Steps that are over in about a second, and those that a page may be asked for. */
const soonOver = 1e8;
const mostInBrowsers = 1e11;

/** Milliseconds for a text: far more than any tokenizer in use takes. */
const timeFor = (length: number): number => Math.round(5000 + length / 25);

/**
 * `body()`, which matches expressions of a power (see `regexPower`) with a text of `length` characters.
 * @throws Error beginning with `what` when it takes too long
 */
export function withinBound<T>(what: string, power: number, length: number, body: () => T, time = timeFor(length)): T {
  const steps = length ** power;
  if (steps <= soonOver) return body();
  if (!canInterrupt() && power > 2 && steps > mostInBrowsers) {
    throw new Error(`${what}: a regular expression could take too long on a text of ${length} characters`);
  }
  const done = withinTime(time, body);
  if (done) return done.value;
  throw new Error(`${what}: a regular expression takes longer than ${time / 1000} s on a text of ${length} characters`);
}
