// The edit op, h' = h + c P^T (A h + b - (C h + e)) on the edited rows, and its VJP, for the linear activation: u first, a number for each edited row
// and rank, then everything as wide as a hidden state. Sums go in the order of the rows, so results are the same every time. Formulas: reft/editOp.ts.

import { isContiguous, sizeOf } from '../../../tensor/shape.js';
import type { ScalarType } from '../../../tensor/expr.js';
import type { FusedKernel, View } from '../../backend.js';
import { withTemporary, type KernelContext } from '../context.js';
import { Access, bind, grid, operandOf } from '../operands.js';
import { held, holdWords, Params } from '../params.js';
import type { Block } from '../pool.js';

interface Pass {
  readonly name: string;
  readonly reads: Readonly<Record<string, View | null>>;
  readonly writes: Readonly<Record<string, View | null>>;
  /** Integers that become names in the code. */
  readonly sizes: Readonly<Record<string, number>>;
  readonly list: Int32Array;
  /** Results: `i` is the number of one. */
  readonly count: number;
  /** True where the lanes of a workgroup add up one result together. */
  readonly together?: boolean;
  /** `at(name, index)` reads, `put(name, index, value)` writes; `list[first + k]` is the list. */
  body(at: (name: string, index: string) => string, put: (name: string, index: string, value: string) => string, sum: (term: string) => string): string;
}

const lanes = 64;
/** Few, so that several processors of a software adapter have something to do. */
const softwareLanes = 16;

export function registerEdit(fused: Map<string, FusedKernel>, context: KernelContext): void {
  const { queue, settings } = context;

  function record({ name, reads, writes, sizes, list, count, together = false, body }: Pass): void {
    const present = (views: Readonly<Record<string, View | null>>): [string, View][] => Object.entries(views).filter((e): e is [string, View] => e[1] !== null);
    const [inputs, outputs] = [present(reads), present(writes)];
    const names = [...inputs, ...outputs].map(([own]) => own);
    const typeOf = (view: View): ScalarType => (view.dtype === 'i32' ? 'i' : 'f');
    const operands = [...inputs.map(([, v]) => operandOf(v, typeOf(v))), ...outputs.map(([, v]) => operandOf(v, typeOf(v), true))];
    const bound = bind({ axes: [], operands }, Infinity);
    if (!bound) return;
    const shared = together && settings.reduce === 'workgroup';
    const invocations = settings.reduce === 'workgroup' ? lanes : softwareLanes;
    const params = new Params();
    const [countAt, listAt] = [params.add(count), params.add(0)];
    const sizesAt = Object.entries(sizes).map(([own, value]) => ({ own, at: params.add(value) }));
    const offsetsAt = params.addAll(bound.offsets);
    const access = new Access(operands, bound);
    const source = (): string => {
      const place = (own: string, index: string): [number, string] => {
        const k = names.indexOf(own);
        return [k, `${held(offsetsAt[k])} + ${index}`];
      };
      // Statements that leave the sum over k < width of a term in `total`.
      const sum = (term: string): string => (shared ? `
  var part = 0.0;
  for (var k = lane; k < width; k += ${lanes}u) { part += ${term}; }
  parts[lane] = part;
  workgroupBarrier();
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { parts[lane] += parts[lane + half]; }
    workgroupBarrier();
  }
  let total = parts[0];
  if (lane > 0u) { return; }` : `
  var total = 0.0;
  for (var k = 0u; k < width; k++) { total += ${term}; }`);
      return `${access.declarations}
@group(0) @binding(${bound.bindings.length + 1}) var<storage, read> list: array<i32>;
${shared ? `var<workgroup> parts: array<f32, ${lanes}>;` : ''}
@compute @workgroup_size(${invocations})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  ${holdWords(params.words.length)}
  let i = (group.y * groups.x + group.x)${shared ? '' : ` * ${invocations}u + lane`};
  if (i >= ${held(countAt)}) { return; }
  let first = ${held(listAt)};
  ${sizesAt.map(({ own, at }) => `let ${own} = ${held(at)};`).join(' ')}
  ${body((own, index) => access.load(...place(own, index)), (own, index, value) => access.store(...place(own, index), value), sum)}
}`;
    };
    const key = `${names.join()}|${access.key}|${shared}`;
    const pipeline = queue.pipeline(name, key, [...bound.bindings.map(b => b.write), false], params.words.length, source);
    queue.dispatch({
      pipeline, bindings: bound.bindings, params: params.words, upload: { data: list, at: listAt },
      groups: grid(shared ? count : Math.ceil(count / invocations)),
    });
  }

  const taken = (floats: readonly (View | null)[], slots: View): boolean => slots.dtype === 'i32' && [...floats, slots].every(v => !v
    || ((v === slots || v.dtype === 'f32') && isContiguous(v.shape, v.strides) && (v.allocation as Block).buffer.byteLength <= settings.bindingBytes));

  /** For each row of h its place among the edited ones, or -1. */
  const placesOf = (indices: Int32Array, rows: number): Int32Array => {
    const places = new Int32Array(rows).fill(-1);
    indices.forEach((row, m) => (places[row] = m));
    return places;
  };

  fused.set('edit', ({ inputs, outputs: [result, u], attributes, indices }) => {
    const [h, slots, A, b, C, e, P, scale] = inputs;
    if (attributes.activation !== 0 || settings.storageBuffers < 8 || !indices || !h || !slots || !P || !scale) return false;
    if (!taken([h, A, b, C, e, P, scale, result, u], slots) || sizeOf(h.shape) === 0) return false;
    const [width, rank] = [h.shape[h.shape.length - 1], P.shape[1]];
    const rows = sizeOf(h.shape) / width;
    if (indices.length > 0) {
      record({
        name: 'edit', reads: { h, slots, A, b, C, e }, writes: { u }, sizes: { width, rank }, list: indices, count: indices.length * rank, together: true,
        body: (at, put, sum) => `
  let m = i / rank;
  let row = u32(list[first + m]) * width;
  let matrix = (u32(${at('slots', 'm')}) * rank + i % rank);
  ${A || C ? sum(`${at('h', 'row + k')} * (${[A ? at('A', 'matrix * width + k') : '', C ? `- ${at('C', 'matrix * width + k')}` : ''].join(' ')})`) : 'let total = 0.0;'}
  ${put('u', 'i', `total${b ? ` + ${at('b', 'matrix')}` : ''}${e ? ` - ${at('e', 'matrix')}` : ''}`)}`,
      });
    }
    record({
      name: 'edit', reads: { h, slots, u, P, scale }, writes: { result }, sizes: { width, rank }, list: placesOf(indices, rows), count: rows * width,
      body: (at, put) => `
  let m = list[first + i / width];
  var value = ${at('h', 'i')};
  if (m >= 0) {
    let slot = u32(${at('slots', 'u32(m)')}) * rank;
    var change = 0.0;
    for (var j = 0u; j < rank; j++) { change += ${at('u', 'u32(m) * rank + j')} * ${at('P', '(slot + j) * width + i % width')}; }
    value += ${at('scale', 'u32(m)')} * change;
  }
  ${put('result', 'i', 'value')}`,
    });
    return true;
  });

  fused.set('edit.vjp', ({ inputs, outputs, attributes, indices }) => {
    const [h, slots, A, b, C, e, P, scale, u, g] = inputs;
    if (attributes.activation !== 0 || settings.storageBuffers < 8 || !indices || !h || !slots || !P || !scale || !u || !g) return false;
    if (!taken([h, A, b, C, e, P, scale, u, g, ...outputs], slots) || sizeOf(h.shape) === 0 || indices.length === 0) return false;
    let next = 1;
    const take = (view: View | null): View | null => (view ? outputs[next++] : null);
    const [dh, dA, db, dC, de, dP] = [outputs[0], take(A), take(b), take(C), take(e), take(P)];
    const [width, rank, members] = [h.shape[h.shape.length - 1], P.shape[1], indices.length];
    const rows = sizeOf(h.shape) / width;
    const sizes = { width, rank, members };
    withTemporary(context, [members, rank], 'f32', du => {
      record({
        name: 'edit.vjp', reads: { g, slots, P, scale }, writes: { du }, sizes, list: indices, count: members * rank, together: true,
        body: (at, put, sum) => `
  let m = i / rank;
  let row = u32(list[first + m]) * width;
  let matrix = (u32(${at('slots', 'm')}) * rank + i % rank) * width;
  ${sum(`${at('g', 'row + k')} * ${at('P', 'matrix + k')}`)}
  ${put('du', 'i', `total * ${at('scale', 'm')}`)}`,
      });
      record({
        name: 'edit.vjp', reads: { g, slots, A, C, du }, writes: { dh }, sizes, list: placesOf(indices, rows), count: rows * width,
        body: (at, put) => `
  let m = list[first + i / width];
  var value = ${at('g', 'i')};
  ${A || C ? `if (m >= 0) {
    let slot = u32(${at('slots', 'u32(m)')}) * rank;
    var change = 0.0;
    for (var j = 0u; j < rank; j++) {
      let element = (slot + j) * width + i % width;
      change += ${at('du', 'u32(m) * rank + j')} * (${[A ? at('A', 'element') : '', C ? `- ${at('C', 'element')}` : ''].join(' ')});
    }
    value += change;
  }` : ''}
  ${put('dh', 'i', 'value')}`,
      });
      /** Sums over the edited rows of a slot, for every element of a matrix or a bias. */
      const sums = (reads: Pass['reads'], writes: Pass['writes'], count: number, element: string, term: (at: (name: string, index: string) => string) => string, signs: Record<string, string>): void => {
        record({
          name: 'edit.vjp', reads: { ...reads, slots }, writes, sizes, list: indices, count,
          body: (at, put) => `
  ${element}
  var total = 0.0;
  for (var m = 0u; m < members; m++) {
    if (u32(${at('slots', 'm')}) == matrix / rank) { total += ${term(at)}; }
  }
  ${Object.entries(writes).map(([own, view]) => (view ? put(own, 'i', `${signs[own]}total`) : '')).join('\n  ')}`,
        });
      };
      const wide = 'let matrix = i / width; let k = i % width;';
      const narrow = 'let matrix = i;';
      const row = 'u32(list[first + m]) * width + k';
      const ofRank = 'm * rank + matrix % rank';
      if (dA ?? dC) sums({ du, h }, { dA, dC }, sizeOf((dA ?? dC as View).shape), wide, at => `${at('du', ofRank)} * ${at('h', row)}`, { dA: '', dC: '-' });
      if (db ?? de) sums({ du }, { db, de }, sizeOf((db ?? de as View).shape), narrow, at => at('du', ofRank), { db: '', de: '-' });
      sums({ u, g, scale }, { dP }, sizeOf(P.shape), wide, at => `${at('scale', 'm')} * ${at('u', ofRank)} * ${at('g', row)}`, { dP: '' });
    });
    return true;
  });
}
