// What the attention kernels share as WGSL: parameters by name, bindings, which keys a query sees. "Rows" are the
// queries of all heads that share a key head, number t * group + (head in the group): neighbours see the same keys.
// Addresses count vectors of four floats.

import { functionTexts } from '../mathWgsl.js';
import { held, holdWords } from '../params.js';
import type { Element } from './places.js';

/**
 * Parameters of every attention kernel, in their order: where operands begin and their steps by batch, head and
 * position, then sizes.
 */
export const fields = [
  'qAt',
  'qB',
  'qH',
  'qT',
  'kAt',
  'kB',
  'kH',
  'kT',
  'vAt',
  'vB',
  'vH',
  'vT',
  'gAt',
  'gB',
  'gH',
  'gT',
  'startAt',
  'endAt',
  'oAt',
  'lseAt',
  'batch',
  'keyHeads',
  'group',
  'queries',
  'keys',
  'causalOffset',
  'behind',
  'ahead',
  'scaleBits',
  'tiles',
  'splits',
  'vectors',
] as const;
export type Field = (typeof fields)[number];

export interface Declared {
  readonly name: string;
  readonly element: Element;
  readonly write?: boolean;
}

export const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Below every score that counts, and finite. */
export const masked = '-3.4028234e38f';

/**
 * A whole kernel. `body` finds the parameters as u32 under their names (scale as f32), `workgroup` and `lane`, and may
 * call seenBy(t, start, end, causalOffset, behind, ahead): the keys that query t sees, from and one past the last,
 * none where that is not larger. Both grow with t. Conditions are joined by & and |: && is a branch, and software
 * compilers take long over many of those.
 */
export function kernelText(
  bindings: readonly Declared[],
  invocations: number,
  body: string,
  { shared = '', functions = [] as readonly string[] } = {},
): string {
  const declarations = bindings.map(
    ({ name, element, write }, i) =>
      `@group(0) @binding(${i + 1}) var<storage, ${write ? 'read_write' : 'read'}> ${name}: array<${element}>;`,
  );
  return `${declarations.join('\n')}
${functionTexts(functions)}
${shared}
fn seenBy(t: u32, start: i32, end: i32, causalOffset: u32, behind: u32, ahead: u32) -> vec2<u32> {
  let position = i32(t + causalOffset);
  let from_ = max(start, position - i32(behind));
  let to = min(end, position + i32(ahead) + 1);
  return vec2<u32>(u32(from_), u32(to));
}
@compute @workgroup_size(${invocations})
fn main(@builtin(workgroup_id) groupId: vec3<u32>, @builtin(num_workgroups) groupCounts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  ${holdWords(fields.length)}
  ${fields.map((name, i) => `let ${name} = ${held(i)};`).join(' ')}
  let scale = bitcast<f32>(scaleBits);
  let rows = queries * group;
  let workgroup = groupId.y * groupCounts.x + groupId.x;
  ${body}
}`;
}

/** Of the row with this number: t, head, and its number in [B, H, T]; names end in `i`. */
export const rowPlace = (row: string, i: number | string): string => `let n${i} = ${row};
  let t${i} = n${i} / group;
  let head${i} = keyHead * group + n${i} % group;
  let number${i} = (b * keyHeads * group + head${i}) * queries + t${i};`;

/** What aboutRows wrote of a query, by name. */
export const aboutRow = (from: string, i: number | string): string =>
  `let about${i} = ${from}; let lse${i} = bitcast<f32>(about${i}.x); let inner${i} = bitcast<f32>(about${i}.y);`;

/**
 * For keys `first` to `last` of b and keyHead: rows from_ to `to` (one past the last) that may see one of them. `about`
 * holds what aboutRows writes, so a tile of padding ends at once.
 */
export const rowsThatMaySee = `let tFirst = min(queries, first - min(first, causalOffset + ahead));
  let tPast = min(queries, last + behind + 1u - min(last + behind + 1u, causalOffset));
  let from_ = tFirst * group;
  var to = max(from_, tPast * group);
  if (to > from_) {
    let row0 = (b * keyHeads + keyHead) * group * queries;
    if (about[row0 + tPast - 1u].w <= first || about[row0 + tFirst].z > last) { to = from_; }
  }`;

/** For every query, what backward needs of it: log-sum-exp, sum(g o), and the keys it sees. One invocation each. */
export function aboutRows(invocations: number): string {
  const bindings: Declared[] = [
    { name: 'g', element: 'vec4<f32>' },
    { name: 'o', element: 'vec4<f32>' },
    { name: 'lse', element: 'f32' },
    { name: 'keyStart', element: 'i32' },
    { name: 'keyEnd', element: 'i32' },
    { name: 'about', element: 'vec4<u32>', write: true },
  ];
  const body = `let number = workgroup * ${invocations}u + lane;
  let heads = keyHeads * group;
  if (number >= batch * heads * queries) { return; }
  let t = number % queries;
  let head = (number / queries) % heads;
  let b = number / (queries * heads);
  let gFrom = gAt + b * gB + head * gH + t * gT;
  let oFrom = oAt + number * vectors;
  var inner = 0.0;
  for (var c = 0u; c < vectors; c++) { inner += dot(g[gFrom + c], o[oFrom + c]); }
  let seen = seenBy(t, keyStart[startAt + b], keyEnd[endAt + b], causalOffset, behind, ahead);
  about[number] = vec4<u32>(bitcast<u32>(lse[lseAt + number]), bitcast<u32>(inner), seen);`;
  return kernelText(bindings, invocations, body);
}

/**
 * Joins what `splits` workgroups (or invocations) found for parts of the keys. One invocation for each vector of the
 * output.
 */
export function joinSplits(invocations: number): string {
  const bindings: Declared[] = [
    { name: 'parts', element: 'vec4<f32>' },
    { name: 'stats', element: 'vec2<f32>' },
    { name: 'o', element: 'vec4<f32>', write: true },
    { name: 'lse', element: 'f32', write: true },
  ];
  const body = `let number = workgroup * ${invocations}u + lane;
  let all = batch * keyHeads * rows;
  if (number >= all * vectors) { return; }
  let row = number / vectors;
  var top = ${masked};
  for (var p = 0u; p < splits; p++) { top = max(top, stats[p * all + row].x); }
  var total = 0.0;
  var sum = vec4<f32>(0.0);
  for (var p = 0u; p < splits; p++) {
    let stat = stats[p * all + row];
    let weight = expBelow(stat.x - top);
    total += stat.y * weight;
    sum += parts[p * all * vectors + number] * weight;
  }
  let seen = total > 0.0;
  o[oAt + number] = sum * select(total, 1.0 / total, seen);
  if (number % vectors == 0u) { lse[lseAt + row] = select(total, top + logOf(total), seen); }`;
  return kernelText(bindings, invocations, body, { functions: ['expBelow', 'logOf'] });
}
