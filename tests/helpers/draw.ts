// What fast-check draws for an op, { sides, seed, scale, kind }, and how a recipe turns it into shapes and values. The
// values come from our own generator, so shrinking works on shapes. Kinks are avoided by construction, never by
// throwing cases away.

import fc from 'fast-check';
import { build, sizeOf, type Host } from './host.js';
import { seededRandom } from './mutate.js';

export type Kind = 'normal' | 'ties' | 'large' | 'tiny' | 'oneHot' | 'equal';

export interface Drawn {
  sides: number[];
  /** More sides for recipes that need them: inner sides, row counts. */
  extra: number[];
  seed: number;
  scale: number;
  kind: Kind;
}

/**
 * The seed and number of runs of every property: FC_SEED and FC_RUNS change them. fast-check prints seed and path on
 * failure.
 */
export const seed = Number(process.env['FC_SEED'] ?? 20_240_404);
export const runs = (usual: number): { seed: number; numRuns: number } => ({
  seed,
  numRuns: Number(process.env['FC_RUNS'] ?? usual),
});

const small = [1, 2, 3, 4, 5, 7, 8, 0];
/** On and beside the edges of vector lanes and tiles. */
const edges = [1, 3, 4, 5, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129];

const record = (sides: number[], kinds: Kind[], scales: number[]): fc.Arbitrary<Drawn> =>
  fc.record({
    sides: fc.array(fc.constantFrom(...sides), { maxLength: 4 }),
    extra: fc.array(fc.constantFrom(...sides.filter(s => s > 0)), { minLength: 4, maxLength: 4 }),
    seed: fc.integer({ min: 1, max: 1_000_000 }),
    scale: fc.constantFrom(...scales),
    kind: fc.constantFrom(...kinds),
  });

export const forwardDraws = fc.oneof(
  record(small, ['normal', 'ties', 'large', 'tiny', 'oneHot', 'equal'], [1, 0.3, 4]),
  record(edges, ['normal', 'ties', 'large', 'tiny', 'oneHot', 'equal'], [1, 0.3, 4]),
);
/** Values that differences with a step of 1e-3 can follow. */
export const gradientDraws = record(small, ['normal', 'ties', 'tiny', 'oneHot', 'equal'], [1, 0.3, 2]);
/** Shapes where loops end early: nothing, one element, one row. */
export const emptyAndOne: Drawn[] = [[0], [0, 3], [3, 0], [2, 0, 3], [], [1], [1, 1, 1]].map((sides, i) => ({
  sides,
  extra: [1, 1, 1, 1],
  seed: i + 1,
  scale: 1,
  kind: 'normal',
}));

export class Draw {
  readonly drawn: Drawn;
  /** True when gradients will be taken: `kinked` values then keep apart. */
  readonly smooth: boolean;
  private readonly cap: number;
  private readonly uniform: () => number;
  private nextExtra = 0;

  constructor(drawn: Drawn, { smooth, cap }: { smooth: boolean; cap: number }) {
    this.drawn = drawn;
    this.smooth = smooth;
    this.cap = cap;
    this.uniform = seededRandom(drawn.seed);
  }

  /** The drawn shape, cut or filled to the asked rank and the cap on elements. */
  shape(atLeast = 0, atMost = 4, { empty = true, cap = this.cap }: { empty?: boolean; cap?: number } = {}): number[] {
    const shape = this.drawn.sides.slice(0, atMost).map(side => (empty ? side : Math.max(1, side)));
    while (shape.length < atLeast) shape.push(this.side());
    return this.capped(shape, cap);
  }

  capped(shape: readonly number[], cap = this.cap): number[] {
    const result = [...shape];
    while (sizeOf(result) > cap) {
      const widest = result.indexOf(Math.max(...result));
      result[widest] = Math.max(1, result[widest] >> 1);
    }
    return result;
  }

  /** One of the extra sides, at most `most`. */
  side(most = Infinity): number {
    return Math.min(most, this.drawn.extra[this.nextExtra++ % this.drawn.extra.length]);
  }

  integer(below: number): number {
    return Math.floor(this.uniform() * below);
  }

  flip(): boolean {
    return this.uniform() < 0.5;
  }

  /** Two shapes that broadcast to the drawn one: random axes set to 1, leading ones dropped. */
  pair(shape = this.shape()): [number[], number[]] {
    const loosen = (): number[] => {
      const sides = shape.map(side => (this.uniform() < 0.25 ? 1 : side));
      let lead = 0;
      while (lead < sides.length && sides[lead] === 1 && this.flip()) lead++;
      return sides.slice(lead);
    };
    const [a, b] = [loosen(), loosen()];
    // The pair need not reach the drawn shape: where both are 1 the result is 1 too.
    return [a, b];
  }

  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Values of the drawn kind, exact in f32; |x| stays below `limit`. */
  values(shape: readonly number[], { limit = Infinity, shift = 0 }: { limit?: number; shift?: number } = {}): Host {
    const { kind, scale } = this.drawn;
    const hot = this.integer(Math.max(1, sizeOf(shape)));
    const equal = this.normal();
    let n = 0;
    return build(shape, () => {
      const at = n++;
      const x = {
        normal: () => this.normal(),
        ties: () => Math.round(this.normal() * 2) / 2,
        large: () => this.normal() * 1e3,
        tiny: () => this.normal() * 1e-4,
        oneHot: () => Number(at === hot),
        equal: () => equal,
      }[kind]();
      const scaled = x * scale;
      return Math.fround((Math.abs(scaled) >= limit ? scaled % limit : scaled) + shift);
    });
  }

  /** Above `least`. */
  positive(shape: readonly number[], least = 0.25, limit = 1e4): Host {
    const h = this.values(shape, { limit });
    return build(shape, i => Math.fround(least + Math.abs(at(h, i))));
  }

  /** Away from 0, both signs. */
  apart(shape: readonly number[], gap = 0.3, limit = 1e4): Host {
    const h = this.values(shape, { limit });
    return build(shape, i => Math.fround(at(h, i) < 0 ? at(h, i) - gap : at(h, i) + gap));
  }

  /**
   * For functions with kinks where values meet or cross 0: all magnitudes different when gradients are taken, any
   * values else.
   */
  kinked(shape: readonly number[]): Host {
    return this.smooth ? this.distinct(shape) : this.values(shape);
  }

  /** A shuffle of evenly spaced numbers around 0, none of them 0, no two of the same magnitude. */
  distinct(shape: readonly number[], offset = 0.3): Host {
    const n = sizeOf(shape);
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    let k = 0;
    const gap = (4 * this.drawn.scale) / Math.max(4, n);
    return build(shape, () => Math.fround((order[k++] - Math.floor(n / 2) + offset) * gap));
  }

  integers(shape: readonly number[], from: number, to: number): Host {
    return build(shape, () => from + this.integer(to - from + 1), 'i32');
  }

  booleans(shape: readonly number[]): Host {
    return build(shape, () => Number(this.flip()), 'bool');
  }

  /** Row numbers in [from, rows), with repeats. */
  rows(count: number, rows: number, from = 0): number[] {
    return Array.from({ length: rows > 0 || from < 0 ? count : 0 }, () => from + this.integer(rows - from));
  }

  axis(rank: number): number {
    const axis = this.integer(rank);
    return this.flip() ? axis : axis - rank;
  }

  /** Some distinct axes, or undefined for all. */
  axes(rank: number): number[] | undefined {
    if (this.uniform() < 0.2) return undefined;
    return Array.from({ length: rank }, (_, i) => i).filter(() => this.flip());
  }
}

const at = (h: Host, index: readonly number[]): number => {
  let n = 0;
  for (let axis = 0; axis < h.shape.length; axis++) n = n * h.shape[axis] + index[axis];
  return h.data[n];
};
