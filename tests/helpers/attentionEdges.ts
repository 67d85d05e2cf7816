// Attention where numbers or keys end: what a query does not see must not reach it, whatever it is, forward and
// backward; no keys at all; scores that are not finite. For machines of any kind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attention, type AttentionOptions } from '../../src/nn/attention.js';
import { tensor, type Tensor } from '../../src/tensor/index.js';
import { build, type Host } from './host.js';
import { oracle, place, type Machine } from './machines.js';
import { seededRandom } from './mutate.js';

export interface Setting {
  readonly B: number;
  readonly H: number;
  readonly KV: number;
  readonly T: number;
  readonly S: number;
  readonly options: AttentionOptions;
}

export const D = 8;
const lists = (...numbers: number[]): Int32Array => Int32Array.from(numbers);

/** Fewer than six queries go another way than panels of eight do. */
export const settings: readonly (readonly [string, Setting])[] = [
  ['causal', { B: 1, H: 2, KV: 1, T: 13, S: 13, options: { causal: true } }],
  ['causal after cached keys', { B: 1, H: 2, KV: 2, T: 9, S: 14, options: { causal: true, causalOffset: 5 } }],
  ['few queries', { B: 1, H: 2, KV: 1, T: 4, S: 6, options: { causal: true, causalOffset: 2 } }],
  ['a window', { B: 1, H: 1, KV: 1, T: 20, S: 20, options: { causal: true, window: 3 } }],
  ['a window without causal order', { B: 1, H: 1, KV: 1, T: 12, S: 12, options: { window: 4 } }],
  ['a window to both sides', { B: 1, H: 2, KV: 1, T: 12, S: 12, options: { window: { before: 3, after: 1 } } }],
  [
    'few queries with a window to both sides',
    { B: 1, H: 1, KV: 1, T: 5, S: 9, options: { causalOffset: 2, window: { before: 0, after: 2 } } },
  ],
  [
    'padding',
    { B: 2, H: 2, KV: 1, T: 10, S: 10, options: { causal: true, keyStart: lists(3, 0), keyEnd: lists(10, 7) } },
  ],
  [
    'padding without causal order',
    { B: 2, H: 1, KV: 1, T: 8, S: 11, options: { keyStart: lists(2, 0), keyEnd: lists(11, 5) } },
  ],
];

function sees(
  { S, options: { causal, causalOffset = 0, window = 0, keyStart, keyEnd } }: Setting,
  b: number,
  t: number,
  s: number,
): boolean {
  return (
    s >= (keyStart?.[b] ?? 0) &&
    s < (keyEnd?.[b] ?? S) &&
    (!causal || s <= t + causalOffset) &&
    (typeof window === 'number'
      ? window === 0 || s > t + causalOffset - window
      : s >= t + causalOffset - window.before && s <= t + causalOffset + window.after)
  );
}

interface Inputs {
  readonly q: Host;
  readonly k: Host;
  readonly v: Host;
  readonly g: Host;
}
type Results = Readonly<Record<'o' | 'dq' | 'dk' | 'dv', number[]>>;

function inputsOf({ B, H, KV, T, S }: Setting): Inputs {
  const random = seededRandom(T + 31 * S);
  const draw = (shape: number[]): Host => build(shape, () => 2 * random() - 1);
  return { q: draw([B, H, T, D]), k: draw([B, KV, S, D]), v: draw([B, KV, S, D]), g: draw([B, H, T, D]) };
}

async function run({ options }: Setting, inputs: Inputs, machine: Machine): Promise<Results> {
  const [q, k, v, g] = [inputs.q, inputs.k, inputs.v, inputs.g].map(h => place(h, machine));
  for (const x of [q, k, v]) x.requireGrad();
  const o = attention(q, k, v, options);
  o.backward({ gradient: g });
  const read = async (x: Tensor | null): Promise<number[]> => Array.from(await (x as Tensor).data());
  return { o: await read(o), dq: await read(q.grad), dk: await read(k.grad), dv: await read(v.grad) };
}

/** `h` with row `row` of every head of batch row 0 replaced. */
const poisoned = (h: Host, row: number, value: number): Host =>
  build(h.shape, i =>
    i[0] === 0 && i[2] === row ? value : h.data[((i[0] * h.shape[1] + i[1]) * h.shape[2] + i[2]) * D + i[3]],
  );

/** Rows that `touched` says nothing reached are as they were; `nan` says which of the others are NaN throughout. */
function compare(
  actual: number[],
  clean: number[],
  rows: number,
  touched: (b: number, row: number) => boolean,
  nan: boolean,
  perBatch: number,
  what: string,
): void {
  actual.forEach((x, i) => {
    const [row, b] = [Math.floor(i / D) % rows, Math.floor(i / perBatch)];
    if (!touched(b, row))
      assert.ok(Math.abs(x - clean[i]) < 1e-4, `${what}: batch ${b}, row ${row}: ${x}, expected ${clean[i]}`);
    else if (nan) assert.ok(Number.isNaN(x), `${what}: batch ${b}, row ${row}: ${x}, expected NaN`);
  });
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

export function checkAttentionEdges(machines: readonly Machine[]): void {
  for (const machine of machines) {
    for (const [name, setting] of settings) {
      const { H, KV, T, S } = setting;
      const [perQuery, perKey] = [H * T * D, KV * S * D];

      test(`attention, ${name}: what is not finite in a key stays with the queries that see it (${machine.name})`, async () => {
        const inputs = inputsOf(setting);
        const clean = await run(setting, inputs, oracle);
        for (const s of [0, 1, S - 1, Math.floor(S / 2)]) {
          for (const [what, changed, nan] of [
            ['NaN', { ...inputs, k: poisoned(inputs.k, s, NaN), v: poisoned(inputs.v, s, NaN) }, true],
            ['infinite values', { ...inputs, v: poisoned(inputs.v, s, -Infinity) }, false],
          ] as const) {
            const seen = (b: number, t: number): boolean => b === 0 && sees(setting, b, t, s);
            /** Whether a query sees both keys. */
            const together = (b: number, other: number): boolean =>
              b === 0 && range(T).some(t => sees(setting, b, t, s) && sees(setting, b, t, other));
            const { o, dq, dk, dv } = await run(setting, changed, machine);
            compare(o, clean.o, T, seen, nan, perQuery, `${what} in key ${s}, output`);
            compare(dq, clean.dq, T, seen, nan, perQuery, `${what} in key ${s}, dq`);
            compare(dk, clean.dk, S, together, nan, perKey, `${what} in key ${s}, dk`);
            compare(dv, clean.dv, S, together, nan, perKey, `${what} in key ${s}, dv`);
          }
        }
      });

      test(`attention, ${name}: a query or a gradient that is NaN stays with its row and the keys that it sees (${machine.name})`, async () => {
        const inputs = inputsOf(setting);
        const clean = await run(setting, inputs, oracle);
        for (const t of [0, Math.floor(T / 2), T - 1]) {
          const any = range(S).some(s => sees(setting, 0, t, s));
          const own = (b: number, row: number): boolean => b === 0 && row === t && any;
          const seen = (b: number, s: number): boolean => b === 0 && sees(setting, b, t, s);
          const query = await run(setting, { ...inputs, q: poisoned(inputs.q, t, NaN) }, machine);
          compare(query.o, clean.o, T, own, true, perQuery, `query ${t}, output`);
          compare(query.dq, clean.dq, T, own, true, perQuery, `query ${t}, dq`);
          for (const gradient of ['dk', 'dv'] as const)
            compare(query[gradient], clean[gradient], S, seen, true, perKey, `query ${t}, ${gradient}`);
          const cotangent = await run(setting, { ...inputs, g: poisoned(inputs.g, t, NaN) }, machine);
          compare(cotangent.dq, clean.dq, T, own, true, perQuery, `gradient ${t}, dq`);
          for (const gradient of ['dk', 'dv'] as const)
            compare(cotangent[gradient], clean[gradient], S, seen, true, perKey, `gradient ${t}, ${gradient}`);
        }
      });
    }

    test(`attention: without keys there are zeros, and gradients of zeros (${machine.name})`, async () => {
      for (const T of [1, 3, 9]) {
        const setting: Setting = { B: 2, H: 2, KV: 1, T, S: 0, options: {} };
        const { o, dq, dk, dv } = await run(setting, inputsOf(setting), machine);
        assert.deepEqual([o, dq, dk, dv], [new Array(32 * T).fill(0), new Array(32 * T).fill(0), [], []]);
      }
      const none: Setting = { B: 1, H: 2, KV: 1, T: 0, S: 3, options: { causal: true } };
      const { o, dk } = await run(none, inputsOf(none), machine);
      assert.deepEqual([o, dk], [[], new Array(24).fill(0)]);
    });

    test(`attention: scores that are infinite (${machine.name})`, async () => {
      const make = (values: number[]): Tensor =>
        place(
          build([1, 1, values.length, 4], ([, , t]) => values[t]),
          machine,
        );
      const numbers = async (x: Tensor): Promise<number[]> => Array.from(await x.data()).filter((_, i) => i % 4 === 0);
      for (const T of [1, 2, 9]) {
        const each = (x: number): number[] => new Array<number>(T).fill(x);
        // All that are seen -Infinity: nothing has weight, as in torch. Some: they have none.
        assert.deepEqual(
          await numbers(attention(make(each(1)), make([-Infinity, -Infinity]), make([2, 3]))),
          each(0),
          `${T} queries, all -Infinity`,
        );
        assert.deepEqual(
          await numbers(attention(make(each(1)), make([-Infinity, 1]), make([2, 3]))),
          each(3),
          `${T} queries, one -Infinity`,
        );
        assert.deepEqual(
          await numbers(attention(make(each(1)), make([Infinity, 1]), make([2, 3]))),
          each(NaN),
          `${T} queries, one Infinity`,
        );
      }
      assert.deepEqual(
        await numbers(attention(make([1, 1]), make([-Infinity, 1]), make([2, 3]), { causal: true })),
        [0, 3],
      );
    });

    test(`attention: what is refused (${machine.name})`, () => {
      const make = (dtype: 'f32' | 'f64' | 'i32', ...shape: number[]): Tensor =>
        tensor.zeros(shape, { dtype, backend: machine.backend });
      const q = make(machine.dtype, 1, 1, 2, 4);
      const integers = make('i32', 1, 1, 2, 4);
      const types = `attention: expected three f32 or three f64 tensors, got ${machine.dtype}, ${machine.dtype} and i32`;
      assert.throws(() => attention(q, q, integers), { name: 'ShapeError', message: types });
      assert.throws(() => attention(integers, integers, integers), {
        message: 'attention: expected three f32 or three f64 tensors, got i32, i32 and i32',
      });
      assert.throws(() => attention(q, q, q, { keyEnd: lists(-1) }), {
        name: 'RangeError',
        message: 'attention: row 0 sees keys 0 to -1 of 2',
      });
      assert.throws(() => attention(q, q, q, { scale: NaN }), {
        name: 'RangeError',
        message: 'attention: scale must be a finite number, got NaN',
      });
    });
  }
}
