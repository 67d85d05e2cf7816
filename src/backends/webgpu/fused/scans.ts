// Linear recurrences along rows (nn/linearScan.ts) with their VJP, and Mamba's selective scan (nn/selectiveScan.ts),
// whose VJP is the composition's: an invocation for each column of each sequence.

import { contiguousStrides, sameShape, sizeOf } from '../../../tensor/shape.js';
import type { FusedKernel, View } from '../../backend.js';
import type { KernelContext } from '../context.js';
import { createMap } from '../map.js';
import { functionTexts } from '../mathWgsl.js';
import { held, holdWords, Params } from '../params.js';
import { placeOf, record } from './places.js';

const invocations = 64;

interface Operand {
  readonly name: string;
  readonly view: View | null;
  readonly write?: boolean;
}

interface Scan {
  readonly label: string;
  readonly operands: readonly Operand[];
  /** [N, ..], whose columns are scanned. */
  readonly x: View;
  readonly starts: Int32Array;
  /** What the body depends on beside which operands there are. */
  readonly key?: string;
  /** Of mathWgsl.ts. */
  readonly functions?: readonly string[];
  /**
   * Knows `first` and `end`, the rows of the sequence; `rows`; `columns`, `column`; where each operand begins, as
   * `nameAt`; and `state`, the number of the column of the sequence in [S, ..].
   */
  readonly body: string;
}

/** The most numbers of a state: they lie in memory of the invocation. */
const mostNumbers = 64;

export function registerScans(fused: Map<string, FusedKernel>, context: KernelContext): void {
  const maps = createMap(context);

  /** What records the dispatch, or null for operands that it cannot bind. */
  function planned({ label, operands, x, starts, key = '', functions = [], body }: Scan): (() => void) | null {
    const given = operands.filter((o): o is Operand & { view: View } => o.view !== null);
    const dense = given.every(
      ({ view }) => view.dtype === 'f32' && sameShape(view.strides, contiguousStrides(view.shape)),
    );
    const places = dense ? given.map(({ view, write }) => placeOf(context, view, 'f32', write)) : [];
    const bound = places.filter(place => place !== undefined);
    if (!dense || bound.length < places.length || given.length + 1 > context.settings.storageBuffers) return null;
    const columns = sizeOf(x.shape.slice(1));
    const count = starts.length * columns;
    if (count === 0) return () => undefined;
    const params = new Params();
    const listAt = params.add(0);
    const names = [
      ['listAt', listAt],
      ['rows', params.add(x.shape[0])],
      ['columns', params.add(columns)],
      ['count', params.add(count)],
      ...given.map(({ name }, k) => [`${name}At`, params.add(bound[k].offset)] as const),
    ] as const;
    const recorded = {
      label,
      structure: [key, ...given.map(({ name }) => name)].join(),
      places: bound,
      params,
      groups: Math.ceil(count / invocations),
      upload: { data: Int32Array.of(...starts, x.shape[0]), at: listAt },
      source: (): string => `${[...given, { name: 'list', write: false }]
        .map(
          ({ name, write }, k) =>
            `@group(0) @binding(${k + 1}) var<storage, ${write ? 'read_write' : 'read'}> ${name}: array<${name === 'list' ? 'i32' : 'f32'}>;`,
        )
        .join('\n')}
${functionTexts(functions)}
@compute @workgroup_size(${invocations})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  ${holdWords(params.words.length)}
  ${names.map(([name, at]) => `let ${name} = ${held(at)};`).join(' ')}
  let state = (group.y * groups.x + group.x) * ${invocations}u + lane;
  if (state >= count) { return; }
  let column = state % columns;
  let first = u32(list[listAt + state / columns]);
  let end = u32(list[listAt + state / columns + 1u]);
  ${body}
}`,
    };
    return () => record(context, recorded);
  }

  function run(scan: Scan): boolean {
    const plan = planned(scan);
    plan?.();
    return plan !== null;
  }

  fused.set('linearScan', ({ inputs: [a, b, initial], outputs: [h], indices }) => {
    if (!a || !b || !indices) return false;
    const operands = [
      { name: 'a', view: a },
      { name: 'b', view: b },
      { name: 'initial', view: initial },
      { name: 'h', view: h, write: true },
    ];
    const body = `
  var row = first;
  var before = ${initial ? 'initial[initialAt + state]' : '0.0'};
  ${
    initial
      ? ''
      : `if (first < end) {
    before = b[bAt + row * columns + column];
    h[hAt + row * columns + column] = before;
    row++;
  }`
  }
  for (; row < end; row++) {
    let here = row * columns + column;
    before = a[aAt + here] * before + b[bAt + here];
    h[hAt + here] = before;
  }`;
    return run({ label: 'linearScan', operands, x: b, starts: indices, body });
  });

  // db_t = g_t + a_{t+1} db_{t+1}, da_t = db_t h_{t-1}, and for the initial state a_0 db_0
  fused.set('linearScan.vjp', ({ inputs: [a, initial, h, g], outputs: [da, db, dInitial], indices }) => {
    if (!a || !h || !g || !indices) return false;
    const operands = [
      { name: 'a', view: a },
      { name: 'initial', view: initial },
      { name: 'h', view: h },
      { name: 'g', view: g },
      { name: 'da', view: da, write: true },
      { name: 'db', view: db, write: true },
      { name: 'dInitial', view: dInitial ?? null, write: true },
    ];
    const body = `
  var after = 0.0;
  for (var row = end; row > first; row--) {
    let here = (row - 1u) * columns + column;
    var d = g[gAt + here];
    if (row < end) { d += a[aAt + here + columns] * after; }
    db[dbAt + here] = d;
    if (row - 1u > first) {
      da[daAt + here] = d * h[hAt + here - columns];
    } else {
      da[daAt + here] = ${initial ? 'd * initial[initialAt + state]' : '0.0'};
    }
    after = d;
  }
  ${
    initial
      ? `dInitial[dInitialAt + state] = 0.0;
  if (first < end) { dInitial[dInitialAt + state] = a[aAt + first * columns + column] * after; }`
      : ''
  }`;
    return run({ label: 'linearScan.vjp', operands, x: a, starts: indices, body });
  });

  fused.set('selectiveScan', ({ inputs: [x, dt, A, B, C, D, initial], outputs: [both], indices }) => {
    if (!x || !dt || !A || !B || !C || !D || !indices) return false;
    const n = A.shape[1];
    if (n === 0 || n > mostNumbers || (initial && initial.dtype !== 'f32')) return false;
    const operands = [
      { name: 'x', view: x },
      { name: 'dt', view: dt },
      { name: 'A', view: A },
      { name: 'B', view: B },
      { name: 'C', view: C },
      { name: 'D', view: D },
      { name: 'both', view: both, write: true },
    ];
    const plan = planned({
      label: 'selectiveScan',
      operands,
      x,
      starts: indices,
      key: `${n}${initial ? ' carried' : ''}`,
      functions: ['expOf'],
      body: `
  let statesAt = bothAt + rows * columns + state * ${n}u;
  var h: array<f32, ${n}>;
  for (var k = 0u; k < ${n}u; k++) { h[k] = ${initial ? 'both[statesAt + k]' : '0.0'}; }
  var isFirst = ${initial ? 'false' : 'true'};
  for (var row = first; row < end; row++) {
    let here = row * columns + column;
    let step = dt[dtAt + here];
    let input = x[xAt + here];
    let weight = step * input;
    var y = 0.0;
    for (var k = 0u; k < ${n}u; k++) {
      let taken = weight * B[BAt + row * ${n}u + k];
      if (isFirst) { h[k] = taken; }
      else { h[k] = expOf(step * A[AAt + column * ${n}u + k]) * h[k] + taken; }
      y += C[CAt + row * ${n}u + k] * h[k];
    }
    both[bothAt + here] = y + D[DAt + column] * input;
    isFirst = false;
  }
  for (var k = 0u; k < ${n}u; k++) { both[statesAt + k] = h[k]; }`,
    });
    if (!plan) return false;
    // One buffer less is bound when the states begin where they will end, behind the rows of y.
    if (initial) {
      const strides = contiguousStrides(initial.shape);
      const begin = { ...both, shape: initial.shape, strides, offset: both.offset + sizeOf(x.shape) };
      maps.copy({ input: initial, output: begin }, 'selectiveScan');
    }
    plan();
    return true;
  });
}
