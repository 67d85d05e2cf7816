// What the two matrix product kernels (./registerTile.ts, ./workgroupTile.ts) share: how their structure and parameters
// are described, the bindings, the parts of a long k, and storing a tile. Sizes and strides are parameters; how
// elements are loaded (alone, in fours along k, in fours across, packed) is structure.

import type { Packing } from '../../tensor/packing.js';
import { emitOffsets, type AxisWords } from './operands.js';
import { unpackFunctions } from './packed.js';
import { word } from './params.js';

/** Vectors of four run along k, or across it (rows of a, columns of b). */
export type Loads = 'single' | 'alongK' | 'across';

export interface MatmulStructure {
  readonly a: Loads;
  /**
   * Packed: 'alongK' for rows along k, 'across' for rows along n, and 'single' for either where a row is no multiple of
   * four (see `bTransposed`).
   */
  readonly b: Loads;
  readonly packing?: Packing;
  /** Rows of a packed b run along k. */
  readonly bTransposed: boolean;
  /** The tile of one invocation. Columns are a multiple of 4. */
  readonly rows: number;
  readonly columns: number;
  /** Invocations of a workgroup along columns and rows, and those that share one tile, each with its part of k. */
  readonly across: number;
  readonly down: number;
  readonly slices: number;
  /** k is taken in parts, whose sums are added in memory. */
  readonly long: boolean;
}

/** The most terms that an invocation adds up in one chain: rounding errors grow with its length. */
export const longestChain = 1024;
/** Terms of each chain where there are more. */
const chain = 256;

/** Positions of the parameters; strides as [m, k], [k, n], [m, n]. */
export interface MatmulWords {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: readonly [number, number];
  /** Packed: words from row to row on the axis that rows are numbered along, the other is not used. */
  readonly b: readonly [number, number];
  readonly output: readonly [number, number];
  readonly offsets: readonly number[];
  /** Where in a packed row its scales begin. */
  readonly scales: number;
  readonly batch: AxisWords;
}

export const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
export const component = (i: number): string => 'xyzw'[i & 3];

export function declarations({ a, b, packing }: MatmulStructure): string {
  const element = (loads: Loads): string => (loads === 'single' ? 'f32' : 'vec4<f32>');
  return `
@group(0) @binding(1) var<storage, read> a: array<${element(a)}>;
@group(0) @binding(2) var<storage, read> b: array<${packing ? 'u32' : element(b)}>;
@group(0) @binding(3) var<storage, read_write> product: array<f32>;
${packing ? unpackFunctions(packing, 'b') : ''}`;
}

export const batchOffsets = (words: MatmulWords): string =>
  emitOffsets('group.z', 'o', words.offsets.map(word), words.batch);

/**
 * A loop along k with its stores, as `part` writes it for some turns, of `terms` of k each: for all up to `last`, or
 * for each part of a long k.
 */
export function inParts(
  { long, slices }: MatmulStructure,
  terms: number,
  last: string,
  part: (from: string, to: string) => string,
): string {
  if (!long) return part('0u', last);
  const turns = (chain * slices) / terms;
  return `for (var from_ = 0u; from_ < ${last}; from_ += ${turns}u) {
    let to = min(from_ + ${turns}u, ${last});
    ${part('from_', 'to')}
  }`;
}

/** Stores one element, inside `inParts`. */
export const store = ({ long }: MatmulStructure, at: string, value: string): string =>
  `product[${at}] = ${value}${long ? ` + select(0.0, product[${at}], from_ > 0u)` : ''};`;

/** Stores rows x columns of `value(i, j)`, edges checked. */
export function stores(
  structure: MatmulStructure,
  words: MatmulWords,
  value: (i: number, j: number) => string,
): string {
  const { rows, columns } = structure;
  const column = upTo(columns).map(j => `let stored${j} = o2 + (column + ${j}u) * ${word(words.output[1])};`);
  const lines = upTo(rows).map(
    i => `if (row + ${i}u < ${word(words.m)}) {
    let at = (row + ${i}u) * ${word(words.output[0])};
    ${upTo(columns)
      .map(j => `if (column + ${j}u < ${word(words.n)}) { ${store(structure, `at + stored${j}`, value(i, j))} }`)
      .join('\n    ')}
  }`,
  );
  return [...column, ...lines].join('\n  ');
}
