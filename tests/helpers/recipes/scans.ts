// Recipes of the recurrent ops: linear scans of sequences of different lengths, some of them without rows.

import { linearScan } from '../../../src/nn/linearScan.js';
import { tensor } from '../../../src/tensor/index.js';
import type { Draw } from '../draw.js';
import type { Host } from '../host.js';
import type { Recipe } from '../recipe.js';

const z = (...shape: number[]) => tensor.zeros(shape);

/** First rows of one to four sequences over `rows` rows, some of them empty. */
export function someStarts(d: Draw, rows: number): Int32Array {
  const later = Array.from({ length: d.integer(4) }, () => d.integer(rows + 1)).sort((a, b) => a - b);
  return Int32Array.of(0, ...later);
}

/** For each row, its sequence. */
export function sequenceOfRows(starts: Int32Array, rows: number): number[] {
  return Array.from({ length: rows }, (_, row) => starts.findLastIndex(start => start <= row));
}

/** With an initial state for each sequence, or with none. */
const scan = (carried: boolean): Recipe => ({
  name: 'fused.linearScan',
  fused: 'linearScan',
  errors: carried
    ? [
        [
          () => linearScan(z(3, 2), z(3, 2), Int32Array.of(0, 1), z(2, 3)),
          /^linearScan: the state is f32\[2,3\], expected f32\[2,2\]$/,
        ],
        [
          () => linearScan(z(3, 2), z(3, 2), Int32Array.of(0, 1), z(1, 2)),
          /^linearScan: the state is f32\[1,2\], expected f32\[2,2\]$/,
        ],
      ]
    : [
        [
          () => linearScan(z(3, 1), z(3, 2), Int32Array.of(0)),
          /^linearScan: a f32\[3,1\] and b f32\[3,2\] should both be floats \[N,\.\.\] of one shape$/,
        ],
        [() => linearScan(z(), z(), Int32Array.of(0)), /^linearScan: a f32\[\] and b f32\[\] should both be floats/],
        [
          () => linearScan(z(3, 2), z(3, 2), Int32Array.of(0, 2, 1)),
          /^linearScan: sequence 2 starts at row 1, expected a row from 2 to 3$/,
        ],
        [
          () => linearScan(z(3, 2), z(3, 2), Int32Array.of(0, 4)),
          /^linearScan: sequence 1 starts at row 4, expected a row from 0 to 3$/,
        ],
        [
          () => linearScan(z(3, 2), z(3, 2), Int32Array.of(1)),
          /^linearScan: the first sequence starts at row 1 of 3, expected row 0: every row belongs to a sequence$/,
        ],
        [
          () => linearScan(z(3, 2), z(3, 2), Int32Array.of()),
          /^linearScan: the first sequence starts at row none of 3, expected row 0/,
        ],
      ],
  make(d) {
    const shape = d.shape(1, 3);
    const starts = someStarts(d, shape[0]);
    const sequences = sequenceOfRows(starts, shape[0]);
    const inputs = [d.values(shape, { limit: 1.5 }), d.values(shape, { limit: 20 })];
    if (carried) inputs.push(d.values([starts.length, ...shape.slice(1)], { limit: 20 }));
    const compute = (given: readonly Host[], f: (x: number) => number): Host => {
      const [a, b, initial] = given;
      const column = shape.slice(1).reduce((n, side) => n * side, 1);
      const data = new Float64Array(b.data.length);
      for (let at = 0; at < data.length; at++) {
        const [row, rest] = [Math.floor(at / column), at % column];
        const isFirst = row === starts[sequences[row]];
        const before = !isFirst
          ? data[at - column]
          : initial
            ? f(initial.data[sequences[row] * column + rest])
            : undefined;
        data[at] = (before === undefined ? 0 : f(a.data[at]) * before) + f(b.data[at]);
      }
      return { shape, data, dtype: 'float' };
    };
    return {
      inputs,
      run: (a, b, initial) => linearScan(a, b, starts, initial ?? null).states,
      roundings: 2 * shape[0] + 4,
      gradientScale: 1,
      reference: (...given) => compute(given, x => x),
      magnitude: (...given) => compute(given, Math.abs),
    };
  },
});

export const scanRecipes: readonly Recipe[] = [scan(false), scan(true)];
