// Linear recurrences along rows (nn/linearScan.ts) and their VJP: an invocation for each column of each sequence.

import { contiguousStrides, sameShape, sizeOf } from '../../../tensor/shape.js';
import type { FusedKernel, View } from '../../backend.js';
import type { KernelContext } from '../context.js';
import { held, holdWords, Params } from '../params.js';
import { placeOf, record } from './places.js';

const invocations = 64;

interface Operand {
  readonly name: string;
  readonly view: View | null;
  readonly write?: boolean;
}

export function registerScans(fused: Map<string, FusedKernel>, context: KernelContext): void {
  /**
   * Runs `body` for each column of each sequence: it knows `first` and `end`, the rows of the sequence; `columns`; `at`
   * for each operand, where its column begins; and `state`, where the column of the sequence's state lies in [S, ..].
   */
  function run(label: string, operands: readonly Operand[], x: View, starts: Int32Array, body: string): boolean {
    const given = operands.filter((o): o is Operand & { view: View } => o.view !== null);
    const dense = given.every(
      ({ view }) => view.dtype === 'f32' && sameShape(view.strides, contiguousStrides(view.shape)),
    );
    const places = dense ? given.map(({ view, write }) => placeOf(context, view, 'f32', write)) : [];
    const bound = places.filter(place => place !== undefined);
    if (!dense || bound.length < places.length || given.length + 1 > context.settings.storageBuffers) return false;
    const columns = sizeOf(x.shape.slice(1));
    const count = starts.length * columns;
    if (count === 0) return true;
    const params = new Params();
    const listAt = params.add(0);
    const names = [
      ['listAt', listAt],
      ['columns', params.add(columns)],
      ['count', params.add(count)],
      ...given.map(({ name }, k) => [`${name}At`, params.add(bound[k].offset)] as const),
    ] as const;
    record(context, {
      label,
      structure: given.map(({ name }) => name).join(),
      places: bound,
      params,
      groups: Math.ceil(count / invocations),
      upload: { data: Int32Array.of(...starts, x.shape[0]), at: listAt },
      source: () => `${[...given, { name: 'list', write: false }]
        .map(
          ({ name, write }, k) =>
            `@group(0) @binding(${k + 1}) var<storage, ${write ? 'read_write' : 'read'}> ${name}: array<${name === 'list' ? 'i32' : 'f32'}>;`,
        )
        .join('\n')}
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
    });
    return true;
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
    return run('linearScan', operands, b, indices, body);
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
    return run('linearScan.vjp', operands, a, indices, body);
  });
}
