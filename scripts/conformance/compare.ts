// How results are measured against golden values: max|a - b| / max|b| over a tensor's unmasked entries, or max|a - b|
// where the bar is an absolute one; ids and texts must be equal. A case keeps its worst tensor, judged by how much of
// its own bar it takes.

export interface Bar {
  readonly on: 'maxRel' | 'maxAbs';
  readonly tolerance: number;
}

export const relative = (tolerance: number): Bar => ({ on: 'maxRel', tolerance });
export const absolute = (tolerance: number): Bar => ({ on: 'maxAbs', tolerance });
const exact: Bar = absolute(0);

export interface Measured {
  readonly tensor: string;
  readonly maxAbs: number;
  readonly maxRel: number;
  readonly bar: Bar;
}

/** The part of its bar that an error takes: above 1 fails; anything that is not a number takes infinitely much. */
export function share({ maxAbs, maxRel, bar }: Measured): number {
  const error = bar.on === 'maxRel' ? maxRel : maxAbs;
  if (Number.isNaN(error)) return Infinity;
  return error === 0 ? 0 : error / bar.tolerance;
}

export class Comparison {
  /** Of everything compared so far; null before the first. */
  worst: Measured | null = null;
  count = 0;

  get passed(): boolean {
    return this.worst !== null && share(this.worst) <= 1;
  }

  /** `unmasked` says which entries count; default all. */
  tensor(
    name: string,
    actual: ArrayLike<number>,
    expected: ArrayLike<number>,
    bar: Bar,
    unmasked?: (index: number) => boolean,
  ): void {
    if (actual.length !== expected.length)
      throw new RangeError(`${name}: expected ${expected.length} values, got ${actual.length}`);
    let maxAbs = 0;
    let scale = 0;
    for (let i = 0; i < expected.length; i++) {
      if (unmasked && !unmasked(i)) continue;
      const difference = actual[i] === expected[i] ? 0 : Math.abs(actual[i] - expected[i]);
      if (!(difference <= maxAbs)) maxAbs = Number.isNaN(difference) ? Infinity : difference;
      scale = Math.max(scale, Math.abs(expected[i]));
    }
    this.add({ tensor: name, maxAbs, maxRel: maxAbs === 0 || maxAbs === Infinity ? maxAbs : maxAbs / scale, bar });
  }

  /** Whole numbers that must be the same ones. */
  ids(name: string, actual: ArrayLike<number>, expected: ArrayLike<number>): void {
    if (actual.length === expected.length) this.tensor(name, actual, expected, exact);
    else this.add({ tensor: name, maxAbs: Infinity, maxRel: Infinity, bar: exact });
  }

  /** Texts that must be equal: an error of 1 where they are not. */
  text(name: string, actual: string, expected: string): void {
    const error = actual === expected ? 0 : 1;
    this.add({ tensor: name, maxAbs: error, maxRel: error, bar: exact });
  }

  private add(measured: Measured): void {
    this.count++;
    if (this.worst === null || share(measured) > share(this.worst)) this.worst = measured;
  }
}
