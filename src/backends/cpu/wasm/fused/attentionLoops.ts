// What the functions of attention share: the descriptor they read everything from, which keys a query sees, and where
// heads lie.

import {
  load,
  op,
  select,
  type FunctionBuilder,
  type Local,
  type ModuleBuilder,
  type Operand,
  type Value,
} from '../emit/assembler.js';
import { LaneMath } from '../emit/lanes.js';
import { loadFields } from './fields.js';

/** Operands with rows of dense numbers, apart along B, H and T by any strides. */
export const strided = ['q', 'k', 'v', 'bias', 'o', 'g', 'dq', 'dk', 'dv'] as const;
export type Strided = (typeof strided)[number];

/** Places in the scratch of a thread; in the descriptor they are counted from its start. */
export const regions = [
  'keyPanels',
  'valuePanels',
  'scores',
  'out',
  'factors',
  'spare', // packed keys and values; [keys, 8]; [D, 8], and for `turn` factors and a row
  'panel', // forward: queries [D, 8] of the heads of a group
  // The VJP: packed rows of the tile and their columns, g v^T, ds turned, what is known of its queries; columns of the
  // keys; sums [keys / 8, D, 8].
  'rowsQ',
  'rowsG',
  'columnsQ',
  'columnsG',
  'gradients',
  'slopes', // derivatives of capped scores, beside the scores
  'turned',
  'queriesInfo',
  'keyColumns',
  'dkTurned',
  'dvTurned',
] as const;
export type Region = (typeof regions)[number];

export const fields = [
  ...strided.flatMap(name => [name, `${name}B`, `${name}H`, `${name}T`] as const), // addresses, and steps in bytes
  ...regions,
  'keyStart',
  'keyEnd',
  'lse',
  'heads',
  'group',
  'queries',
  'keys',
  'dim',
  'causalOffset',
  'behind',
  'ahead',
  'scale', // what finished scores are multiplied by
  'dotScale', // what products q k are multiplied by where scores have a soft cap or a bias
  'softcap',
  'panels',
  'packedKeys',
  'packedValues',
  'headKeys',
  'headValues',
  'scoreRow',
  'tile',
  'hasNaN',
  'foundNaN', // where to note that a result is NaN, and that note
] as const;
export type Field = (typeof fields)[number];
export const floats: readonly Field[] = ['scale', 'dotScale', 'softcap'];
export type Fields = Readonly<Record<Field, Local>>;

/** Below every finite score: what a maximum begins with, so that scores of -Infinity have no weight. */
export const lowest = -3.4028234663852886e38;

export const plus = (first: Value, ...terms: readonly Operand[]): Value =>
  terms.reduce<Value>((a, b) => op('i32.add', a, b), first);
export const minus = (a: Operand, b: Operand): Value => op('i32.sub', a, b);
export const times = (a: Value, b: Operand): Value => op('i32.mul', a, b);

export function keep(f: FunctionBuilder, value: Operand): Local {
  const local = f.local('i32');
  f.set(local, value);
  return local;
}

export function smaller(f: FunctionBuilder, a: Operand, b: Operand): Local {
  const [x, y] = [keep(f, a), keep(f, b)];
  return keep(f, select(x, y, op('i32.lt_s', x, y)));
}

export function larger(f: FunctionBuilder, a: Operand, b: Operand): Local {
  const [x, y] = [keep(f, a), keep(f, b)];
  return keep(f, select(x, y, op('i32.gt_s', x, y)));
}

export interface Bounds {
  /** The first valid key of a row of the batch, and one past the last. */
  readonly start: Local;
  readonly end: Local;
}

export function boundsOf(f: FunctionBuilder, field: Fields, b: Value): Bounds {
  const at = (name: 'keyStart' | 'keyEnd'): Local => keep(f, load('i32.load', plus(field[name], times(b, 4))));
  return { start: at('keyStart'), end: at('keyEnd') };
}

/** The keys that query `t` sees: from, and one past the last; none if that is not larger. Both grow with t. */
export function seenBy(
  f: FunctionBuilder,
  field: Fields,
  { start, end }: Bounds,
  t: Value,
): { from: Local; to: Local } {
  const position = keep(f, plus(t, field.causalOffset));
  return {
    from: larger(f, minus(position, field.behind), start),
    to: smaller(f, op('i32.add', plus(position, field.ahead), 1), end),
  };
}

/** Where row `row` of a head lies. */
export const placeOf = (field: Fields, name: Strided, b: Value, head: Value, row: Value): Value =>
  plus(field[name], times(b, field[`${name}B`]), times(head, field[`${name}H`]), times(row, field[`${name}T`]));

export interface Loops {
  readonly f: FunctionBuilder;
  readonly math: LaneMath;
  readonly field: Fields;
  /** Items to compute: from, and one past the last. */
  readonly from: Local;
  readonly to: Local;
}

/** name(descriptor, from, to, scratch) */
export function startFunction(m: ModuleBuilder, name: string, relaxed: boolean): Loops {
  const f = m.function(name, { params: ['i32', 'i32', 'i32', 'i32'], results: [] });
  const [descriptor, from, to, scratch] = f.params;
  const field = loadFields(f, descriptor, fields, floats);
  for (const region of regions) f.add(field[region], scratch);
  return { f, math: new LaneMath(f, relaxed), field, from, to };
}
