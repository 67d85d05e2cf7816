// Attention for GPUs: a workgroup of 64 keeps a tile of scores, 4 x 4 for each invocation, and sums of rows by columns
// of the head. Operands come through panels in shared memory, weights and rows of the other side too. All three kernels
// are made of the same two products.

import { aboutRow, kernelText, masked, rowPlace, rowsThatMaySee, upTo, type Declared } from './attentionWgsl.js';

export interface TogetherStructure {
  readonly split: boolean;
  /**
   * Vectors of a row that an invocation sums: `across` invocations share them, so the length of a head is a parameter.
   */
  readonly columns: number;
  /**
   * Invocations along the kept side of the scores and along the other: 8 x 8, or 2 x 32 for few queries. Each has 4
   * rows of either.
   */
  readonly down: number;
  readonly across: number;
}

export const invocationsTogether = 64;

/** Numbers of a head in a panel. */
const depth = 16;
/** Vectors of the other side's rows that are in shared memory for the second product. */
const chunkVectors = 128;

const four = upTo(4);
const component = (j: number): string => 'xyzw'[j];
const vector = (value: (j: number) => string): string => `vec4<f32>(${four.map(value).join(', ')})`;

/** Rows of an operand: its buffer, and where row `r` of the tile begins. */
interface Rows {
  readonly buffer: string;
  readonly from: (r: string) => string;
}

const shapeOf = ({ down, across }: TogetherStructure) => ({ kept: 4 * down, taken: 4 * across });

function sharedMemory(s: TogetherStructure, more = ''): string {
  const { kept, taken } = shapeOf(s);
  return `var<workgroup> xPanel: array<f32, ${depth * kept}>;
var<workgroup> yPanel: array<f32, ${depth * taken}>;
var<workgroup> weights: array<f32, ${kept * (taken + 1)}>;
var<workgroup> chunk: array<vec4<f32>, ${chunkVectors}>;
${more}`;
}

/** `result`0 to 3: products of this invocation's four rows of x with its four of y. */
function scores(result: string, s: TogetherStructure, x: Rows, y: Rows): string {
  const { kept, taken } = shapeOf(s);
  const load = (panel: string, { buffer, from }: Rows, count: number): string => `
      for (var e = lane; e < ${count * (depth / 4)}u; e += ${invocationsTogether}u) {
        let r = e / ${depth / 4}u;
        let c = e % ${depth / 4}u;
        var value = vec4<f32>(0.0);
        if (d + c < vectors) { value = ${buffer}[${from('r')} + d + c]; }
        ${four.map(j => `${panel}[(c * 4u + ${j}u) * ${count}u + r] = value.${component(j)};`).join(' ')}
      }`;
  return `${four.map(i => `var ${result}${i} = vec4<f32>(0.0);`).join(' ')}
    for (var d = 0u; d < vectors; d += ${depth / 4}u) {
      workgroupBarrier();
      ${load('xPanel', x, kept)}
      ${load('yPanel', y, taken)}
      workgroupBarrier();
      for (var p = 0u; p < ${depth}u; p++) {
        let at = p * ${taken}u + tx * 4u;
        let z = vec4<f32>(yPanel[at], yPanel[at + 1u], yPanel[at + 2u], yPanel[at + 3u]);
        ${four.map(i => `${result}${i} += xPanel[p * ${kept}u + ty * 4u + ${i}u] * z;`).join(' ')}
      }
    }`;
}

/** Shares this invocation's 4 x 4 weights. What was read of the ones before must lie behind a barrier. */
function share(weight: string, s: TogetherStructure): string {
  const { taken } = shapeOf(s);
  return four
    .flatMap(i =>
      four.map(j => `weights[(ty * 4u + ${i}u) * ${taken + 1}u + tx * 4u + ${j}u] = ${weight}${i}.${component(j)};`),
    )
    .join(' ');
}

/** Adds to the sums the rows of y by the shared weights. */
function product(sums: string, s: TogetherStructure, y: Rows): string {
  const { taken } = shapeOf(s);
  return `for (var first_ = 0u; first_ < ${taken}u; first_ += ${chunkVectors}u / vectors) {
      let count = min(${chunkVectors}u / vectors, ${taken}u - first_);
      workgroupBarrier();
      for (var e = lane; e < count * vectors; e += ${invocationsTogether}u) {
        let r = first_ + e / vectors;
        chunk[e] = ${y.buffer}[${y.from('r')} + e % vectors];
      }
      workgroupBarrier();
      for (var j = 0u; j < count; j++) {
        ${four.map(i => `let w${i} = weights[(ty * 4u + ${i}u) * ${taken + 1}u + first_ + j];`).join(' ')}
        ${upTo(s.columns)
          .map(c => `let y${c} = chunk[j * vectors + min(tx + ${c * s.across}u, vectors - 1u)];`)
          .join(' ')}
        ${four.flatMap(i => upTo(s.columns).map(c => `${sums}${i}_${c} += w${i} * y${c};`)).join(' ')}
      }
    }`;
}

const zeros = (sums: string, s: TogetherStructure): string =>
  four.flatMap(i => upTo(s.columns).map(c => `var ${sums}${i}_${c} = vec4<f32>(0.0);`)).join(' ');

/** The columns of a row that this invocation has, to `at` vectors on. */
const store = (target: string, at: string, s: TogetherStructure, value: (c: number) => string): string =>
  upTo(s.columns)
    .map(c => `if (tx + ${c * s.across}u < vectors) { ${target}[${at} + tx + ${c * s.across}u] = ${value(c)}; }`)
    .join(' ');

const place = ({ across }: TogetherStructure): string => `let heads = batch * keyHeads;
  if (workgroup >= heads * tiles * splits) { return; }
  let b = (workgroup % heads) / keyHeads;
  let keyHead = workgroup % keyHeads;
  let tile = tiles - 1u - (workgroup / heads) % tiles;
  let split = workgroup / (heads * tiles);
  let tx = lane % ${across}u;
  let ty = lane / ${across}u;`;

const keysAt = (first: string): { k: Rows; v: Rows } => ({
  k: { buffer: 'k', from: r => `kAt + b * kB + keyHead * kH + min(${first} + ${r}, keys - 1u) * kT` },
  v: { buffer: 'v', from: r => `vAt + b * vB + keyHead * vH + min(${first} + ${r}, keys - 1u) * vT` },
});
/** Rows whose places `shareRows` has put in shared memory. */
const queriesAt: { q: Rows; g: Rows } = {
  q: { buffer: 'q', from: r => `qFrom[${r}]` },
  g: { buffer: 'g', from: r => `gFrom[${r}]` },
};

const shareRows = (
  first: string,
  count: number,
  names: readonly ('q' | 'g')[],
  more = '',
): string => `if (lane < ${count}u) {
      ${rowPlace(`min(${first} + lane, rows - 1u)`, '')}
      ${names.map(x => `${x}From[lane] = ${x}At + b * ${x}B + head * ${x}H + t * ${x}T;`).join(' ')}
      ${more}
    }`;

/** Numbers of this invocation's four rows. */
const ownRows = four.map(i => rowPlace(`min(first + ty * 4u + ${i}u, rows - 1u)`, i)).join('\n  ');

/**
 * Joins what the invocations of a row have found, by way of shared memory: `name`i becomes the total or the maximum.
 */
const joined = (
  name: string,
  from: string,
  { across }: TogetherStructure,
  join: (a: string, b: string) => string,
): string => `workgroupBarrier();
    ${four.map(i => `found[(ty * 4u + ${i}u) * ${across}u + tx] = ${from}${i};`).join(' ')}
    workgroupBarrier();
    ${four.map(i => `var ${name}${i} = found[(ty * 4u + ${i}u) * ${across}u];`).join(' ')}
    for (var j = 1u; j < ${across}u; j++) { ${four.map(i => `${name}${i} = ${join(`${name}${i}`, `found[(ty * 4u + ${i}u) * ${across}u + j]`)};`).join(' ')} }`;

export function forwardTogether(s: TogetherStructure): string {
  const { kept, taken } = shapeOf(s);
  const { k, v } = keysAt('s');
  const bindings: Declared[] = [
    { name: 'q', element: 'vec4<f32>' },
    { name: 'k', element: 'vec4<f32>' },
    { name: 'v', element: 'vec4<f32>' },
    { name: 'keyStart', element: 'i32' },
    { name: 'keyEnd', element: 'i32' },
    { name: 'o', element: 'vec4<f32>', write: true },
    { name: s.split ? 'stats' : 'lse', element: s.split ? 'vec2<f32>' : 'f32', write: true },
  ];
  const body = `${place(s)}
  let start = keyStart[startAt + b];
  let end = keyEnd[endAt + b];
  let first = tile * ${kept}u;
  ${shareRows('first', kept, ['q'])}
  ${ownRows}
  ${four
    .map(
      i => `let seen${i} = seenBy(t${i}, start, end, causalOffset, behind, ahead);
  var top${i} = ${masked}; var part${i} = 0.0;`,
    )
    .join('\n  ')}
  ${zeros('sum', s)}
  var from_ = seenBy(first / group, start, end, causalOffset, behind, ahead).x;
  var to = seenBy(min(first + ${kept - 1}u, rows - 1u) / group, start, end, causalOffset, behind, ahead).y;
  ${
    s.split
      ? `if (to > from_) {
    let share = ((to - from_ + splits * ${taken}u - 1u) / (splits * ${taken}u)) * ${taken}u;
    from_ += split * share;
    to = min(to, from_ + share);
  }`
      : ''
  }
  for (var s = from_; s < to; s += ${taken}u) {
    ${scores('score', s, queriesAt.q, k)}
    let key = vec4<u32>(s + tx * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    ${four
      .map(
        i => `let in${i} = (key >= vec4<u32>(seen${i}.x)) & (key < vec4<u32>(min(seen${i}.y, to)));
    score${i} = select(vec4<f32>(${masked}), score${i} * scale, in${i});
    let own${i} = max(max(score${i}.x, score${i}.y), max(score${i}.z, score${i}.w));`,
      )
      .join('\n    ')}
    ${joined('most', 'own', s, (a, b) => `max(${a}, ${b})`)}
    ${four
      .map(
        i => `most${i} = max(most${i}, top${i});
    let decay${i} = expBelow(top${i} - most${i});
    top${i} = most${i};
    let p${i} = select(vec4<f32>(0.0), ${vector(j => `expBelow(score${i}.${component(j)} - most${i})`)}, in${i});
    part${i} = part${i} * decay${i} + p${i}.x + p${i}.y + p${i}.z + p${i}.w;
    ${upTo(s.columns)
      .map(c => `sum${i}_${c} *= decay${i};`)
      .join(' ')}`,
      )
      .join('\n    ')}
    ${share('p', s)}
    ${product('sum', s, v)}
  }
  ${joined('total', 'part', s, (a, b) => `${a} + ${b}`)}
  ${four
    .map(
      i => `if (first + ty * 4u + ${i}u < rows) {
    ${
      s.split
        ? `let at = split * heads * rows + number${i};
    if (tx == 0u) { stats[at] = vec2<f32>(top${i}, total${i}); }
    let weight = 1.0;`
        : `let at = number${i};
    let seen = total${i} > 0.0;
    if (tx == 0u) { lse[lseAt + at] = select(total${i}, top${i} + logOf(total${i}), seen); }
    let weight = select(total${i}, 1.0 / total${i}, seen);`
    }
    ${store('o', `${s.split ? '' : 'oAt + '}at * vectors`, s, c => `sum${i}_${c} * weight`)}
  }`,
    )
    .join('\n  ')}`;
  const shared = sharedMemory(
    s,
    `var<workgroup> qFrom: array<u32, ${kept}>;\nvar<workgroup> found: array<f32, ${kept * s.across}>;`,
  );
  return kernelText(bindings, invocationsTogether, body, { functions: ['expBelow', 'logOf'], shared });
}

const backwardBindings: Declared[] = [
  { name: 'q', element: 'vec4<f32>' },
  { name: 'k', element: 'vec4<f32>' },
  { name: 'v', element: 'vec4<f32>' },
  { name: 'g', element: 'vec4<f32>' },
  { name: 'about', element: 'vec4<u32>' },
];

/** With p the weights: ds = p (g V^T - sum(g o)) scale, dQ = ds K. */
export function queryGradientTogether(s: TogetherStructure): string {
  const { kept, taken } = shapeOf(s);
  const { k, v } = keysAt('s');
  const bindings: Declared[] = [...backwardBindings, { name: 'dq', element: 'vec4<f32>', write: true }];
  const body = `${place(s)}
  let first = tile * ${kept}u;
  ${shareRows('first', kept, ['q', 'g'])}
  ${ownRows}
  ${four.map(i => aboutRow(`about[number${i}]`, i)).join('\n  ')}
  ${zeros('sum', s)}
  let row0 = (b * keyHeads + keyHead) * group * queries;
  let from_ = about[row0 + first / group].z;
  let to = about[row0 + min(first + ${kept - 1}u, rows - 1u) / group].w;
  for (var s = from_; s < to; s += ${taken}u) {
    ${scores('score', s, queriesAt.q, k)}
    ${scores('change', s, queriesAt.g, v)}
    let key = vec4<u32>(s + tx * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    ${four
      .map(
        i => `let in${i} = (key >= vec4<u32>(about${i}.z)) & (key < vec4<u32>(about${i}.w));
    score${i} = ${vector(j => `expBelow(score${i}.${component(j)} * scale - lse${i})`)} * (change${i} - inner${i}) * scale;
    score${i} = select(vec4<f32>(0.0), score${i}, in${i});`,
      )
      .join('\n    ')}
    ${share('score', s)}
    ${product('sum', s, k)}
  }
  ${four.map(i => `if (first + ty * 4u + ${i}u < rows) { ${store('dq', `number${i} * vectors`, s, c => `sum${i}_${c}`)} }`).join('\n  ')}`;
  const shared = sharedMemory(
    s,
    `var<workgroup> qFrom: array<u32, ${kept}>;\nvar<workgroup> gFrom: array<u32, ${kept}>;`,
  );
  return kernelText(bindings, invocationsTogether, body, { functions: ['expBelow'], shared });
}

/** dV = p^T g, dK = ds^T Q; a tile of keys against the rows that may see them. */
export function keyGradientTogether(s: TogetherStructure): string {
  const { kept, taken } = shapeOf(s);
  const { k, v } = keysAt('first');
  const bindings: Declared[] = [
    ...backwardBindings,
    { name: 'dk', element: 'vec4<f32>', write: true },
    { name: 'dv', element: 'vec4<f32>', write: true },
  ];
  const body = `${place(s)}
  let first = tile * ${kept}u;
  let last = min(first + ${kept - 1}u, keys - 1u);
  ${zeros('keySum', s)}
  ${zeros('valueSum', s)}
  ${rowsThatMaySee}
  for (var r0 = from_; r0 < to; r0 += ${taken}u) {
    ${shareRows('r0', taken, ['q', 'g'], 'var own = about[number]; if (r0 + lane >= to) { own.w = 0u; } aboutTile[lane] = own;')}
    ${scores('p', s, k, queriesAt.q)}
    ${scores('ds', s, v, queriesAt.g)}
    ${four.map(j => aboutRow(`aboutTile[tx * 4u + ${j}u]`, j)).join('\n    ')}
    let seenFrom = vec4<u32>(${four.map(j => `about${j}.z`).join(', ')});
    let seenTo = vec4<u32>(${four.map(j => `about${j}.w`).join(', ')});
    let inner = vec4<f32>(${four.map(j => `inner${j}`).join(', ')});
    ${four
      .map(
        i => `let key${i} = vec4<u32>(first + ty * 4u + ${i}u);
    let in${i} = (key${i} >= seenFrom) & (key${i} < seenTo);
    p${i} = select(vec4<f32>(0.0), ${vector(j => `expBelow(p${i}.${component(j)} * scale - lse${j})`)}, in${i});
    ds${i} = select(vec4<f32>(0.0), p${i} * (ds${i} - inner) * scale, in${i});`,
      )
      .join('\n    ')}
    ${share('p', s)}
    ${product('valueSum', s, queriesAt.g)}
    workgroupBarrier();
    ${share('ds', s)}
    ${product('keySum', s, queriesAt.q)}
    workgroupBarrier();
  }
  ${four
    .map(
      i => `if (first + ty * 4u + ${i}u < keys) {
    let out = ((b * keyHeads + keyHead) * keys + first + ty * 4u + ${i}u) * vectors;
    ${store('dk', 'out', s, c => `keySum${i}_${c}`)}
    ${store('dv', 'out', s, c => `valueSum${i}_${c}`)}
  }`,
    )
    .join('\n  ')}`;
  const shared = sharedMemory(
    s,
    ['qFrom', 'gFrom'].map(name => `var<workgroup> ${name}: array<u32, ${taken}>;`).join('\n') +
      `\nvar<workgroup> aboutTile: array<vec4<u32>, ${taken}>;`,
  );
  return kernelText(bindings, invocationsTogether, body, { functions: ['expBelow'], shared });
}
