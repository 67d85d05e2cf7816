// Rows of attention and of its VJP that came out NaN, computed again one at a time from what they see. Tiles multiply
// rows that a query does not see by weights of 0, and 0 times NaN or infinity is NaN. One invocation a row, which
// mostly has but to look; NaN that a row does see stays.

import { aboutRow, kernelText, type Declared } from './attentionWgsl.js';

const read = (...names: readonly string[]): Declared[] => names.map(name => ({ name, element: 'vec4<f32>' }));

/** `into`: whether one of `vectors` from `at` on has a NaN. */
const hasNan = (into: string, buffer: string, at: string): string => `var ${into} = false;
  for (var c = 0u; c < vectors; c++) { ${into} |= anyNan(${buffer}[${at} + c]); }`;
const clear = (buffer: string, at: string): string =>
  `for (var c = 0u; c < vectors; c++) { ${buffer}[${at} + c] = vec4<f32>(0.0); }`;
/** `into`: the product of two rows. */
const product = (into: string, x: string, xAt: string, y: string, yAt: string): string => `var ${into} = 0.0;
    for (var c = 0u; c < vectors; c++) { ${into} += dot(${x}[${xAt} + c], ${y}[${yAt} + c]); }`;
const add = (to: string, at: string, factor: string, from: string, fromAt: string): string =>
  `for (var c = 0u; c < vectors; c++) { ${to}[${at} + c] += ${factor} * ${from}[${fromAt} + c]; }`;

const placeOfQuery = `let t = number % queries;
  let head = (number / queries) % heads;
  let b = number / (queries * heads);
  let keyHead = head / group;
  let qFrom = qAt + b * qB + head * qH + t * qT;`;
const keysFrom = 'let kFrom = kAt + b * kB + keyHead * kH + s * kT; let vFrom = vAt + b * vB + keyHead * vH + s * vT;';

export function forwardAgain(invocations: number): string {
  const bindings: Declared[] = [
    ...read('q', 'k', 'v'),
    { name: 'keyStart', element: 'i32' },
    { name: 'keyEnd', element: 'i32' },
    { name: 'lse', element: 'f32' },
    { name: 'o', element: 'vec4<f32>', write: true },
  ];
  const body = `let number = workgroup * ${invocations}u + lane;
  let heads = keyHeads * group;
  if (number >= batch * heads * queries) { return; }
  ${placeOfQuery}
  let out = oAt + number * vectors;
  let own = lse[lseAt + number];
  ${hasNan('again', 'o', 'out')}
  // A NaN among its own scores is one in every number of the row.
  if (!again | isNan(own)) { return; }
  let seen = seenBy(t, keyStart[startAt + b], keyEnd[endAt + b], causalOffset, behind, ahead);
  ${clear('o', 'out')}
  for (var s = seen.x; s < seen.y; s++) {
    ${keysFrom}
    ${product('score', 'q', 'qFrom', 'k', 'kFrom')}
    let p = expBelow(score * scale - own);
    ${add('o', 'out', 'p', 'v', 'vFrom')}
  }`;
  return kernelText(bindings, invocations, body, { functions: ['expBelow', 'anyNan'] });
}

/** Queries first, then keys. */
export function backwardAgain(invocations: number): string {
  const bindings: Declared[] = [
    ...read('q', 'k', 'v', 'g'),
    { name: 'about', element: 'vec4<u32>' },
    { name: 'dq', element: 'vec4<f32>', write: true },
    { name: 'dk', element: 'vec4<f32>', write: true },
    { name: 'dv', element: 'vec4<f32>', write: true },
  ];
  const body = `let item = workgroup * ${invocations}u + lane;
  let heads = keyHeads * group;
  let all = batch * heads * queries;
  if (item < all) {
    let number = item;
    ${placeOfQuery}
    let gFrom = gAt + b * gB + head * gH + t * gT;
    ${aboutRow('about[number]', 'Own')}
    let out = number * vectors;
    ${hasNan('again', 'dq', 'out')}
    if (!again | isNan(lseOwn) | isNan(innerOwn)) { return; }
    ${clear('dq', 'out')}
    for (var s = aboutOwn.z; s < aboutOwn.w; s++) {
      ${keysFrom}
      ${product('score', 'q', 'qFrom', 'k', 'kFrom')}
      ${product('change', 'g', 'gFrom', 'v', 'vFrom')}
      let ds = expBelow(score * scale - lseOwn) * (change - innerOwn) * scale;
      ${add('dq', 'out', 'ds', 'k', 'kFrom')}
    }
    return;
  }
  let place = item - all;
  if (place >= batch * keyHeads * keys) { return; }
  let s = place % keys;
  let keyHead = (place / keys) % keyHeads;
  let b = place / (keys * keyHeads);
  ${keysFrom}
  let out = place * vectors;
  ${hasNan('againK', 'dk', 'out')}
  ${hasNan('againV', 'dv', 'out')}
  if (!(againK | againV)) { return; }
  let row0 = (b * keyHeads + keyHead) * rows;
  for (var r = 0u; r < rows; r++) {
    let one = about[row0 + r];
    if ((s >= one.z) & (s < one.w) & isNan(bitcast<f32>(one.x))) { return; }
  }
  ${clear('dk', 'out')}
  ${clear('dv', 'out')}
  for (var r = 0u; r < rows; r++) {
    ${aboutRow('about[row0 + r]', 'Own')}
    if ((s >= aboutOwn.z) & (s < aboutOwn.w)) {
      let head = keyHead * group + r / queries;
      let t = r % queries;
      let qFrom = qAt + b * qB + head * qH + t * qT;
      let gFrom = gAt + b * gB + head * gH + t * gT;
      ${product('score', 'q', 'qFrom', 'k', 'kFrom')}
      ${product('change', 'g', 'gFrom', 'v', 'vFrom')}
      let p = expBelow(score * scale - lseOwn);
      let ds = p * (change - innerOwn) * scale;
      ${add('dv', 'out', 'p', 'g', 'gFrom')}
      ${add('dk', 'out', 'ds', 'q', 'qFrom')}
    }
  }`;
  return kernelText(bindings, invocations, body, { functions: ['expBelow', 'anyNan'] });
}
