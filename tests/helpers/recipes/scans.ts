// Recipes of the recurrent ops: linear scans of sequences of different lengths, some of them without rows.

import { linearScan } from '../../../src/nn/linearScan.js';
import { selectiveScan, type SelectiveScanInput } from '../../../src/nn/selectiveScan.js';
import { concat } from '../../../src/tensor/layout.js';
import { tensor } from '../../../src/tensor/index.js';
import type { Tensor } from '../../../src/tensor/tensor.js';
import type { Draw } from '../draw.js';
import { build, get, type Host } from '../host.js';
import type { Recipe } from '../recipe.js';

/** Output and state in one tensor, so that both are looked at. */
export const joined = (output: Tensor, state: Tensor): Tensor => concat([output.flatten(), state.flatten()]);
export const flat = (...parts: readonly Host[]): Host => {
  const data = parts.flatMap(p => [...p.data]);
  return { shape: [data.length], data: Float64Array.from(data), dtype: 'float' };
};

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

/** With a state for each sequence before it, or with none. */
const selective = (carried: boolean): Recipe => ({
  name: 'fused.selectiveScan',
  fused: 'selectiveScan',
  gradientRoundings: [512, 'those of A, B and C sum over rows or channels what was multiplied along the rows'],
  errors: carried
    ? [
        [
          () => selectiveScan(someInput({}), Int32Array.of(0, 1), z(2, 3, 2)),
          /^selectiveScan: the state is f32\[2,3,2\], expected f32\[2,2,3\]$/,
        ],
      ]
    : [
        [
          () => selectiveScan(someInput({ B: z(4, 2) }), Int32Array.of(0)),
          /^selectiveScan: x \[4,2\], dt \[4,2\], A \[2,3\], B \[4,2\], C \[4,3\] and D \[2\] do not fit \[N,d\], \[N,d\], \[d,n\], \[N,n\], \[N,n\], \[d\]$/,
        ],
        [() => selectiveScan(someInput({ dt: z(4, 1) }), Int32Array.of(0)), /^selectiveScan: .* dt \[4,1\]/],
        [() => selectiveScan(someInput({ A: z(3, 2) }), Int32Array.of(0)), /^selectiveScan: .* A \[3,2\]/],
        [() => selectiveScan(someInput({ D: z(3) }), Int32Array.of(0)), /^selectiveScan: .* D \[3\]/],
        [
          () => selectiveScan(someInput({ D: tensor.zeros([2], { dtype: 'i32' }) }), Int32Array.of(0)),
          /^selectiveScan: expected six f32 or six f64 tensors, got f32, f32, f32, f32, f32, i32$/,
        ],
        [
          () => selectiveScan(someInput({}), Int32Array.of(0, 5)),
          /^selectiveScan: sequence 1 starts at row 5, expected a row from 0 to 4$/,
        ],
      ],
  make(d) {
    const [rows, channels, n] = d.smooth
      ? [d.integer(5), 1 + d.integer(3), 1 + d.integer(3)]
      : [d.side(20), d.side(70), 1 + d.integer(18)];
    const starts = someStarts(d, rows);
    const sequences = sequenceOfRows(starts, rows);
    const size = (limit: number, shape: number[]): Host => d.values(shape, { limit });
    const below = (h: Host): Host => ({ ...h, data: h.data.map(v => -Math.abs(v)) });
    const inputs = [
      size(8, [rows, channels]),
      d.positive([rows, channels], 0.01, 2),
      below(size(4, [channels, n])),
      size(3, [rows, n]),
      size(3, [rows, n]),
      size(3, [channels]),
    ];
    if (carried) inputs.push(size(8, [starts.length, channels, n]));
    const compute = ([x, dt, A, B, C, D, before]: readonly Host[], f: (v: number) => number): Host => {
      const isSize = f(-1) > 0;
      const h = build([starts.length, channels, n], index => (carried ? f(get(before, index)) : 0));
      const y = build([rows, channels], ([row, c]) => {
        let sum = f(get(D, [c]) * get(x, [row, c]));
        for (let k = 0; k < n; k++) {
          const at = (sequences[row] * channels + c) * n + k;
          const [step, rate] = [get(dt, [row, c]), get(A, [c, k])];
          // What is off in an exponent is off in the factor.
          const decay = Math.exp(step * rate) * (isSize ? 1 + Math.abs(step * rate) : 1);
          h.data[at] = decay * h.data[at] + f(step * get(B, [row, k]) * get(x, [row, c]));
          sum += f(get(C, [row, k])) * h.data[at];
        }
        return sum;
      });
      return flat(y, h);
    };
    return {
      inputs,
      run(x, dt, A, B, C, D, before) {
        const made = selectiveScan({ x, dt, A, B, C, D }, starts, before ?? null);
        return joined(made.output, made.state);
      },
      roundings: 8 * rows + n + 8,
      gradientScale: 1,
      reference: (...given) => compute(given, v => v),
      magnitude: (...given) => compute(given, Math.abs),
    };
  },
});

/** Four rows, two channels, three numbers a state. */
const someInput = (other: Partial<SelectiveScanInput>): SelectiveScanInput => ({
  x: z(4, 2),
  dt: z(4, 2),
  A: z(2, 3),
  B: z(4, 3),
  C: z(4, 3),
  D: z(2),
  ...other,
});

export const scanRecipes: readonly Recipe[] = [scan(false), scan(true), selective(false), selective(true)];
