// The two matrix product kernels as WGSL. registerTile: each invocation keeps a tile of the product in registers and shares nothing, the
// faster one where a workgroup is a loop (software). workgroupTile: a workgroup of 16 x 16 keeps 64 x 64 of the product and loads both
// operands through shared memory. Sizes and strides are parameters; how elements are loaded (alone, in fours along k, in fours across)
// is structure.

import { emitOffsets, type AxisWords } from './operands.js';
import { word } from './params.js';

/** Vectors of four run along k, or across it (rows of a, columns of b). */
export type Loads = 'single' | 'alongK' | 'across';

export interface MatmulStructure {
  readonly a: Loads;
  readonly b: Loads;
  /** The tile of one invocation. Columns are a multiple of 4. */
  readonly rows: number;
  readonly columns: number;
  /** Invocations of a workgroup along columns and rows. */
  readonly across: number;
  readonly down: number;
}

/** Positions of the parameters; strides as [m, k], [k, n], [m, n]. */
export interface MatmulWords {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: readonly [number, number];
  readonly b: readonly [number, number];
  readonly output: readonly [number, number];
  readonly offsets: readonly number[];
  readonly batch: AxisWords;
}

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const component = (i: number): string => 'xyzw'[i & 3];

const declarations = ({ a, b }: MatmulStructure): string => `
@group(0) @binding(1) var<storage, read> a: array<${a === 'single' ? 'f32' : 'vec4<f32>'}>;
@group(0) @binding(2) var<storage, read> b: array<${b === 'single' ? 'f32' : 'vec4<f32>'}>;
@group(0) @binding(3) var<storage, read_write> product: array<f32>;`;

const batchOffsets = (words: MatmulWords): string => emitOffsets('group.z', 'o', words.offsets.map(word), words.batch);

/** Stores rows x columns of `value(i, j)`, edges checked. */
function stores(rows: number, columns: number, words: MatmulWords, value: (i: number, j: number) => string): string {
  const column = upTo(columns).map(j => `let stored${j} = o2 + (column + ${j}u) * ${word(words.output[1])};`);
  const lines = upTo(rows).map(i => `if (row + ${i}u < ${word(words.m)}) {
    let at = (row + ${i}u) * ${word(words.output[0])};
    ${upTo(columns).map(j => `if (column + ${j}u < ${word(words.n)}) { product[at + stored${j}] = ${value(i, j)}; }`).join('\n    ')}
  }`);
  return [...column, ...lines].join('\n  ');
}

export function registerTile(structure: MatmulStructure, words: MatmulWords): string {
  const { a, b, rows, columns, across, down } = structure;
  const step = a === 'alongK' || b === 'alongK' ? 4 : 1;
  const [m, n] = [word(words.m), word(words.n)];
  const [am, ak, bk, bn] = [...words.a, ...words.b].map(word);
  // Software compilers move little out of loops: it is done here.
  const lines: string[] = [`let depth = ${word(words.k)};`, `let aStep = ${ak};`, `let bStep = ${bk};`];
  // Where each row of a and column of b begins; beyond the edge the last one is read again and not stored.
  if (a === 'across') for (const i of upTo(rows / 4)) lines.push(`let a${i} = o0 + min(row + ${4 * i}u, ${m} - 4u) * ${am};`);
  else for (const i of upTo(rows)) lines.push(`let a${i} = o0 + min(row + ${i}u, ${m} - 1u) * ${am};`);
  if (b === 'across') for (const j of upTo(columns / 4)) lines.push(`let b${j} = o1 + min(column + ${4 * j}u, ${n} - 4u) * ${bn};`);
  else for (const j of upTo(columns)) lines.push(`let b${j} = o1 + min(column + ${j}u, ${n} - 1u) * ${bn};`);
  for (const i of upTo(rows)) for (const j of upTo(columns / 4)) lines.push(`var c${i}_${j} = vec4<f32>(0.0);`);

  const body: string[] = ['let pa0 = p * aStep;', 'let pb0 = p * bStep;'];
  if (a === 'alongK') for (const i of upTo(rows)) body.push(`let x${i} = a[(a${i} + p) >> 2u];`);
  if (b === 'alongK') for (const j of upTo(columns)) body.push(`let y${j} = b[(b${j} + p) >> 2u];`);
  for (const q of upTo(step)) {
    if (q > 0) body.push(`let pa${q} = pa${q - 1} + aStep;`, `let pb${q} = pb${q - 1} + bStep;`);
    if (a === 'single') for (const i of upTo(rows)) body.push(`let x${i}_${q} = a[a${i} + pa${q}];`);
    if (a === 'across') for (const i of upTo(rows / 4)) body.push(`let x${i}_${q} = a[(a${i} + pa${q}) >> 2u];`);
    const x = (i: number): string => (a === 'alongK' ? `x${i}.${component(q)}` : a === 'across' ? `x${i >> 2}_${q}.${component(i)}` : `x${i}_${q}`);
    for (const j of upTo(columns / 4)) {
      const four = upTo(4).map(h => 4 * j + h);
      const value = b === 'across' ? `b[(b${j} + pb${q}) >> 2u]`
        : `vec4<f32>(${four.map(h => (b === 'alongK' ? `y${h}.${component(q)}` : `b[b${h} + pb${q}]`)).join(', ')})`;
      body.push(`let z${j}_${q} = ${value};`);
    }
    for (const i of upTo(rows)) for (const j of upTo(columns / 4)) body.push(`c${i}_${j} += ${x(i)} * z${j}_${q};`);
  }
  return `${declarations(structure)}
@compute @workgroup_size(${across}, ${down})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let row = (group.y * ${down}u + lane.y) * ${rows}u;
  let column = (group.x * ${across}u + lane.x) * ${columns}u;
  if (row >= ${m} || column >= ${n}) { return; }
  ${batchOffsets(words)}
  ${lines.join('\n  ')}
  for (var p = 0u; p < depth; p += ${step}u) {
    ${body.join('\n    ')}
  }
  ${stores(rows, columns, words, (i, j) => `c${i}_${j >> 2}.${component(j)}`)}
}`;
}

const side = 64;
const depth = 16;

/**
 * Copies a panel of 64 rows (or columns) by 16 steps of k into shared memory, [k, 64], zeros beyond the edges. `t` is the invocation's
 * number of 256; each moves four elements.
 */
function loadPanel(name: 'a' | 'b', loads: Loads, words: MatmulWords): string {
  const [outer, inner] = name === 'a' ? [words.a[0], words.a[1]] : [words.b[1], words.b[0]];
  const [limit, first, offset] = name === 'a' ? [words.m, 'firstRow', 'o0'] : [words.n, 'firstColumn', 'o1'];
  const panel = `${name}Panel`;
  if (loads === 'alongK') {
    return `{
      let at = t >> 2u;
      let q = (t & 3u) * 4u;
      var v = vec4<f32>(0.0);
      if (${first} + at < ${word(limit)} && p + q < ${word(words.k)}) { v = ${name}[(${offset} + (${first} + at) * ${word(outer)} + (p + q) * ${word(inner)}) >> 2u]; }
      ${upTo(4).map(h => `${panel}[(q + ${h}u) * ${side}u + at] = v.${component(h)};`).join('\n      ')}
    }`;
  }
  const load = loads === 'across'
    ? `if (${first} + at < ${word(limit)} && p + q < ${word(words.k)}) { v = ${name}[(${offset} + (${first} + at) * ${word(outer)} + (p + q) * ${word(inner)}) >> 2u]; }`
    : upTo(4).map(h => `if (${first} + at + ${h}u < ${word(limit)} && p + q < ${word(words.k)}) {
        v.${component(h)} = ${name}[${offset} + (${first} + at + ${h}u) * ${word(outer)} + (p + q) * ${word(inner)}];
      }`).join('\n      ');
  return `{
      let at = (t & 15u) * 4u;
      let q = t >> 4u;
      var v = vec4<f32>(0.0);
      ${load}
      ${upTo(4).map(h => `${panel}[q * ${side}u + at + ${h}u] = v.${component(h)};`).join('\n      ')}
    }`;
}

export function workgroupTile(structure: MatmulStructure, words: MatmulWords): string {
  return `${declarations(structure)}
var<workgroup> aPanel: array<f32, ${side * depth}>;
var<workgroup> bPanel: array<f32, ${side * depth}>;
@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let t = lane.y * 16u + lane.x;
  let firstRow = group.y * ${side}u;
  let firstColumn = group.x * ${side}u;
  let row = firstRow + lane.y * 4u;
  let column = firstColumn + lane.x * 4u;
  ${batchOffsets(words)}
  ${upTo(4).map(i => `var c${i} = vec4<f32>(0.0);`).join('\n  ')}
  for (var p = 0u; p < ${word(words.k)}; p += ${depth}u) {
    ${loadPanel('a', structure.a, words)}
    ${loadPanel('b', structure.b, words)}
    workgroupBarrier();
    for (var q = 0u; q < ${depth}u; q++) {
      let x = q * ${side}u + lane.y * 4u;
      let y = q * ${side}u + lane.x * 4u;
      let z = vec4<f32>(bPanel[y], bPanel[y + 1u], bPanel[y + 2u], bPanel[y + 3u]);
      ${upTo(4).map(i => `c${i} += aPanel[x + ${i}u] * z;`).join('\n      ')}
    }
    workgroupBarrier();
  }
  ${stores(4, 4, words, (i, j) => `c${i}.${component(j)}`)}
}`;
}
