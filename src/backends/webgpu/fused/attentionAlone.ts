// Attention where each invocation works alone on a tile of rows (or of keys, for dk and dv): the variant for software
// adapters. There a load costs as much as ten products, unless it is from memory of the invocation's own at a constant
// place. So the tile and its sums lie there, and rows of the other side are loaded one at a time, each once, for
// everything they are needed for.

import { aboutRow, kernelText, masked, rowPlace, rowsThatMaySee, upTo, type Declared } from './attentionWgsl.js';

export interface AloneStructure {
  /** Length of a head in fours. */
  readonly vectors: number;
  /** Partial results, to be joined, instead of the output. */
  readonly split: boolean;
  /** Rows (keys, for dk and dv) of an invocation's tile. */
  readonly kept: number;
}

/** Invocations of a workgroup: as many as software runs side by side. */
export const lanes = 4;

/**
 * Memory of the invocation for `kept` rows. It is indexed by a variable in the loops that fill or store it, so a
 * software compiler does not make a variable of each element, in whose number it would drown.
 */
const memory = (name: string, { vectors, kept }: AloneStructure): string =>
  `var ${name}: array<vec4<f32>, ${kept * vectors}>;`;

/** Memory with the tile's rows of a buffer; row i begins at `at`i. */
const tileOf = (name: string, buffer: string, at: string, s: AloneStructure): string => `${memory(name, s)}
  for (var c = 0u; c < ${s.vectors}u; c++) {
    ${upTo(s.kept)
      .map(i => `${name}[c + ${i * s.vectors}u] = ${buffer}[${at}${i} + c];`)
      .join(' ')}
  }`;

/** One row of a buffer as y0, y1... */
const rowOf = (name: string, buffer: string, at: string, { vectors }: AloneStructure): string =>
  upTo(vectors)
    .map(c => `let ${name}${c} = ${buffer}[${at} + ${c}u];`)
    .join(' ');

/** `result`i: the products of the tile's rows and the row y. */
function products(result: string, tile: string, y: string, { vectors, kept }: AloneStructure): string {
  return upTo(kept)
    .map(
      i => `var ${result}${i} = dot(${tile}[${i * vectors}], ${y}0);
    ${upTo(vectors - 1)
      .map(c => `${result}${i} += dot(${tile}[${i * vectors + c + 1}], ${y}${c + 1});`)
      .join(' ')}`,
    )
    .join('\n    ');
}

/** Adds the row y to the sums, with a weight for each; `decay` multiplies what was there. */
function addRow(sums: string, weight: string, y: string, { vectors, kept }: AloneStructure, decay?: string): string {
  return upTo(kept)
    .map(i =>
      upTo(vectors)
        .map(c => {
          const sum = `${sums}[${i * vectors + c}]`;
          return `${sum} = ${sum}${decay ? ` * ${decay}${i}` : ''} + ${weight}${i} * ${y}${c};`;
        })
        .join(' '),
    )
    .join('\n    ');
}

/**
 * Which tile, key head and batch row this invocation has. Neighbours have the same tile of other heads; tiles that see
 * most come first.
 */
const place = `let place = workgroup * ${lanes}u + lane;
  let heads = batch * keyHeads;
  if (place >= heads * tiles * splits) { return; }
  let b = (place % heads) / keyHeads;
  let keyHead = place % keyHeads;
  let tile = tiles - 1u - (place / heads) % tiles;
  let split = place / (heads * tiles);`;

/** The rows of the tile: their numbers, addresses of q (and g), and the keys they see. */
function rowsOfTile({ kept }: AloneStructure, names: readonly ('q' | 'g')[]): string {
  return `let first = tile * ${kept}u;
  ${upTo(kept)
    .map(
      i => `${rowPlace(`min(first + ${i}u, rows - 1u)`, i)}
  ${names.map(x => `let ${x}From${i} = ${x}At + b * ${x}B + head${i} * ${x}H + t${i} * ${x}T;`).join(' ')}`,
    )
    .join('\n  ')}`;
}

const keyRow = (at: string, names: string): string =>
  `let k${names} = kAt + b * kB + keyHead * kH + ${at} * kT; let v${names} = vAt + b * vB + keyHead * vH + ${at} * vT;`;

export function forwardAlone(s: AloneStructure): string {
  const { vectors, kept, split } = s;
  const row = upTo(kept);
  const bindings: Declared[] = [
    { name: 'q', element: 'vec4<f32>' },
    { name: 'k', element: 'vec4<f32>' },
    { name: 'v', element: 'vec4<f32>' },
    { name: 'keyStart', element: 'i32' },
    { name: 'keyEnd', element: 'i32' },
    { name: 'o', element: 'vec4<f32>', write: true },
    { name: split ? 'stats' : 'lse', element: split ? 'vec2<f32>' : 'f32', write: true },
  ];
  const body = `${place}
  let start = keyStart[startAt + b];
  let end = keyEnd[endAt + b];
  ${rowsOfTile(s, ['q'])}
  ${row
    .map(
      i => `let seen${i} = seenBy(t${i}, start, end, causalOffset, behind, ahead);
  var top${i} = ${masked}; var total${i} = 0.0;`,
    )
    .join('\n  ')}
  ${tileOf('queryTile', 'q', 'qFrom', s)}
  ${memory('sums', s)}
  var from_ = seen0.x;
  var to = seen${kept - 1}.y;
  ${
    split
      ? `if (to > from_) {
    let share = (to - from_ + splits - 1u) / splits;
    from_ += split * share;
    to = min(to, from_ + share);
  }`
      : ''
  }
  for (var s = from_; s < to; s++) {
    ${keyRow('s', 'From')}
    ${rowOf('k', 'k', 'kFrom', s)}
    ${products('score', 'queryTile', 'k', s)}
    ${row
      .map(
        i => `let in${i} = (s >= seen${i}.x) & (s < seen${i}.y);
    let scaled${i} = select(${masked}, score${i} * scale, in${i});
    let most${i} = max(top${i}, scaled${i});
    let decay${i} = expBelow(top${i} - most${i});
    let p${i} = select(0.0, expBelow(scaled${i} - most${i}), in${i});
    top${i} = most${i};
    total${i} = total${i} * decay${i} + p${i};`,
      )
      .join('\n    ')}
    ${rowOf('v', 'v', 'vFrom', s)}
    ${addRow('sums', 'p', 'v', s, 'decay')}
  }
  ${row
    .map(
      i => `if (first + ${i}u < rows) {
    ${
      split
        ? `let at = split * heads * rows + number${i};
    stats[at] = vec2<f32>(top${i}, total${i});
    let part = 1.0;`
        : `let at = number${i};
    let seen = total${i} > 0.0;
    lse[lseAt + at] = select(total${i}, top${i} + logOf(total${i}), seen);
    let part = select(total${i}, 1.0 / total${i}, seen);`
    }
    for (var c = 0u; c < ${vectors}u; c++) { o[${split ? '' : 'oAt + '}at * ${vectors}u + c] = sums[c + ${i * vectors}u] * part; }
  }`,
    )
    .join('\n  ')}`;
  return kernelText(bindings, lanes, body, { functions: ['expBelow', 'logOf'] });
}

const backwardBindings: Declared[] = [
  { name: 'q', element: 'vec4<f32>' },
  { name: 'k', element: 'vec4<f32>' },
  { name: 'v', element: 'vec4<f32>' },
  { name: 'g', element: 'vec4<f32>' },
  { name: 'about', element: 'vec4<u32>' },
];

/** With p the weights: ds = p (g V^T - sum(g o)) scale, dQ = ds K. */
export function queryGradientAlone(s: AloneStructure): string {
  const { vectors, kept } = s;
  const row = upTo(kept);
  const bindings: Declared[] = [...backwardBindings, { name: 'dq', element: 'vec4<f32>', write: true }];
  const body = `${place}
  ${rowsOfTile(s, ['q', 'g'])}
  ${row.map(i => aboutRow(`about[number${i}]`, i)).join('\n  ')}
  ${tileOf('queryTile', 'q', 'qFrom', s)}
  ${tileOf('gradientTile', 'g', 'gFrom', s)}
  ${memory('sums', s)}
  let to = about${kept - 1}.w;
  for (var s = about0.z; s < to; s++) {
    ${keyRow('s', 'From')}
    ${rowOf('v', 'v', 'vFrom', s)}
    ${products('change', 'gradientTile', 'v', s)}
    ${rowOf('k', 'k', 'kFrom', s)}
    ${products('score', 'queryTile', 'k', s)}
    ${row
      .map(
        i => `let in${i} = (s >= about${i}.z) & (s < about${i}.w);
    let ds${i} = select(0.0, expBelow(score${i} * scale - lse${i}) * (change${i} - inner${i}) * scale, in${i});`,
      )
      .join('\n    ')}
    ${addRow('sums', 'ds', 'k', s)}
  }
  ${row
    .map(
      i => `if (first + ${i}u < rows) {
    for (var c = 0u; c < ${vectors}u; c++) { dq[number${i} * ${vectors}u + c] = sums[c + ${i * vectors}u]; }
  }`,
    )
    .join('\n  ')}`;
  return kernelText(bindings, lanes, body, { functions: ['expBelow'] });
}

/** dV = p^T g, dK = ds^T Q; a tile of keys against the rows that may see them. */
export function keyGradientAlone(s: AloneStructure): string {
  const { vectors, kept } = s;
  const key = upTo(kept);
  const bindings: Declared[] = [
    ...backwardBindings,
    { name: 'dk', element: 'vec4<f32>', write: true },
    { name: 'dv', element: 'vec4<f32>', write: true },
  ];
  const body = `${place}
  let first = tile * ${kept}u;
  let last = min(first + ${kept - 1}u, keys - 1u);
  ${key.map(i => `let at${i} = min(first + ${i}u, keys - 1u); ${keyRow(`at${i}`, `From${i}`)}`).join('\n  ')}
  ${tileOf('keyTile', 'k', 'kFrom', s)}
  ${tileOf('valueTile', 'v', 'vFrom', s)}
  ${memory('keySums', s)}
  ${memory('valueSums', s)}
  ${rowsThatMaySee}
  for (var r = from_; r < to; r++) {
    ${rowPlace('r', '')}
    let gFrom = gAt + b * gB + head * gH + t * gT;
    let qFrom = qAt + b * qB + head * qH + t * qT;
    ${aboutRow('about[number]', 'Own')}
    ${rowOf('q', 'q', 'qFrom', s)}
    ${products('score', 'keyTile', 'q', s)}
    ${rowOf('g', 'g', 'gFrom', s)}
    ${products('change', 'valueTile', 'g', s)}
    ${key
      .map(
        i => `let in${i} = (first + ${i}u >= aboutOwn.z) & (first + ${i}u < aboutOwn.w);
    let p${i} = select(0.0, expBelow(score${i} * scale - lseOwn), in${i});
    let ds${i} = select(0.0, p${i} * (change${i} - innerOwn) * scale, in${i});`,
      )
      .join('\n    ')}
    ${addRow('valueSums', 'p', 'g', s)}
    ${addRow('keySums', 'ds', 'q', s)}
  }
  ${key
    .map(
      i => `if (first + ${i}u < keys) {
    let out = ((b * keyHeads + keyHead) * keys + first + ${i}u) * ${vectors}u;
    for (var c = 0u; c < ${vectors}u; c++) { dk[out + c] = keySums[c + ${i * vectors}u]; dv[out + c] = valueSums[c + ${i * vectors}u]; }
  }`,
    )
    .join('\n  ')}`;
  return kernelText(bindings, lanes, body, { functions: ['expBelow'] });
}
