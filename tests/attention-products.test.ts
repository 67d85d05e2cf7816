// Attention by matrix products, which runs where no kernel takes a call, is the composition that defines it: values and
// gradients, with numbers in any place that are not finite.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fusedOps } from '../src/autograd/fusedRegistry.js';
import { attention } from '../src/nn/attention.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { D, settings, type Setting } from './helpers/attentionEdges.js';
import { build, type Host } from './helpers/host.js';
import { oracle, place, referenceF32 } from './helpers/machines.js';
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

/** Output and gradients of q, k, v and the bias. */
function run({ options }: Setting, inputs: Inputs, softcap: number, biased: boolean): number[][] {
  const [q, k, v, bias, g] = names.map(name => place(inputs[name], oracle));
  for (const x of [q, k, v, bias]) x.requireGrad();
  const o = attention(q, k, v, { ...options, softcap, bias: biased ? bias : null });
  o.backward({ gradient: g });
  return [o, q.grad, k.grad, v.grad, ...(biased ? [bias.grad] : [])].map(x => Array.from((x as Tensor).dataSync()));
}

/** `alike`: an infinity and NaN count as the same. */
function same(actual: number[][], expected: number[][], what: string, alike: boolean): void {
  const results = ['output', 'dq', 'dk', 'dv', 'dbias'];
  actual.forEach((list, n) =>
    list.forEach((x, i) => {
      const y = expected[n][i];
      assert.ok(
        Object.is(x, y) ||
          (alike && !Number.isFinite(x) && !Number.isFinite(y)) ||
          Math.abs(x - y) <= 1e-12 * (1 + Math.abs(y)),
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
