// The matrix product for GPUs: a workgroup of 16 x 16 keeps 64 x 64 of the product in registers, 4 x 4 each, and loads
// panels of both operands through shared memory, in vectors of four where strides permit. Packed weights are decoded
// once, on their way into the panel.

import {
  batchOffsets,
  component,
  declarations,
  inParts,
  stores,
  upTo,
  type MatmulStructure,
  type MatmulWords,
} from './matmulWgsl.js';
import { word } from './params.js';

const side = 64;
const depth = 16;

/**
 * Copies a panel of 64 rows (or columns) by 16 steps of k into shared memory, [k, 64], zeros beyond the edges. `t` is
 * the invocation's number of 256; each moves four elements.
 */
function loadPanel(name: 'a' | 'b', structure: MatmulStructure, words: MatmulWords): string {
  const loads = structure[name];
  const packed = name === 'b' && structure.packing !== undefined;
  const [outer, inner] = (name === 'a' ? [words.a[0], words.a[1]] : [words.b[1], words.b[0]]).map(word);
  const [limit, first, offset] =
    name === 'a' ? [word(words.m), 'firstRow', 'o0'] : [word(words.n), 'firstColumn', 'o1'];
  const panel = `${name}Panel`;
  const inside = `${first} + at < ${limit} && p + q < ${word(words.k)}`;
  const four = !packed
    ? `${name}[(${offset} + (${first} + at) * ${outer} + (p + q) * ${inner}) >> 2u]`
    : structure.bTransposed
      ? `weights(line, line + ${word(words.scales)}, p + q)`
      : `weights(line, line + ${word(words.scales)}, ${first} + at)`;
  const line = packed
    ? `let line = o1 + ${structure.bTransposed ? `(${first} + at) * ${outer}` : `(p + q) * ${inner}`};`
    : '';
  if (loads === 'alongK') {
    return `{
      let at = t >> 2u;
      let q = (t & 3u) * 4u;
      ${line}
      var v = vec4<f32>(0.0);
      if (${inside}) { v = ${four}; }
      ${upTo(4)
        .map(h => `${panel}[(q + ${h}u) * ${side}u + at] = v.${component(h)};`)
        .join('\n      ')}
    }`;
  }
  const one = (h: number): string =>
    !packed
      ? `${name}[${offset} + (${first} + at + ${h}u) * ${outer} + (p + q) * ${inner}]`
      : structure.bTransposed
        ? `weight(o1 + (${first} + at + ${h}u) * ${outer}, p + q)`
        : `weight(line, ${first} + at + ${h}u)`;
  const load =
    loads === 'across'
      ? `if (${inside}) { v = ${four}; }`
      : upTo(4)
          .map(
            h => `if (${first} + at + ${h}u < ${limit} && p + q < ${word(words.k)}) { v.${component(h)} = ${one(h)}; }`,
          )
          .join('\n      ');
  return `{
      let at = (t & 15u) * 4u;
      let q = t >> 4u;
      ${line}
      var v = vec4<f32>(0.0);
      ${load}
      ${upTo(4)
        .map(h => `${panel}[q * ${side}u + at + ${h}u] = v.${component(h)};`)
        .join('\n      ')}
    }`;
}

export function workgroupTile(structure: MatmulStructure, words: MatmulWords): string {
  const part = (from: string, to: string): string => `${upTo(4)
    .map(i => `var c${i} = vec4<f32>(0.0);`)
    .join('\n  ')}
  for (var p = ${from}; p < ${to}; p += ${depth}u) {
    ${loadPanel('a', structure, words)}
    ${loadPanel('b', structure, words)}
    workgroupBarrier();
    for (var q = 0u; q < ${depth}u; q++) {
      let x = q * ${side}u + lane.y * 4u;
      let y = q * ${side}u + lane.x * 4u;
      let z = vec4<f32>(bPanel[y], bPanel[y + 1u], bPanel[y + 2u], bPanel[y + 3u]);
      ${upTo(4)
        .map(i => `c${i} += aPanel[x + ${i}u] * z;`)
        .join('\n      ')}
    }
    workgroupBarrier();
  }
  ${stores(structure, words, (i, j) => `c${i}.${component(j)}`)}`;
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
  ${inParts(structure, 1, word(words.k), part)}
}`;
}
