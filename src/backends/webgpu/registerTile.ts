// The matrix product in registers: each invocation keeps a tile of the product and reads its operands itself. The
// faster kernel where a workgroup is a loop (software), and everywhere for few rows: then several invocations (slices)
// share a tile, each takes every so-many-th step of k, and their sums are added in shared memory. That is the product
// of a matrix and a vector, and of few rows and columns with a long k.

import { blockWords, isScaled } from './packed.js';
import {
  batchOffsets,
  component,
  declarations,
  inParts,
  store,
  stores,
  upTo,
  type MatmulStructure,
  type MatmulWords,
} from './matmulWgsl.js';
import { word } from './params.js';

/** Most f32 of shared memory that every device has. */
const sharedFloats = 4096;

/** How many invocations may share a tile: what they must keep in shared memory fits. */
export const mostSlices = (rows: number, columns: number): number => Math.floor(sharedFloats / (rows * columns));

export function registerTile(structure: MatmulStructure, words: MatmulWords): string {
  const { rows, columns, across, down, slices } = structure;
  const [m, n] = [word(words.m), word(words.n)];
  const vectors = columns / 4;
  const sums = upTo(rows).flatMap(i => upTo(vectors).map(j => `var c${i}_${j} = vec4<f32>(0.0);`));
  const index = 'lane.y * ' + `${across * slices}u + lane.x`;
  // Neighbours in a workgroup read neighbouring memory: along k where rows of b lie along k, else across columns.
  const alongK = structure.b === 'alongK' || structure.bTransposed;
  const places =
    slices === 1
      ? ['lane.x', '0u']
      : alongK
        ? [`lane.x / ${slices}u`, `lane.x % ${slices}u`]
        : [`lane.x % ${across}u`, `lane.x / ${across}u`];
  const { before, last, terms, turn } = (structure.packing && structure.b === 'alongK' ? packedAlongK : steps)(
    structure,
    words,
  );
  const shared = slices > 1 ? `var<workgroup> parts: array<f32, ${rows * columns * across * down * slices}>;` : '';
  const finish =
    slices > 1 ? sliceSums(structure, words) : stores(structure, words, (i, j) => `c${i}_${j >> 2}.${component(j)}`);
  const part = (from: string, to: string): string => `${sums.join('\n  ')}
  for (var t = ${from} + slice; t < ${to}; t += ${slices}u) {
    ${turn.join('\n    ')}
  }
  ${finish}`;
  return `${declarations(structure)}
${shared}
@compute @workgroup_size(${across * slices}, ${down})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let index = ${index};
  let slice = ${places[1]};
  let row = (group.y * ${down}u + lane.y) * ${rows}u;
  let column = (group.x * ${across}u + ${places[0]}) * ${columns}u;
  ${slices === 1 ? `if (row >= ${m} || column >= ${n}) { return; }` : ''}
  ${batchOffsets(words)}
  let depth = ${word(words.k)};
  let aStep = ${word(words.a[1])}${structure.a === 'across' ? ' >> 2u' : ''};
  ${rowStarts(structure, words).join('\n  ')}
  ${before.join('\n  ')}
  let last = ${last};
  ${inParts(structure, terms, 'last', part)}
}`;
}

/** The loop along k: what goes before it, and the text of turn `t` of `last`, which takes `terms` of k. */
interface Turns {
  readonly before: readonly string[];
  readonly last: string;
  readonly terms: number;
  readonly turn: readonly string[];
}

/**
 * Where each row of a begins, a0, a1..., in vectors where it is read in vectors; beyond the edge the last one is read
 * again and not stored. Software compilers move little out of loops, and shift one lane at a time.
 */
function rowStarts({ a, rows }: MatmulStructure, words: MatmulWords): string[] {
  const [m, am] = [word(words.m), word(words.a[0])];
  if (a === 'across')
    return upTo(rows / 4).map(i => `let a${i} = (o0 + min(row + ${4 * i}u, ${m} - 4u) * ${am}) >> 2u;`);
  const [from, to] = a === 'alongK' ? ['(', ') >> 2u'] : ['', ''];
  return upTo(rows).map(i => `let a${i} = ${from}o0 + min(row + ${i}u, ${m} - 1u) * ${am}${to};`);
}

/** Loads four steps of a from 4 * p4 on; `x(i, q)` names what was loaded. */
function fourOfA(
  { a, rows }: MatmulStructure,
  p4: string,
  tag: string,
): { lines: string[]; x: (i: number, q: number) => string } {
  if (a === 'alongK') {
    return {
      lines: upTo(rows).map(i => `let x${tag}${i} = a[a${i} + ${p4}];`),
      x: (i, q) => `x${tag}${i}.${component(q)}`,
    };
  }
  const lines = upTo(4).map(q => `let pa${tag}${q} = (4u * ${p4} + ${q}u) * aStep;`);
  const loads = a === 'across' ? rows / 4 : rows;
  for (const q of upTo(4)) for (const i of upTo(loads)) lines.push(`let x${tag}${i}_${q} = a[a${i} + pa${tag}${q}];`);
  return { lines, x: (i, q) => (a === 'across' ? `x${tag}${i >> 2}_${q}.${component(i)}` : `x${tag}${i}_${q}`) };
}

/** The sums take one step of k: `x(i)` and the vectors `z(j)`. */
const accumulate = (rows: number, vectors: number, x: (i: number) => string, z: (j: number) => string): string[] =>
  upTo(rows).flatMap(i => upTo(vectors).map(j => `c${i}_${j} += ${x(i)} * ${z(j)};`));

/** In steps of four if either operand is read in fours along k. */
function steps(structure: MatmulStructure, words: MatmulWords): Turns {
  const { a, b, rows, columns, packing } = structure;
  const loadsAlongK = b === 'alongK' && !packing;
  const step = a === 'alongK' || loadsAlongK ? 4 : 1;
  const vectors = columns / 4;
  const body: string[] = [];
  const four = step === 4 ? fourOfA(structure, 't', '') : undefined;
  if (four) body.push(...four.lines, 'let p = 4u * t;');
  else
    body.push(
      'let p = t;',
      'let pa = p * aStep;',
      ...upTo(a === 'across' ? rows / 4 : rows).map(i => `let x${i} = a[a${i} + pa];`),
    );
  if (loadsAlongK) body.push(...upTo(columns).map(j => `let y${j} = b[b${j} + t];`));
  for (const q of upTo(step)) {
    const x = (i: number): string => four?.x(i, q) ?? (a === 'across' ? `x${i >> 2}.${component(i)}` : `x${i}`);
    if (!loadsAlongK) body.push(`let pb${q} = ${q === 0 ? 'p * bStep' : `pb${q - 1} + bStep`};`);
    body.push(...bValues(structure, words, q), ...accumulate(rows, vectors, x, j => `z${j}_${q}`));
  }
  const shifted = b === 'across' && !packing ? ' >> 2u' : '';
  const before = [`let bStep = ${word(words.b[0])}${shifted};`, ...columnStarts(structure, words)];
  return { before, last: `depth${step === 4 ? ' >> 2u' : ''}`, terms: step, turn: body };
}

/** Where each column (or four) of b begins. */
function columnStarts({ b, columns, packing, bTransposed }: MatmulStructure, words: MatmulWords): string[] {
  const [n, bn] = [word(words.n), word(words.b[1])];
  if (packing) {
    if (bTransposed) return upTo(columns).map(j => `let b${j} = o1 + min(column + ${j}u, ${n} - 1u) * ${bn};`);
    if (b === 'single') return upTo(columns).map(j => `let b${j} = min(column + ${j}u, ${n} - 1u);`);
    if (isScaled(packing)) {
      // A tile's columns lie in one half of a block of 32.
      return [
        `let begin = min(column, ${n} - ${columns}u);`,
        'let block = begin >> 5u;',
        'let half = begin & 16u;',
        `let w0 = o1 + ${packing === 'q8_0' ? '(begin >> 2u)' : '(block << 2u) + ((begin & 15u) >> 2u)'};`,
      ];
    }
    return upTo(columns / 4).map(j => `let b${j} = min(column + ${4 * j}u, ${n} - 4u);`);
  }
  if (b === 'across')
    return upTo(columns / 4).map(j => `let b${j} = (o1 + min(column + ${4 * j}u, ${n} - 4u) * ${bn}) >> 2u;`);
  const [from, to] = b === 'alongK' ? ['(', ') >> 2u'] : ['', ''];
  return upTo(columns).map(j => `let b${j} = ${from}o1 + min(column + ${j}u, ${n} - 1u) * ${bn}${to};`);
}

/** z0_q, z1_q...: b at step p + q of k, in fours of columns. */
function bValues(structure: MatmulStructure, words: MatmulWords, q: number): string[] {
  const { b, columns, packing, bTransposed } = structure;
  const fours = (value: (h: number) => string): string[] =>
    upTo(columns / 4).map(
      j =>
        `let z${j}_${q} = vec4<f32>(${upTo(4)
          .map(h => value(4 * j + h))
          .join(', ')});`,
    );
  if (packing && bTransposed) return fours(h => `weight(b${h}, p + ${q}u)`);
  if (packing && b === 'single') return fours(h => `weight(o1 + pb${q}, b${h})`);
  if (packing && !isScaled(packing))
    return upTo(columns / 4).map(j => `let z${j}_${q} = weights(o1 + pb${q}, 0u, b${j});`);
  if (packing) {
    const [half, which] = packing === 'q8_0' ? ['low', ''] : ['either', ', half'];
    return [
      `let s${q} = ${half}Scale(scaling(o1 + pb${q} + ${word(words.scales)}, block)${which});`,
      ...upTo(columns / 4).map(j => `let z${j}_${q} = ${half}(b[w0 + pb${q} + ${j}u]${which}) * s${q}[0] + s${q}[1];`),
    ];
  }
  if (b === 'across') return upTo(columns / 4).map(j => `let z${j}_${q} = b[b${j} + pb${q}];`);
  return fours(h => (b === 'alongK' ? `y${h}.${component(q)}` : `b[b${h} + pb${q}]`));
}

/** Where each column of b is a packed row: by blocks, whose scales are read once, and words of each. */
function packedAlongK(structure: MatmulStructure, words: MatmulWords): Turns {
  const { rows, columns } = structure;
  const packing = structure.packing as NonNullable<MatmulStructure['packing']>;
  const before = columnStarts(structure, words);
  const four = (p: string, tag: string, values: (j: number) => string): string[] => {
    const { lines, x } = fourOfA(structure, p, tag);
    return [
      ...lines,
      ...upTo(columns).map(j => `let y${tag}${j} = ${values(j)};`),
      ...upTo(4).flatMap(q =>
        accumulate(
          rows,
          columns / 4,
          i => x(i, q),
          j =>
            `vec4<f32>(${upTo(4)
              .map(h => `y${tag}${4 * j + h}.${component(q)}`)
              .join(', ')})`,
        ),
      ),
    ];
  };
  if (!isScaled(packing)) {
    return { before, last: 'depth >> 2u', terms: 4, turn: four('t', 'l', j => `weights(b${j}, 0u, 4u * t)`) };
  }
  const each = upTo(columns);
  const block = blockWords(packing);
  const halves = packing === 'q8_0' ? ['low'] : ['low', 'high'];
  const scales = each.flatMap(j => [
    `let s${j} = scaling(b${j} + ${word(words.scales)}, t);`,
    ...halves.map(h => `let ${h}${j} = ${h}Scale(s${j});`),
  ]);
  const body = [
    ...each.map(j => `let v${j} = b[b${j} + w];`),
    ...halves.flatMap((h, i) => four(i === 0 ? 'p4' : '(p4 + 4u)', h, j => `${h}(v${j}) * ${h}${j}[0] + ${h}${j}[1]`)),
  ];
  const perWord = `for (var i = 0u; i < ${block}u; i++) {
      let w = t * ${block}u + i;
      let p4 = t * 8u + i;
      ${body.join('\n      ')}
    }`;
  return { before, last: 'depth >> 5u', terms: 32, turn: [...scales, perWord] };
}

/** Adds the slices of each tile: one invocation sums one element. */
function sliceSums(structure: MatmulStructure, words: MatmulWords): string {
  const { rows, columns, across, down, slices, long } = structure;
  const tile = rows * columns;
  const threads = across * down * slices;
  const parts = upTo(rows).flatMap(i =>
    upTo(columns).map(j => `parts[mine + ${(i * columns + j) * slices}u] = c${i}_${j >> 2}.${component(j)};`),
  );
  return `let mine = (lane.y * ${across}u + (column / ${columns}u) % ${across}u) * ${tile * slices}u + slice;
  ${parts.join('\n  ')}
  workgroupBarrier();
  for (var e = index; e < ${tile * across * down}u; e += ${threads}u) {
    let place = e / ${tile}u;
    let i = (group.y * ${down}u + place / ${across}u) * ${rows}u + (e % ${tile}u) / ${columns}u;
    let j = (group.x * ${across}u + place % ${across}u) * ${columns}u + e % ${columns}u;
    var total = 0.0;
    for (var s = 0u; s < ${slices}u; s++) { total += parts[e * ${slices}u + s]; }
    if (i < ${word(words.m)} && j < ${word(words.n)}) { ${store(structure, `o2 + i * ${word(words.output[0])} + j * ${word(words.output[1])}`, 'total')} }
  }${long ? '\n  workgroupBarrier();' : ''}`;
}
