// Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), written once over
// an abstract word type: as numbers for values made on the host, as expressions inside kernels. Same bits everywhere.

import { shuffle } from './shuffle.js';

export interface WordArithmetic<T> {
  word(value: number): T;
  add(a: T, b: T): T;
  xor(a: T, b: T): T;
  rotateLeft(a: T, by: number): T;
}

const rotations = [13, 15, 26, 6, 17, 29, 16, 24];

export function threefry<T>(a: WordArithmetic<T>, key: readonly [T, T], counter: readonly [T, T]): [T, T] {
  const keys = [key[0], key[1], a.xor(a.xor(key[0], key[1]), a.word(0x1bd11bda))];
  let x = a.add(counter[0], keys[0]);
  let y = a.add(counter[1], keys[1]);
  for (let round = 0; round < 20; round++) {
    x = a.add(x, y);
    y = a.xor(a.rotateLeft(y, rotations[round % 8]), x);
    if (round % 4 === 3) {
      const injection = (round + 1) / 4;
      x = a.add(x, keys[injection % 3]);
      y = a.add(a.add(y, keys[(injection + 1) % 3]), a.word(injection));
    }
  }
  return [x, y];
}

const numbers: WordArithmetic<number> = {
  word: value => value >>> 0,
  add: (a, b) => (a + b) >>> 0,
  xor: (a, b) => (a ^ b) >>> 0,
  rotateLeft: (a, by) => ((a << by) | (a >>> (32 - by))) >>> 0,
};

/** A seed as two 32-bit words; seeds are integers from 0 to 2^53 - 1. */
export function seedWords(seed: number): [number, number] {
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new RangeError(`seed: expected an integer from 0 to 2^53 - 1, got ${seed}`);
  return [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
}

/** Two random u32 words of position `counter` in stream `stream` of `seed`. */
export function randomWords(seed: number, stream: number, counter: number): [number, number] {
  return threefry(numbers, seedWords(seed), [counter >>> 0, stream >>> 0]);
}

/** Host-side generator over one stream: uniforms in [0, 1), integers, normals (Box-Muller, f64), shuffles. */
export class Random {
  readonly seed: number;
  readonly stream: number;
  private counter = 0;
  private spare: number | undefined;

  constructor(seed: number, stream = 0) {
    seedWords(seed);
    this.seed = seed;
    this.stream = stream;
  }

  /** Uniform in [0, 1) with 53 bits. */
  next(): number {
    const [hi, lo] = randomWords(this.seed, this.stream, this.counter++);
    return ((hi >>> 5) * 2 ** 26 + (lo >>> 6)) / 2 ** 53;
  }

  /** Uniform integer in [0, n). */
  integer(n: number): number {
    return Math.floor(this.next() * n);
  }

  normal(): number {
    if (this.spare !== undefined) {
      const value = this.spare;
      this.spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.next()));
    const angle = 2 * Math.PI * this.next();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /** Fisher-Yates, in place. */
  shuffle<T>(items: T[]): T[] {
    return shuffle(items, () => this.next());
  }
}
