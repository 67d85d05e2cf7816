// Attention where each invocation works alone on a tile of rows (or keys) in registers: the variant for software adapters, for which loads
// cost most. Everything about a tile is unrolled; only the loops along the head and along the other side of the scores are loops.

import { kernelText, masked, rowPlace, rowsThatMaySee, upTo, type AttentionStructure, type Declared } from './attentionWgsl.js';

export interface AloneStructure extends AttentionStructure {
  /** Rows (keys, for dk and dv) that an invocation keeps, and how many of the other side it takes at once: 4 or 8. */
  readonly kept: number;
  readonly taken: number;
}

/** Invocations of a workgroup: as many as software runs side by side. */
export const lanes = 4;

/** s${name}i_j: products of the rows of x at `x i` with those of y at `y j`. */
function scores(name: string, { vectors, kept, taken }: AloneStructure, x: readonly [string, string], y: readonly [string, string]): string {
  const pairs = upTo(kept).flatMap(i => upTo(taken).map(j => [i, j]));
  return `${pairs.map(([i, j]) => `var ${name}${i}_${j} = 0.0;`).join(' ')}
    for (var c = 0u; c < ${vectors}u; c++) {
      ${upTo(kept).map(i => `let x${i} = ${x[0]}[${x[1]}${i} + c];`).join(' ')}
      ${upTo(taken).map(j => `let y${j} = ${y[0]}[${y[1]}${j} + c];`).join(' ')}
      ${pairs.map(([i, j]) => `${name}${i}_${j} += dot(x${i}, y${j});`).join('\n      ')}
    }`;
}

/** Adds to the kept sums the rows of y with their weights; `decay` multiplies what was there. */
function product(sums: string, weight: string, { vectors, kept, taken }: AloneStructure, y: readonly [string, string], decay?: string): string {
  return upTo(vectors).map(c => `{
      ${upTo(taken).map(j => `let y${j} = ${y[0]}[${y[1]}${j} + ${c}u];`).join(' ')}
      ${upTo(kept).map(i => `${sums}[${i * vectors + c}] = ${sums}[${i * vectors + c}]${decay ? ` * ${decay}${i}` : ''} + ${
    upTo(taken).map(j => `${weight}${i}_${j} * y${j}`).join(' + ')};`).join('\n      ')}
    }`).join('\n    ');
}

/**
 * Sums of the kept rows, vector by vector. They are indexed by a variable once, where they are written out: so a software compiler leaves them
 * in memory, which it reads and writes at constant places at once, and does not drown in live variables.
 */
const zeros = (sums: string, { vectors, kept }: AloneStructure): string => `var ${sums}: array<vec4<f32>, ${kept * vectors}>;`;

/** Which tile, key head and batch row this invocation has; neighbours have the same tile of other heads. */
const place = `let number = workgroup * ${lanes}u + lane;
  let heads = batch * keyHeads;
  if (number >= heads * tiles * splits) { return; }
  let b = (number % heads) / keyHeads;
  let keyHead = number % keyHeads;
  let tile = (number / heads) % tiles;
  let split = number / (heads * tiles);`;

/** The rows of the tile: their numbers, addresses of q (and g), and the keys they see. */
function rowsOfTile({ kept }: AloneStructure, names: readonly ('q' | 'g')[]): string {
  return `let first = tile * ${kept}u;
  ${upTo(kept).map(i => `${rowPlace(`min(first + ${i}u, rows - 1u)`, i)}
  ${names.map(x => `let ${x}${i} = ${x}At + b * ${x}B + head${i} * ${x}H + t${i} * ${x}T;`).join(' ')}`).join('\n  ')}`;
}

const forwardBindings = (split: boolean): Declared[] => [
  { name: 'q', element: 'vec4<f32>' }, { name: 'k', element: 'vec4<f32>' }, { name: 'v', element: 'vec4<f32>' },
  { name: 'keyStart', element: 'i32' }, { name: 'keyEnd', element: 'i32' },
  { name: 'o', element: 'vec4<f32>', write: true }, { name: split ? 'stats' : 'lse', element: split ? 'vec2<f32>' : 'f32', write: true },
];

export function forwardAlone(s: AloneStructure): string {
  const { vectors, kept, taken, split } = s;
  const row = upTo(kept);
  const key = upTo(taken);
  const bindings = forwardBindings(split);
  const finish = row.map(i => `if (first + ${i}u < rows) {
    ${split ? `let at = split * heads * rows + number${i};
    stats[at] = vec2<f32>(top${i}, total${i});
    let part = 1.0;` : `let at = number${i};
    let seen = total${i} > 0.0;
    lse[lseAt + at] = select(total${i}, top${i} + logOf(total${i}), seen);
    let part = select(total${i}, 1.0 / total${i}, seen);`}
    for (var c = 0u; c < ${vectors}u; c++) { o[${split ? '' : 'oAt + '}at * ${vectors}u + c] = sums[${i * vectors}u + c] * part; }
  }`).join('\n  ');
  const body = `${place}
  let start = keyStart[startAt + b];
  let end = keyEnd[endAt + b];
  ${rowsOfTile(s, ['q'])}
  ${row.map(i => `let seen${i} = seenBy(t${i}, start, end, causal, causalOffset, window);
  var top${i} = ${masked}; var total${i} = 0.0;`).join('\n  ')}
  ${zeros('sums', s)}
  var from_ = seen0.x;
  var to = seen${kept - 1}.y;
  ${split ? `if (to > from_) {
    let share = ((to - from_ + splits * ${taken}u - 1u) / (splits * ${taken}u)) * ${taken}u;
    from_ += split * share;
    to = min(to, from_ + share);
  }` : ''}
  for (var s = from_; s < to; s += ${taken}u) {
    ${key.map(j => `let at${j} = min(s + ${j}u, keys - 1u); let k${j} = kAt + b * kB + keyHead * kH + at${j} * kT; let v${j} = vAt + b * vB + keyHead * vH + at${j} * vT;`).join('\n    ')}
    ${scores('s', s, ['q', 'q'], ['k', 'k'])}
    ${row.map(i => {
    const inside = key.map(j => `let in${i}_${j} = (s + ${j}u >= seen${i}.x) & (s + ${j}u < min(seen${i}.y, to));`).join(' ');
    const most = key.reduce((m, j) => `max(${m}, select(${masked}, s${i}_${j}, in${i}_${j}))`, `top${i}`);
    return `${inside}
    ${key.map(j => `s${i}_${j} *= scale;`).join(' ')}
    let most${i} = ${most};
    let decay${i} = expBelow(top${i} - most${i});
    top${i} = most${i};
    ${key.map(j => `let p${i}_${j} = select(0.0, expBelow(s${i}_${j} - most${i}), in${i}_${j});`).join(' ')}
    total${i} = total${i} * decay${i} + ${key.map(j => `p${i}_${j}`).join(' + ')};`;
  }).join('\n    ')}
    ${product('sums', 'p', s, ['v', 'v'], 'decay')}
  }
  ${finish}`;
  return kernelText(bindings, lanes, body, { functions: ['expBelow', 'logOf'] });
}

const backwardBindings: Declared[] = [
  { name: 'q', element: 'vec4<f32>' }, { name: 'k', element: 'vec4<f32>' }, { name: 'v', element: 'vec4<f32>' }, { name: 'g', element: 'vec4<f32>' },
  { name: 'about', element: 'vec4<u32>' },
];

/** With p the weights: ds = p (g V^T - sum(g o)) scale, dQ = ds K. */
export function queryGradientAlone(s: AloneStructure): string {
  const { vectors, kept, taken } = s;
  const row = upTo(kept);
  const key = upTo(taken);
  const bindings: Declared[] = [...backwardBindings, { name: 'dq', element: 'vec4<f32>', write: true }];
  const body = `${place}
  ${rowsOfTile(s, ['q', 'g'])}
  ${row.map(i => `let about${i} = about[number${i}]; let lse${i} = bitcast<f32>(about${i}.x); let inner${i} = bitcast<f32>(about${i}.y);`).join('\n  ')}
  ${zeros('sums', s)}
  let to = about${kept - 1}.w;
  for (var s = about0.z; s < to; s += ${taken}u) {
    ${key.map(j => `let at${j} = min(s + ${j}u, keys - 1u); let k${j} = kAt + b * kB + keyHead * kH + at${j} * kT; let v${j} = vAt + b * vB + keyHead * vH + at${j} * vT;`).join('\n    ')}
    ${scores('s', s, ['q', 'q'], ['k', 'k'])}
    ${scores('e', s, ['g', 'g'], ['v', 'v'])}
    ${row.flatMap(i => key.map(j => `s${i}_${j} = select(0.0, expBelow(s${i}_${j} * scale - lse${i}) * (e${i}_${j} - inner${i}) * scale, (s + ${j}u >= about${i}.z) & (s + ${j}u < about${i}.w));`)).join('\n    ')}
    ${product('sums', 's', s, ['k', 'k'])}
  }
  ${row.map(i => `if (first + ${i}u < rows) { for (var c = 0u; c < ${vectors}u; c++) { dq[number${i} * ${vectors}u + c] = sums[${i*vectors}u + c]; } }`).join('\n  ')}`;
  return kernelText(bindings, lanes, body, { functions: ['expBelow'] });
}

/** dV = p^T g, dK = ds^T Q; a tile of keys against the rows that may see them. */
export function keyGradientAlone(s: AloneStructure): string {
  const { vectors, kept, taken } = s;
  const key = upTo(kept);
  const row = upTo(taken);
  const bindings: Declared[] = [...backwardBindings, { name: 'dk', element: 'vec4<f32>', write: true }, { name: 'dv', element: 'vec4<f32>', write: true }];
  const body = `${place}
  let first = tile * ${kept}u;
  let last = min(first + ${kept - 1}u, keys - 1u);
  ${key.map(i => `let at${i} = min(first + ${i}u, keys - 1u); let k${i} = kAt + b * kB + keyHead * kH + at${i} * kT; let v${i} = vAt + b * vB + keyHead * vH + at${i} * vT;`).join('\n  ')}
  ${zeros('kSums', s)}
  ${zeros('vSums', s)}
  ${rowsThatMaySee}
  for (var r = from_; r < to; r += ${taken}u) {
    ${row.map(j => `${rowPlace(`min(r + ${j}u, rows - 1u)`, j)}
    let q${j} = qAt + b * qB + head${j} * qH + t${j} * qT; let g${j} = gAt + b * gB + head${j} * gH + t${j} * gT;
    let about${j} = about[number${j}];
    let past${j} = select(0u, about${j}.w, r + ${j}u < to);`).join('\n    ')}
    ${scores('s', s, ['k', 'k'], ['q', 'q'])}
    ${scores('e', s, ['v', 'v'], ['g', 'g'])}
    ${key.flatMap(i => row.map(j => `let in${i}_${j} = (first + ${i}u >= about${j}.z) & (first + ${i}u < past${j});
    s${i}_${j} = select(0.0, expBelow(s${i}_${j} * scale - bitcast<f32>(about${j}.x)), in${i}_${j});
    e${i}_${j} = select(0.0, s${i}_${j} * (e${i}_${j} - bitcast<f32>(about${j}.y)) * scale, in${i}_${j});`)).join('\n    ')}
    ${product('vSums', 's', s, ['g', 'g'])}
    ${product('kSums', 'e', s, ['q', 'q'])}
  }
  ${key.map(i => `if (first + ${i}u < keys) {
    let out = ((b * keyHeads + keyHead) * keys + first + ${i}u) * ${vectors}u;
    for (var c = 0u; c < ${vectors}u; c++) { dk[out + c] = kSums[${i * vectors}u + c]; dv[out + c] = vSums[${i * vectors}u + c]; }
  }`).join('\n  ')}`;
  return kernelText(bindings, lanes, body, { functions: ['expBelow'] });
}
