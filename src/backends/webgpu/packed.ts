// Packed weights (tensor/packing.ts) as kernels see them: a binding of u32 words, where a row begins, and the WGSL that
// decodes it with plain bit arithmetic, on any adapter. Which kernels read them is not decided here.

import { packedMatrix, packings, packedWeightBytes, type Packing } from '../../tensor/packing.js';
import type { View } from '../backend.js';

/** A packed view [rows, columns], or its transpose, counted in 32-bit words. */
export interface PackedRows {
  readonly packing: Packing;
  /** The view's last two axes are [columns, rows]. */
  readonly transposed: boolean;
  readonly rows: number;
  readonly columns: number;
  readonly rowWords: number;
  /** Where in a row the scales begin. */
  readonly scaleWord: number;
  /** Word of the first row. */
  readonly offset: number;
}

export function packedRows(view: View): PackedRows | undefined {
  if (!view.packing) return undefined;
  const { packing, transposed, rows, columns, rowBytes, byteOffset } = packedMatrix(view);
  return {
    packing,
    transposed,
    rows,
    columns,
    rowWords: rowBytes / 4,
    scaleWord: packedWeightBytes(packing, columns) >> 2,
    offset: byteOffset / 4,
  };
}

/** Formats with scales, whose blocks have 32 weights. */
export const isScaled = (packing: Packing): boolean => packings[packing].scales > 0;
/** Words of weights in a block of 32. */
export const blockWords = (packing: Packing): number => packings[packing].blockBytes / 4;

/**
 * Four quants of a word as weights, shifting no lanes, which software does one at a time: bits are masked where they
 * are, converted to f32, and the power of two is taken out of the scale. d q is exact, so a weight is rounded once.
 */
function quantFunctions(packing: Packing, half: 'low' | 'high'): string {
  const bits =
    packing === 'q8_0'
      ? // The sign bits of the lower three are flipped, which adds 128; the fourth is the sign of the word.
        'vec4<i32>(bitcast<i32>(word) ^ 0x00808080) & vec4<i32>(0x000000ff, 0x0000ff00, 0x00ff0000, -16777216)'
      : half === 'low'
        ? 'vec4<i32>(bitcast<i32>(word)) & vec4<i32>(0x0000000f, 0x00000f00, 0x000f0000, 0x0f000000)'
        : 'vec4<i32>(vec3<i32>(bitcast<i32>(word)), bitcast<i32>(word >> 4u)) & vec4<i32>(0x000000f0, 0x0000f000, 0x00f00000, 0x0f000000)';
  const shares = (half === 'low' ? [0, 8, 16, 24] : [4, 12, 20, 24]).map(shift => `${2 ** -shift}f`);
  const bias =
    packing === 'q8_0'
      ? 's.x * vec4<f32>(-128.0, -128.0, -128.0, 0.0)'
      : packing === 'q4_0'
        ? 'vec4<f32>(-8.0 * s.x)'
        : 'vec4<f32>(s.y)';
  return `fn ${half}(word: u32) -> vec4<f32> { return vec4<f32>(${bits}); }
fn ${half}Scale(s: vec2<f32>) -> array<vec4<f32>, 2> { return array<vec4<f32>, 2>(s.x * vec4<f32>(${shares.join(', ')}), ${bias}); }`;
}

/**
 * The functions of one packing, reading the array<u32> named `buffer`; `row` is a row's first word.
 * - pair(word): two weights of f16 or bf16.
 * - scaling(row + scaleWord, block): (d, m) of a block of 32.
 * - low(word) * lowScale(s)[0] + lowScale(s)[1]: four weights of a block whose scaling is s; high: those 16 further on,
 *   of the same word (q4).
 *   either(word, half), eitherScale(s, half): high if half is not 0.
 * - weights(row, scales, c): four weights from column c on, a multiple of 4; `scales` is row + scaleWord.
 * - weight(row, c): one weight (f16, bf16).
 */
export function unpackFunctions(packing: Packing, buffer: string): string {
  if (packing === 'f16' || packing === 'bf16') {
    const pair =
      packing === 'f16' ? 'unpack2x16float(word)' : 'bitcast<vec2<f32>>(vec2<u32>(word * 65536u, word & 0xffff0000u))';
    return `fn pair(word: u32) -> vec2<f32> { return ${pair}; }
fn weights(row: u32, scales: u32, c: u32) -> vec4<f32> {
  let at = row + (c >> 1u);
  return vec4<f32>(pair(${buffer}[at]), pair(${buffer}[at + 1u]));
}
fn weight(row: u32, c: u32) -> f32 {
  let two = pair(${buffer}[row + (c >> 1u)]);
  return select(two.x, two.y, (c & 1u) == 1u);
}`;
  }
  const scaling =
    packing === 'q4_1'
      ? `return halves(${buffer}[scales + block]);`
      : `let two = halves(${buffer}[scales + (block >> 1u)]);
  return vec2<f32>(select(two.x, two.y, (block & 1u) == 1u), 0.0);`;
  // Scales are often denormal in f16, and drivers may take those for zero in unpack2x16float.
  return `fn halves(word: u32) -> vec2<f32> {
  let magnitude = vec2<i32>(bitcast<i32>(word)) & vec2<i32>(0x7fff, 0x7fff0000);
  let tiny = vec2<f32>(magnitude) * vec2<f32>(${2 ** -24}f, ${2 ** -40}f);
  let signed = select(tiny, -tiny, (vec2<u32>(word) & vec2<u32>(0x8000u, 0x80000000u)) != vec2<u32>(0u));
  return select(unpack2x16float(word), signed, magnitude < vec2<i32>(0x0400, 0x04000000));
}
fn scaling(scales: u32, block: u32) -> vec2<f32> {
  ${scaling}
}
${quantFunctions(packing, 'low')}
${
  packing === 'q8_0'
    ? `fn weights(row: u32, scales: u32, c: u32) -> vec4<f32> {
  let s = lowScale(scaling(scales, c >> 5u));
  return low(${buffer}[row + (c >> 2u)]) * s[0] + s[1];
}`
    : `${quantFunctions(packing, 'high')}
fn either(word: u32, half: u32) -> vec4<f32> { return select(low(word), high(word), half != 0u); }
fn eitherScale(s: vec2<f32>, half: u32) -> array<vec4<f32>, 2> {
  let below = lowScale(s);
  let above = highScale(s);
  return array<vec4<f32>, 2>(select(below[0], above[0], half != 0u), select(below[1], above[1], half != 0u));
}
fn weights(row: u32, scales: u32, c: u32) -> vec4<f32> {
  let s = eitherScale(scaling(scales, c >> 5u), c & 16u);
  return either(${buffer}[row + ((c >> 5u) << 2u) + ((c & 15u) >> 2u)], c & 16u) * s[0] + s[1];
}`
}`;
}
