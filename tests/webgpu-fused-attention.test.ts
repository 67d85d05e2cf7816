// Fused attention on WebGPU, by invocations alone and by workgroups: values and gradients against the f64 composition
// over head groups, head sizes, windows, paddings and cached keys; which calls are taken or declined, and how many
// dispatches they are.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { scope } from '../src/autograd/index.js';
import type { WebGpuBackend, WebGpuOptions } from '../src/backends/webgpu/index.js';
import { attention, type AttentionOptions } from '../src/nn/attention.js';
import { concat, tensor, type Tensor } from '../src/tensor/index.js';
import { checkAttentionEdges } from './helpers/attentionEdges.js';
import { closeTo, type Values } from './helpers/bounds.js';
import { cotangentFor, floatFunction, gradientsOn } from './helpers/cases.js';
import { gradientsAwaited, readAll } from './helpers/checksAwaited.js';
import { Draw, runs } from './helpers/draw.js';
import type { Host } from './helpers/host.js';
import { counted, oracle, place, type Machine } from './helpers/machines.js';
import type { Case } from './helpers/recipe.js';
import { openForTests } from './helpers/webgpu.js';

interface Variant extends Machine {
  readonly backend: WebGpuBackend;
  readonly taken: Map<string, number>;
}

async function variant(name: string, options: WebGpuOptions): Promise<Variant | undefined> {
  const backend = await openForTests(options);
  const taken = new Map<string, number>();
  return backend && { name, backend: counted(backend, taken), dtype: 'f32', taken };
}

const alone = await variant('an invocation alone', { reduce: 'invocation' });
const together = await variant('a workgroup together', { reduce: 'workgroup' });
const variants = [alone, together].filter(v => v !== undefined);

interface Shape {
  readonly B?: number;
  readonly H: number;
  readonly KV: number;
  readonly T: number;
  readonly D: number;
  /** Keys before the first query, where it is causal; else S - T. */
  readonly past?: number;
  readonly causal?: boolean;
  readonly window?: number;
  readonly keyStart?: number[];
  readonly keyEnd?: number[];
  readonly scale?: number;
}

const numbers = (seed: number): Draw =>
  new Draw({ sides: [], extra: [1], seed, scale: 1, kind: 'normal' }, { smooth: true, cap: Infinity });
const largest = (h: Host): number => h.data.reduce((most, x) => Math.max(most, Math.abs(x)), 0);

function caseOf({ B = 1, H, KV, T, D, past = 0, causal = true, window = 0, keyStart, keyEnd, scale }: Shape): Case {
  const S = T + past;
  const options: AttentionOptions = {
    causal,
    window,
    ...(causal ? { causalOffset: past } : {}),
    ...(scale === undefined ? {} : { scale }),
    ...(keyStart ? { keyStart: Int32Array.from(keyStart) } : {}),
    ...(keyEnd ? { keyEnd: Int32Array.from(keyEnd) } : {}),
  };
  const draw = numbers(B + 2 * H + 3 * T + 5 * D + 7 * S + window);
  const [q, k, v] = [
    [B, H, T, D],
    [B, KV, S, D],
    [B, KV, S, D],
  ].map(shape => draw.values(shape, { limit: 3 }));
  const run: Case['run'] = (a, b, c) => attention(a, b, c, options);
  const value = onOracle(() => run(...[q, k, v].map(h => place(h, oracle))));
  const factor = scale ?? 1 / Math.sqrt(D);
  return {
    inputs: [q, k, v],
    run,
    roundings: 2 * D + S + 40,
    gradientScale: factor * largest(v) * Math.max(largest(q), largest(k)),
    reference: () => ({ shape: [B, H, T, D], data: Float64Array.from(value), dtype: 'float' }),
  };
}

const onOracle = (f: () => Tensor): number[] => scope(() => Array.from(f().dataSync()));

/** Values and gradients as the f64 composition's, with the kernels having taken the calls. */
async function check(c: Case, gradients: readonly number[][], machine: Variant, what: string): Promise<void> {
  const count = (): number => (machine.taken.get('attention') ?? 0) + (machine.taken.get('attention.vjp') ?? 0);
  const before = count();
  const [values] = await readAll(() => [c.run(...c.inputs.map(h => place(h, machine)))]);
  closeTo(Array.from((values as Values).data), Array.from(c.reference().data), c.roundings, `${machine.name}: ${what}`);
  const actual = await gradientsAwaited(c, machine);
  actual.forEach((g, i) => closeTo(g, gradients[i], 512, `${machine.name}: ${what}, gradient ${i}`, c.gradientScale));
  assert.equal(count() - before, 3, `${machine.name}: ${what}: forward twice and backward once`);
}

const expectedGradients = (c: Case): number[][] => gradientsOn(floatFunction(c)[0], c.inputs, cotangentFor(7), oracle);

/** Long heads take a second to compile: each variant has one. */
const shapes: readonly [string, Shape, only?: string][] = [
  ['one query, one key', { H: 1, KV: 1, T: 1, D: 8 }],
  ['heads of 64 in groups of three', { H: 9, KV: 3, T: 13, D: 64 }, alone?.name],
  ['heads of 96', { H: 2, KV: 1, T: 6, D: 96, past: 1 }, together?.name],
  ['heads of 12, not causal, more keys than queries', { H: 4, KV: 4, T: 7, D: 12, past: 5, causal: false }],
  ['65 queries', { H: 2, KV: 1, T: 65, D: 8 }],
  [
    '65 queries after 4 cached keys, window of 9, a scale',
    { H: 2, KV: 2, T: 65, D: 8, past: 4, window: 9, scale: 0.7 },
  ],
  ['window of one: the values themselves', { H: 4, KV: 2, T: 33, D: 8, window: 1 }],
  ['a window without causal order', { H: 2, KV: 2, T: 17, D: 8, past: 3, causal: false, window: 4 }],
  [
    'padding left and right, a row of padding alone',
    { B: 3, H: 6, KV: 2, T: 21, D: 8, keyStart: [5, 0, 9], keyEnd: [21, 11, 9] },
  ],
  ['padding left, a window, a cache', { B: 2, H: 4, KV: 1, T: 11, D: 12, past: 30, window: 7, keyStart: [33, 2] }],
  ['one new token in a group of four', { B: 2, H: 8, KV: 2, T: 1, D: 8, past: 40, keyStart: [3, 0] }],
  ['one new token, keys enough to be split', { H: 3, KV: 1, T: 1, D: 8, past: 400 }],
  [
    'two new tokens, split keys, some parts empty',
    { B: 2, H: 2, KV: 1, T: 2, D: 8, past: 510, keyStart: [0, 480], window: 300 },
  ],
];
const cases =
  variants.length === 0
    ? []
    : shapes.map(([what, shape, only]) => {
        const c = caseOf(shape);
        return { what, only, c, gradients: expectedGradients(c) };
      });

const property = fc.record({
  B: fc.constantFrom(1, 2),
  KV: fc.constantFrom(1, 2, 3),
  group: fc.constantFrom(1, 2, 3),
  T: fc.constantFrom(1, 2, 7, 9, 16, 31, 40),
  D: fc.constantFrom(8, 12),
  past: fc.constantFrom(0, 1, 6),
  causal: fc.boolean(),
  window: fc.constantFrom(0, 0, 1, 5, 20),
  start: fc.array(fc.nat(20), { minLength: 2, maxLength: 2 }),
  length: fc.array(fc.nat(40), { minLength: 2, maxLength: 2 }),
});

for (const machine of variants) {
  test(`${machine.name}: values and gradients are the f64 composition's`, async () => {
    for (const { what, only, c, gradients } of cases)
      if (!only || only === machine.name) await check(c, gradients, machine, what);
  });

  test(`${machine.name}: the same for any groups, sizes, windows and paddings`, () =>
    fc.assert(
      fc.asyncProperty(property, async drawn => {
        const { B, KV, group, T, D, past, causal, window, start, length } = drawn;
        const keyStart = start.slice(0, B).map(s => Math.min(s, T + past));
        const keyEnd = keyStart.map((s, b) => Math.min(T + past, s + length[b]));
        const c = caseOf({ B, H: KV * group, KV, T, D, past, causal, window, keyStart, keyEnd });
        await check(c, expectedGradients(c), machine, JSON.stringify(drawn));
      }),
      runs(8),
    ));

  test(`${machine.name}: heads that lie apart are taken, numbers of a head that do are not`, async () => {
    const c = caseOf({ B: 2, H: 4, KV: 2, T: 9, D: 8 });
    const [q, k, v] = c.inputs;
    const far = (h: Host): Tensor =>
      place({ ...h, shape: [2, h.shape[1], 9, 8] }, machine)
        .permute([0, 2, 1, 3])
        .contiguous()
        .permute([0, 2, 1, 3]);
    const columns = (h: Host): Tensor => place(h, machine).transpose().contiguous().transpose();
    const window = (h: Host): Tensor => concat([place(h, machine), place(h, machine).mul(NaN)], 2).slice(2, 0, 9);
    for (const [what, view, count] of [
      ['other axes inside', far, 1],
      ['a window', window, 1],
      ['columns', columns, 0],
    ] as const) {
      const before = machine.taken.get('attention') ?? 0;
      const [y] = await readAll(() => [c.run(view(q), view(k), view(v))]);
      closeTo(Array.from((y as Values).data), Array.from(c.reference().data), c.roundings, `${machine.name}: ${what}`);
      assert.equal((machine.taken.get('attention') ?? 0) - before, count, what);
    }
    const shared = (h: Host): Tensor =>
      place({ ...h, shape: [1, h.shape[1], 9, 8], data: h.data.slice(0, h.data.length / 2) }, machine).expand([
        2,
        h.shape[1],
        9,
        8,
      ]);
    const [y] = await readAll(() => [c.run(shared(q), shared(k), shared(v))]);
    const half = (y as Values).data.length / 2;
    for (let i = 0; i < half; i++)
      assert.equal((y as Values).data[i], (y as Values).data[half + i], 'a batch of stride 0');
  });

  test(`${machine.name}: queries without a key give zeros and take no gradient`, async () => {
    const options = { keyStart: Int32Array.of(2), keyEnd: Int32Array.of(4), causal: true };
    const [y, dq, dk] = (await readAll(() => {
      const [q, k, v] = [0, 1, 2].map(i =>
        tensor.normal([1, 2, 5, 8], { seed: i, backend: machine.backend }).requireGrad(),
      );
      const o = attention(q, k, v, options);
      o.backward({ gradient: tensor.ones([1, 2, 5, 8], { backend: machine.backend }) });
      return [o, q.grad, k.grad];
    })) as Values[];
    const rowIs = (x: Values, t: number, f: (v: number) => boolean): void =>
      Array.from(x.data).forEach((v, i) => assert.ok((i >> 3) % 5 !== t || f(v), `${t}: ${v}`));
    for (const t of [0, 1]) for (const x of [y, dq, dk]) rowIs(x, t, v => v === 0);
    rowIs(dk, 4, v => v === 0);
    rowIs(y, 2, v => v !== 0);
  });

  test(`${machine.name}: NaN stays in its query, and with the queries that see its key`, async () => {
    const [o, seen] = (await readAll(() => {
      const make = (at: number): Tensor =>
        tensor(
          Float32Array.from({ length: 48 }, (_, i) => (i >> 3 === at ? NaN : (i % 5) / 5)),
          [1, 1, 6, 8],
          { backend: machine.backend },
        );
      const clean = make(-1);
      return [
        attention(make(3), clean, clean, { causal: true }),
        attention(clean, make(3), clean, { causal: true, window: 2 }),
      ];
    })) as Values[];
    Array.from(o.data).forEach((x, i) => assert.equal(Number.isNaN(x), i >> 3 === 3, `query ${i >> 3}`));
    Array.from(seen.data).forEach((x, i) =>
      assert.equal(Number.isNaN(x), i >> 3 === 3 || i >> 3 === 4, `query ${i >> 3}`),
    );
  });

  test(`${machine.name}: one dispatch forward, three backward, two where keys are split, one more to look for NaN; lengths compile nothing new`, async () => {
    const { backend } = machine;
    const { counters } = backend;
    const dispatches = (T: number, S: number): number[] =>
      scope(() => {
        const [q, k, v] = [T, S, S].map((side, i) =>
          tensor.normal([1, 2, side, 8], { seed: i, backend }).requireGrad(),
        );
        const gradient = tensor.ones([1, 2, T, 8], { backend });
        const marks = [counters.dispatches];
        const o = attention(q, k, v, { causal: true, causalOffset: S - T });
        marks.push(counters.dispatches);
        o.backward({ gradient });
        marks.push(counters.dispatches);
        return [marks[1] - marks[0], marks[2] - marks[1]];
      });
    const keys = machine === alone ? 64 : 512;
    assert.deepEqual(dispatches(9, keys), [3, 4]);
    assert.deepEqual(dispatches(9, 31), [2, 4]);
    const before = counters.pipelines;
    assert.deepEqual(dispatches(11, keys + 3), [3, 4]);
    assert.deepEqual(dispatches(10, 10), [2, 4]);
    assert.deepEqual(dispatches(1, 10), [1, 4]);
    assert.equal(counters.pipelines, before);
    await backend.flush();
  });

  test(`${machine.name}: the same bits every time`, async () => {
    const once = (): Promise<(Values | null)[]> =>
      readAll(() => {
        const [q, k, v] = [4, 2, 2].map((heads, i) =>
          tensor.normal([1, heads, 20, 8], { seed: i, backend: machine.backend }).requireGrad(),
        );
        const o = attention(q, k, v, { causal: true });
        o.backward({ gradient: o.detach() });
        return [o, q.grad, k.grad, v.grad];
      });
    const [first, second] = [await once(), await once()];
    first.forEach((x, i) => assert.deepEqual((x as Values).data, (second[i] as Values).data));
  });

  test(`${machine.name}: what is declined records nothing`, () =>
    scope(() => {
      const { backend } = machine;
      const view = (shape: number[], dtype: 'f32' | 'i32' = 'f32') =>
        tensor.zeros(shape, { dtype, backend }).view('test');
      const call = (D: number, T = 3) => ({
        inputs: [view([1, 2, T, D]), view([1, 2, T, D]), view([1, 2, T, D]), view([1], 'i32'), view([1], 'i32')],
        outputs: [view([1, 2, T, D]), view([1, 2, T])],
        attributes: { scale: 1, causal: 1, causalOffset: 0, window: 0 },
      });
      const backward = (D: number) => {
        const {
          inputs: [q, k, v, from, to],
          outputs: [o, lse],
          attributes,
        } = call(D);
        return {
          inputs: [q, k, v, from, to, o, lse, o],
          outputs: [view([1, 2, 3, D]), view([1, 2, 3, D]), view([1, 2, 3, D])],
          attributes,
        };
      };
      const [six, wide, none, six_, wide_, lacking] = [
        call(6),
        call(260),
        call(8, 0),
        backward(6),
        backward(260),
        backward(8),
      ];
      const before = backend.counters.dispatches;
      for (const c of [six, wide, none]) assert.equal(backend.fused.get('attention')?.(c), false);
      for (const c of [six_, wide_, { ...lacking, inputs: [...lacking.inputs.slice(0, 7), null] }])
        assert.equal(backend.fused.get('attention.vjp')?.(c), false);
      assert.equal(backend.counters.dispatches, before);
    }));
}

checkAttentionEdges(variants);

const small = await openForTests({ reduce: 'invocation', bindingBytes: 4096 });
if (small) {
  const taken = new Map<string, number>();
  const machine: Variant = { name: 'small bindings', backend: counted(small, taken), dtype: 'f32', taken };

  test('operands larger than a binding are left to the composition, with the same values', async () => {
    const c = caseOf({ H: 2, KV: 1, T: 9, D: 64 });
    const [values] = await readAll(() => [c.run(...c.inputs.map(h => place(h, machine)))]);
    closeTo(Array.from((values as Values).data), Array.from(c.reference().data), c.roundings, 'composition');
    (await gradientsAwaited(c, machine)).forEach((g, i) =>
      closeTo(g, expectedGradients(c)[i], 512, `gradient ${i}`, c.gradientScale),
    );
    assert.equal(taken.get('attention'), 0);
    const fits = caseOf({ H: 2, KV: 1, T: 12, D: 16 });
    await check(fits, expectedGradients(fits), machine, 'fits');
    // A window of a buffer that is larger than may be bound.
    const [y] = await readAll(() => {
      const [q, k, v] = fits.inputs.map(h =>
        concat([tensor.zeros([3, ...h.shape.slice(1)], { backend: small }), place(h, machine)], 0).slice(0, 3, 4),
      );
      return [fits.run(q, k, v)];
    });
    closeTo(Array.from((y as Values).data), Array.from(fits.reference().data), fits.roundings, 'window');
    assert.equal(taken.get('attention'), 3);
  });

  test('where there is no room for the parts, keys are not split', async () => {
    for (const [T, count] of [
      [40, 2],
      [8, 3],
    ] as const) {
      const c = caseOf({ H: 1, KV: 1, T, D: 8, past: 88 });
      const inputs = c.inputs.map(h => place(h, machine));
      const before: number = small.counters.dispatches;
      const y = c.run(...inputs);
      assert.equal(small.counters.dispatches - before, count, `${T} queries`);
      closeTo(Array.from(await y.data()), Array.from(c.reference().data), c.roundings, `${T} queries`);
    }
  });
}
