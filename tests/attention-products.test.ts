// Attention by matrix products, which runs where no kernel takes a call, is the composition that defines it: values and
// gradients, with numbers in any place that are not finite.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fusedOps } from '../src/autograd/fusedRegistry.js';
import { attention } from '../src/nn/attention.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { D, settings, type Setting } from './helpers/attentionEdges.js';
import { build, type Host } from './helpers/host.js';
import { accepted, cpu, cpuPlain, oracle, place, referenceF32, type Machine } from './helpers/machines.js';
import { seededRandom } from './helpers/mutate.js';

/** Runs `body` as if there were nothing but the composition. */
function defined<T>(body: () => T): T {
  const definition = fusedOps.get('attention')?.definition as { compute?: unknown };
  const { compute } = definition;
  assert.equal(typeof compute, 'function');
  definition.compute = undefined;
  try {
    return body();
  } finally {
    definition.compute = compute;
  }
}

const names = ['q', 'k', 'v', 'bias', 'g'] as const;
type Inputs = Readonly<Record<(typeof names)[number], Host>>;

function inputsOf({ B, H, KV, T, S }: Setting): Inputs {
  const random = seededRandom(7 * T + S);
  const draw = (shape: number[]): Host => build(shape, () => 4 * random() - 2);
  const keys = [B, KV, S, D];
  return { q: draw([B, H, T, D]), k: draw(keys), v: draw(keys), bias: draw([1, H, T, S]), g: draw([B, H, T, D]) };
}

/** Output and gradients of q, k, v and, on the oracle, of the bias: elsewhere it is frozen. */
function run({ options }: Setting, inputs: Inputs, softcap: number, biased: boolean, machine = oracle): number[][] {
  const [q, k, v, bias, g] = names.map(name => place(inputs[name], machine));
  for (const x of [q, k, v, ...(machine === oracle ? [bias] : [])]) x.requireGrad();
  const o = attention(q, k, v, { ...options, softcap, bias: biased ? bias : null });
  o.backward({ gradient: g });
  return [o, q.grad, k.grad, v.grad, ...(biased && machine === oracle ? [bias.grad] : [])].map(x =>
    Array.from((x as Tensor).dataSync()),
  );
}

/** `alike`: an infinity and NaN count as the same. */
function same(actual: number[][], expected: number[][], what: string, alike: boolean, tolerance = 1e-12): void {
  const results = ['output', 'dq', 'dk', 'dv', 'dbias'];
  actual.forEach((list, n) =>
    list.forEach((x, i) => {
      const y = expected[n][i];
      assert.ok(
        Object.is(x, y) ||
          (alike && !Number.isFinite(x) && !Number.isFinite(y)) ||
          Math.abs(x - y) <= tolerance * (1 + Math.abs(y)),
        `${what}: ${results[n]} ${i} is ${x}, expected ${y}`,
      );
    }),
  );
}

const nearlyAll = (before: number, after: number): readonly [string, Setting] => [
  `${before} keys before and ${after} after of four`,
  { B: 1, H: 1, KV: 1, T: 4, S: 4, options: { window: { before, after } } },
];

for (const [name, setting] of [...settings, nearlyAll(2, 3), nearlyAll(3, 2)]) {
  for (const [softcap, biased] of [
    [0, false],
    [1.5, false],
    [0, true],
    [1.5, true],
  ] as const) {
    test(`attention by products, ${name}, soft cap ${softcap}${biased ? ', a bias' : ''}: equals the definition`, () => {
      const clean = inputsOf(setting);
      // The softmax's derivative takes differences of products with g, in another order here: Infinity less Infinity.
      const check = (inputs: Inputs, what: string, alike = false): void =>
        same(
          run(setting, inputs, softcap, biased),
          defined(() => run(setting, inputs, softcap, biased)),
          what,
          alike,
        );
      check(clean, 'finite');
      const random = seededRandom(setting.S);
      const strange = [NaN, Infinity, -Infinity];
      for (const name of names.filter(name => biased || name !== 'bias')) {
        for (let n = 0; n < 4; n++) {
          // One or two numbers, of one row or of several.
          const { shape, data } = clean[name];
          const places = Array.from({ length: 1 + (n % 2) }, () => Math.floor(random() * data.length));
          const poisoned = Float64Array.from(data);
          places.forEach((at, i) => (poisoned[at] = strange[(n + i) % 3]));
          check(
            { ...clean, [name]: { ...clean[name], data: poisoned } },
            `${name} ${shape.join()}: ${places.join()}`,
            name === 'g',
          );
        }
      }
    });
  }
}

/** Panels and tiles of the kernels, and one more; heads that share keys; few queries. */
const larger: readonly (readonly [string, Setting])[] = [
  ['a whole panel', { B: 2, H: 4, KV: 2, T: 8, S: 16, options: {} }],
  ['more than a panel', { B: 2, H: 2, KV: 1, T: 11, S: 21, options: { causal: true, causalOffset: 10 } }],
  ['two tiles', { B: 1, H: 2, KV: 1, T: 83, S: 85, options: { window: { before: 20, after: 9 } } }],
  ['one query', { B: 2, H: 2, KV: 2, T: 1, S: 13, options: { causal: true, causalOffset: 12 } }],
];

for (const machine of [cpu, cpuPlain] as const satisfies readonly Machine[]) {
  for (const [softcap, biased] of [
    [1.5, false],
    [0, true],
    [1.5, true],
  ] as const) {
    test(`attention's kernels, soft cap ${softcap}${biased ? ', a bias' : ''}: equal the oracle (${machine.name})`, () => {
      const before = ['attention', 'attention.vjp'].map(name => accepted.get(name) ?? 0);
      let calls = 0;
      for (const [name, setting] of [...settings, ...larger]) {
        const clean = inputsOf(setting);
        const check = (inputs: Inputs, what: string, gradients: boolean): void => {
          const [actual, expected] = [machine, oracle].map(m => run(setting, inputs, softcap, biased, m));
          const count = gradients ? 4 : 1;
          same(actual.slice(0, count), expected.slice(0, count), `${name}, ${what}`, true, 2e-4);
          calls++;
        };
        check(clean, 'finite', true);
        // One batch row's bias for all, or each its own.
        const each = build([setting.B, setting.H, setting.T, setting.S], ([b, h, t, s]) => Math.sin(b + 2 * h + t * s));
        check({ ...clean, bias: each }, 'a bias for each row', true);
        // A key that is NaN: in what does not see it nothing is.
        const row = 2 % setting.S;
        const keys = (x: Host): Host =>
          build(x.shape, ([b, h, s, d]) =>
            b === 0 && s === row ? NaN : x.data[((b * x.shape[1] + h) * x.shape[2] + s) * D + d],
          );
        check({ ...clean, k: keys(clean.k), v: keys(clean.v) }, 'a key that is NaN', true);
        if (!biased) continue;
        // Keys that the bias takes out, and a number that nobody may look at unless it sees that key.
        const taken = build(clean.bias.shape, ([, , t, s]) =>
          s === row ? NaN : (s + t) % 3 ? Math.cos(s) : -Infinity,
        );
        check({ ...clean, bias: taken }, 'a bias of -Infinity and NaN', false);
      }
      const took = ['attention', 'attention.vjp'].map((name, i) => (accepted.get(name) ?? 0) - before[i]);
      // A bias of capped scores is left to products on the way back.
      assert.deepEqual(took, [calls, softcap > 0 && biased ? 0 : calls]);
    });
  }
}

test('attention by products: an infinite value that has weight 0, and one that nobody sees', () => {
  // A score of -200 has the weight 0 in f32.
  const like = { backend: referenceF32.backend };
  const one = (values: number[], ...shape: number[]): Tensor => tensor(Float32Array.from(values), shape, like);
  const q = one([1, 1], 1, 1, 2, 1);
  const k = one([0, -200, 0], 1, 1, 3, 1);
  const v = one([2, Infinity, -Infinity], 1, 1, 3, 1);
  const read = (x: Tensor): number[] => Array.from(x.dataSync());
  for (const f of [(body: () => Tensor) => body(), (body: () => Tensor) => defined(body)]) {
    assert.deepEqual(read(f(() => attention(q, k, v, { causal: true, scale: 1 }))), [2, NaN]);
    assert.deepEqual(read(f(() => attention(q, k, v, { causal: true, causalOffset: 1, scale: 1 }))), [NaN, NaN]);
    assert.deepEqual(read(f(() => attention(q, one([0, 0, 0], 1, 1, 3, 1), v, { causal: true }))), [2, Infinity]);
  }
});

test('attention with a bias: a bias for all rows of a batch takes the sum of their gradients', () => {
  const like = { backend: oracle.backend, dtype: 'f64' as const };
  const draw = (seed: number, ...shape: number[]): Tensor => tensor.normal(shape, { seed, ...like });
  const [q, k, v, g] = [draw(1, 2, 2, 3, 4), draw(2, 2, 1, 5, 4), draw(3, 2, 1, 5, 4), draw(4, 2, 2, 3, 4)];
  const shared = draw(5, 1, 2, 3, 5).requireGrad();
  const each = shared.detach().expand([2, 2, 3, 5]).contiguous().requireGrad();
  for (const bias of [shared, each]) attention(q, k, v, { bias }).backward({ gradient: g });
  const sum = Array.from((each.grad as Tensor).sum(0).dataSync());
  Array.from((shared.grad as Tensor).dataSync()).forEach((x, i) =>
    assert.ok(Math.abs(x - sum[i]) < 1e-12, `entry ${i}: ${x}, expected ${sum[i]}`),
  );
});
