// Attention and its VJP on WebGPU: which calls are taken, by which variant, in which tiles, and the parameters. Scores
// never leave a tile. Forward is one dispatch, or two where few queries see many keys, which are then split; the VJP is
// three: what is known of each query, dq by rows, dk and dv by keys. Their text is in attentionAlone.ts and
// attentionTogether.ts. One more, attentionAgain.ts, looks after rows that came out NaN.

import type { Attributes, FusedKernel, View } from '../../backend.js';
import { contiguousStrides, sizeOf } from '../../../tensor/shape.js';
import { withTemporary, type KernelContext } from '../context.js';
import { Params } from '../params.js';
import { backwardAgain, forwardAgain } from './attentionAgain.js';
import { forwardAlone, keyGradientAlone, lanes, queryGradientAlone } from './attentionAlone.js';
import { forwardTogether, keyGradientTogether, queryGradientTogether } from './attentionTogether.js';
import { aboutRows, fields, joinSplits, type Field } from './attentionWgsl.js';
import { placeOf, record, type Element, type Place } from './places.js';

/** Invocations of a workgroup in the passes that go query by query. */
const invocations = 64;
/** The longest head, in fours: what an invocation keeps grows with it. */
const mostVectors = 64;
/** Vectors of a tile that an invocation alone keeps. */
const keptVectors = 128;
/** Invocations of a workgroup along the kept rows and along the others. */
const manyRows = { down: 8, across: 8 };
const fewRows = { down: 2, across: 32 };
const mostPosition = 2 ** 30;

type Values = Partial<Record<Field, number>>;
type Strided = 'q' | 'k' | 'v' | 'g';

/** Heads in fours, and every step along the other axes too. */
function inFours({ dtype, shape, strides, offset }: View): boolean {
  return (
    dtype === 'f32' &&
    shape.length === 4 &&
    shape[3] % 4 === 0 &&
    strides[3] === 1 &&
    offset % 4 === 0 &&
    strides.slice(0, 3).every((step, d) => step % 4 === 0 || shape[d] === 1)
  );
}

const dense = ({ shape, strides }: View): boolean =>
  contiguousStrides(shape).every((step, d) => step === strides[d] || shape[d] === 1);

export function registerAttention(fused: Map<string, FusedKernel>, context: KernelContext): void {
  const { settings } = context;
  const alone = settings.reduce === 'invocation';

  const at = (view: View, element: Element, write = false): Place | undefined => placeOf(context, view, element, write);
  const vectorsOf = (view: View, write = false): Place | undefined => at(view, 'vec4<f32>', write);
  /** A temporary, which was made to fit a binding. */
  const temporary = (view: View, element: Element, write = false): Place => at(view, element, write) as Place;

  function run(
    label: string,
    structure: readonly (number | boolean | string)[],
    source: () => string,
    places: readonly Place[],
    values: Values,
    groups: number,
  ): void {
    const params = new Params();
    for (const name of fields) {
      if (name === 'scaleBits') params.addFloat(values[name] ?? 0);
      else params.add(values[name] ?? 0);
    }
    record(context, { label, structure: structure.join(), places, params, groups, source });
  }

  const steps = (name: Strided, { shape, strides }: View, { offset }: Place): Values => {
    const [B, H, T] = strides.slice(0, 3).map((step, d) => (shape[d] === 1 ? 0 : step / 4));
    return { [`${name}At`]: offset, [`${name}B`]: B, [`${name}H`]: H, [`${name}T`]: T };
  };

  function sizes(q: View, k: View, { scale, causalOffset, behind, ahead }: Attributes): Values {
    const [batch, heads, queries] = q.shape;
    const [, keyHeads, keys] = k.shape;
    return {
      batch,
      keyHeads,
      group: heads / keyHeads,
      queries,
      keys,
      vectors: q.shape[3] / 4,
      tiles: 1,
      splits: 1,
      causalOffset,
      behind,
      ahead,
      scaleBits: scale,
    };
  }

  /**
   * Tiles of a side with `rows` rows of `vectors` fours, of which an invocation keeps `tiles`: as much as makes few
   * loads and yet fits.
   */
  const keptAlone = (rows: number, vectors: number): number => {
    let kept = 1;
    while (kept < 8 && kept < rows && 2 * kept * vectors <= keptVectors) kept *= 2;
    return kept;
  };

  /** In how many parts the keys of each tile are taken, where there are too few tiles to keep the device busy. */
  function splitsFor(tiles: number, keys: number): number {
    const [wanted, least] = alone ? [32, 32] : [512, 128];
    return Math.max(1, Math.min(Math.floor(wanted / tiles), Math.floor(keys / least), 64));
  }

  function forward(
    [q, k, v, keyStart, keyEnd]: readonly View[],
    [o, lse]: readonly View[],
    attributes: Attributes,
  ): boolean {
    const [batch, heads, queries, D] = q.shape;
    const [, keyHeads, keys] = k.shape;
    const places = [
      vectorsOf(q),
      vectorsOf(k),
      vectorsOf(v),
      at(keyStart, 'i32'),
      at(keyEnd, 'i32'),
      vectorsOf(o, true),
      at(lse, 'f32', true),
    ];
    if (!places.every(p => p !== undefined)) return false;
    const [qP, kP, vP, sP, eP, oP, lP] = places;
    const vectors = D / 4;
    const rows = (heads / keyHeads) * queries;
    const all = batch * heads * queries;
    const side = rows <= 4 * fewRows.down ? fewRows : manyRows;
    const columns = Math.ceil(vectors / side.across);
    const kept = alone ? keptAlone(rows, vectors) : 4 * side.down;
    const tiles = Math.ceil(rows / kept);
    const wanted = splitsFor(batch * keyHeads * tiles, keys);
    const splits = 4 * wanted * all * D <= settings.bindingBytes ? wanted : 1;
    const split = splits > 1;
    const values: Values = {
      ...sizes(q, k, attributes),
      ...steps('q', q, qP),
      ...steps('k', k, kP),
      ...steps('v', v, vP),
      startAt: sP.offset,
      endAt: eP.offset,
      oAt: oP.offset,
      lseAt: lP.offset,
      tiles,
      splits,
    };
    const source = (): string =>
      alone ? forwardAlone({ vectors, kept, split }) : forwardTogether({ columns, split, ...side });
    const groups = Math.ceil((batch * keyHeads * tiles * splits) / (alone ? lanes : 1));
    const runTo = (outputs: readonly Place[]): void =>
      run(
        'attention',
        [alone, alone ? vectors : columns, kept, split],
        source,
        [qP, kP, vP, sP, eP, ...outputs],
        values,
        groups,
      );
    if (!split) runTo([oP, lP]);
    else
      withTemporary(context, [splits, all, D], 'f32', parts =>
        withTemporary(context, [splits, all, 2], 'f32', stats => {
          runTo([temporary(parts, 'vec4<f32>', true), temporary(stats, 'vec2<f32>', true)]);
          const joined = [temporary(parts, 'vec4<f32>'), temporary(stats, 'vec2<f32>'), oP, lP];
          run(
            'attention.join',
            [],
            () => joinSplits(invocations),
            joined,
            values,
            Math.ceil((all * vectors) / invocations),
          );
        }),
      );
    // One query, or queries that all see the same keys, meet no others.
    const { causalOffset, behind, ahead } = attributes;
    if (queries > 1 && (queries - 1 + causalOffset > behind || causalOffset + ahead + 1 < keys)) {
      run(
        'attention.again',
        ['forward'],
        () => forwardAgain(invocations),
        [qP, kP, vP, sP, eP, at(lse, 'f32') as Place, oP],
        values,
        Math.ceil(all / invocations),
      );
    }
    return true;
  }

  function backward(inputs: readonly View[], outputs: readonly View[], attributes: Attributes): boolean {
    const [q, k, v, keyStart, keyEnd, o, lse, g] = inputs;
    const [batch, heads, queries, D] = q.shape;
    const [, keyHeads, keys] = k.shape;
    const read = [
      vectorsOf(q),
      vectorsOf(k),
      vectorsOf(v),
      vectorsOf(g),
      at(keyStart, 'i32'),
      at(keyEnd, 'i32'),
      vectorsOf(o),
      at(lse, 'f32'),
    ];
    const written = outputs.map(view => vectorsOf(view, true));
    const all = batch * heads * queries;
    if (![...read, ...written].every(p => p !== undefined) || 16 * all > settings.bindingBytes) return false;
    const [qP, kP, vP, gP, sP, eP, oP, lP] = read as Place[];
    const [dqP, dkP, dvP] = written as Place[];
    const vectors = D / 4;
    const columns = Math.ceil(vectors / manyRows.across);
    const values: Values = {
      ...sizes(q, k, attributes),
      ...steps('q', q, qP),
      ...steps('k', k, kP),
      ...steps('v', v, vP),
      ...steps('g', g, gP),
      startAt: sP.offset,
      endAt: eP.offset,
      oAt: oP.offset,
      lseAt: lP.offset,
    };
    withTemporary(context, [all, 4], 'i32', rows => {
      run(
        'attention.about',
        [],
        () => aboutRows(invocations),
        [gP, oP, lP, sP, eP, temporary(rows, 'vec4<u32>', true)],
        values,
        Math.ceil(all / invocations),
      );
      const about = temporary(rows, 'vec4<u32>');
      const passes = [
        {
          label: 'attention.dq',
          count: (heads / keyHeads) * queries,
          places: [dqP],
          byOne: queryGradientAlone,
          byMany: queryGradientTogether,
        },
        {
          label: 'attention.dk',
          count: keys,
          places: [dkP, dvP],
          byOne: keyGradientAlone,
          byMany: keyGradientTogether,
        },
      ];
      for (const { label, count, places, byOne, byMany } of passes) {
        const kept = alone ? keptAlone(count, vectors) : 4 * manyRows.down;
        const tiles = Math.ceil(count / kept);
        const source = (): string =>
          alone ? byOne({ vectors, kept, split: false }) : byMany({ columns, split: false, ...manyRows });
        const groups = Math.ceil((batch * keyHeads * tiles) / (alone ? lanes : 1));
        run(
          label,
          [alone, alone ? vectors : columns, kept],
          source,
          [qP, kP, vP, gP, about, ...places],
          { ...values, tiles },
          groups,
        );
      }
      const rowsAndKeys = all + batch * keyHeads * keys;
      const again = [qP, kP, vP, gP, about, dqP, dkP, dvP];
      run(
        'attention.again',
        ['backward'],
        () => backwardAgain(invocations),
        again,
        values,
        Math.ceil(rowsAndKeys / invocations),
      );
    });
    return true;
  }

  const taken = (q: View, k: View, v: View, bounds: readonly View[], attributes: Attributes): boolean =>
    [q, k, v].every(inFours) &&
    q.shape[3] <= 4 * mostVectors &&
    sizeOf(q.shape) > 0 &&
    sizeOf(k.shape) > 0 &&
    bounds.every(b => b.dtype === 'i32' && dense(b)) &&
    attributes.causalOffset + q.shape[2] < mostPosition &&
    attributes.softcap === 0;

  fused.set('attention', ({ inputs, outputs, attributes }) => {
    const [q, k, v, keyStart, keyEnd, bias] = inputs;
    if (!q || !k || !v || !keyStart || !keyEnd || bias) return false;
    if (!taken(q, k, v, [keyStart, keyEnd], attributes) || !inFours(outputs[0]) || !outputs.every(dense)) return false;
    return forward([q, k, v, keyStart, keyEnd], outputs, attributes);
  });
  fused.set('attention.vjp', ({ inputs, outputs, attributes }) => {
    const [q, k, v, keyStart, keyEnd, bias, o, lse, g] = inputs;
    if (!q || !k || !v || !keyStart || !keyEnd || bias || !o || !lse || !g) return false;
    if (
      !taken(q, k, v, [keyStart, keyEnd], attributes) ||
      ![o, g, ...outputs].every(inFours) ||
      ![o, lse, ...outputs].every(dense)
    )
      return false;
    return backward([q, k, v, keyStart, keyEnd, o, lse, g], outputs, attributes);
  });
}
