// What is computed as a product is written: bias, gate, activation and residual within `linear` are those of separate
// ops, for every kind of weights, on every machine and any number of threads; gradients to second order, of the
// product's own operands too; what is refused.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { map } from '../src/autograd/elementwise.js';
import { gradcheck } from '../src/autograd/gradcheck.js';
import { mapInto } from '../src/autograd/primitives.js';
import { scope } from '../src/autograd/scope.js';
import { gradientsOf, noGrad } from '../src/autograd/tape.js';
import { activationNamed } from '../src/nn/activations.js';
import { finish, linear, type LinearEpilogue } from '../src/nn/linear.js';
import { create } from '../src/tensor/create.js';
import { add, arg, mul } from '../src/tensor/expr.js';
import { matmulThen } from '../src/tensor/linalg.js';
import type { Packing } from '../src/tensor/packing.js';
import { roundedProducts } from '../src/tensor/rounding.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { cpu, cpuPlain, machines, oracle, type Machine } from './helpers/machines.js';
import { randomPacked } from './helpers/packedWeights.js';
import { bitsOf, threadedMachine } from './helpers/threaded.js';

const threaded = threadedMachine(2);
after(async () => {
  await threaded.backend.close();
});

interface Parts {
  readonly bias: boolean;
  readonly gate: boolean;
  readonly residual: boolean;
  readonly activation: string | null;
}

const forms: fc.Arbitrary<Parts> = fc.record({
  bias: fc.boolean(),
  gate: fc.boolean(),
  residual: fc.boolean(),
  activation: fc.constantFrom(null, 'silu', 'gelu', 'gelu_new', 'relu', 'linear'),
});

interface Operands {
  readonly x: Tensor;
  readonly bias: Tensor | null;
  readonly epilogue: LinearEpilogue;
}

/** Operands [.., k] and [.., n] of these parts. */
function operandsOf(
  { bias, gate, residual, activation }: Parts,
  lead: readonly number[],
  k: number,
  n: number,
  { backend, dtype }: Machine,
): Operands {
  const normal = (shape: number[], seed: number): Tensor => create.normal(shape, { backend, dtype, seed });
  return {
    x: normal([...lead, k], 1),
    bias: bias ? normal([n], 2) : null,
    epilogue: {
      ...(activation || gate ? { activation: activation ?? 'silu' } : {}),
      ...(gate ? { gate: normal([...lead, n], 3) } : {}),
      ...(residual ? { residual: normal([...lead, n], 4) } : {}),
    },
  };
}

/** The definition. */
function composed(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  { activation, gate, residual }: LinearEpilogue,
): Tensor {
  let y = x.matmulT(weight);
  if (bias) y = y.add(bias);
  if (activation) y = gate ? activationNamed(activation)(gate).mul(y) : activationNamed(activation)(y);
  return residual ? residual.add(y) : y;
}

function near(actual: ArrayLike<number>, expected: ArrayLike<number>, bound: number, what: string): void {
  assert.equal(actual.length, expected.length, what);
  for (let i = 0; i < actual.length; i++) {
    assert.ok(
      Math.abs(actual[i] - expected[i]) <= bound * Math.max(1, Math.abs(expected[i])),
      `${what}: ${actual[i]}, expected ${expected[i]} at ${i}`,
    );
  }
}

const packings: readonly (Packing | null)[] = [null, 'q4_1', 'q4_0', 'q8_0', 'f16'];
const sizes = fc.constantFrom(
  [[1], 32, 5],
  [[2], 64, 40],
  [[3], 32, 9],
  [[2, 9], 32, 33],
  [[27], 96, 8],
  [[5, 11], 64, 130],
  [[163], 64, 41],
  [[30], 2720, 30],
) as fc.Arbitrary<[number[], number, number]>;

for (const packing of packings) {
  test(`${packing ?? 'f32'}: within the product as in ops after it, on every machine`, () => {
    fc.assert(
      fc.property(forms, sizes, fc.boolean(), (parts, [lead, k, n], rounded) => {
        const results = scope(() =>
          [...machines, threaded]
            .filter(machine => !packing || machine.dtype === 'f32')
            .map(machine =>
              noGrad(() => {
                const { backend, dtype } = machine;
                const weight = packing
                  ? create.packed(randomPacked(packing, n, k, 7).bytes, [n, k], packing, { backend })
                  : create.normal([n, k], { backend, dtype, seed: 5 });
                const { x, bias, epilogue } = operandsOf(parts, lead, k, n, machine);
                const [actual, expected] = [linear, composed].map(f =>
                  roundedProducts(() => f(x, weight, bias, epilogue), rounded).dataSync(),
                );
                near(actual, expected, 1e-6, machine.name);
                return { name: machine.name, actual };
              }),
            ),
        );
        const bits = (name: string): string =>
          bitsOf((results.find(r => r.name === name) as (typeof results)[number]).actual as Float32Array);
        assert.equal(bits(threaded.name), bits(cpu.name));
      }),
      { seed: 11, numRuns: 60 },
    );
  });
}

test('weights decoded in pieces, and shared by several threads', () => {
  const [lead, k, n] = [[30], 1024, 300];
  scope(() =>
    noGrad(() => {
      for (const machine of [cpu, threaded]) {
        const weight = create.packed(randomPacked('f16', n, k, 7).bytes, [n, k], 'f16', { backend: machine.backend });
        const { x, bias, epilogue } = operandsOf(
          { bias: true, gate: true, residual: true, activation: 'silu' },
          lead,
          k,
          n,
          machine,
        );
        near(
          linear(x, weight, bias, epilogue).dataSync(),
          composed(x, weight, bias, epilogue).dataSync(),
          1e-6,
          machine.name,
        );
      }
    }),
  );
});

test('gradients of everything, to second order, recorded with the activation inside', async () => {
  const { backend, dtype } = oracle;
  const normal = (shape: number[], seed: number): Tensor => create.normal(shape, { backend, dtype, seed });
  const given = [normal([3, 4], 1), normal([5, 4], 2), normal([5], 3), normal([3, 5], 4)];
  // (product + bias) gate, then its square with the residual: derivatives read the product and every operand.
  const y = add(arg(0), arg(1));
  const output = mul(mul(y, arg(2)), y);
  // Within a scope, so that x is gone unless it is kept.
  const inside = ([x, w, bias, gate]: readonly Tensor[]): Tensor =>
    scope(() => matmulThen(x.mul(1), w.transpose(), { label: 'test', output, operands: [bias, gate] }));
  const outside = ([x, w, bias, gate]: readonly Tensor[]): Tensor => {
    const z = x.matmulT(w).add(bias);
    return z.mul(gate).mul(z);
  };
  await gradcheck((...parts) => inside(parts), given);
  await gradcheck((x, ...operands) => inside([x, given[1], ...operands]), [given[0], given[2], given[3]]);
  const second = (f: typeof inside): number[][] =>
    scope(() => {
      const leaves = given.map(t => t.detach().requireGrad());
      const first = gradientsOf(f(leaves).sum(), leaves, { createGraph: true }) as Tensor[];
      return (
        gradientsOf(
          first.map(g => g.square().sum()).reduce((a, b) => a.add(b)),
          leaves,
        ) as Tensor[]
      ).map(g => [...g.dataSync()]);
    });
  second(inside).forEach((g, i) => {
    near(g, second(outside)[i], 1e-10, `second derivative ${i}`);
  });
  // A sum reads nothing: only what the product itself needs is kept.
  const sum = (parts: readonly Tensor[]): Tensor => linear(parts[0], parts[1], parts[2], { residual: parts[3] });
  await gradcheck((...parts) => sum(parts), given);
  for (const machine of [cpu, cpuPlain]) {
    for (const parts of [
      { bias: true, gate: true, residual: true, activation: 'silu' },
      { bias: true, gate: false, residual: true, activation: 'gelu' },
      { bias: false, gate: false, residual: true, activation: null },
    ]) {
      const weight = create.normal([26, 40], { backend: machine.backend, seed: 5 }).requireGrad();
      const { x, bias, epilogue } = operandsOf(parts, [2, 17], 40, 26, machine);
      const leaves = [x, bias, epilogue.gate, epilogue.residual]
        .filter((t): t is Tensor => Boolean(t))
        .map(t => t.requireGrad());
      const [actual, expected] = [linear, composed].map(f =>
        (gradientsOf(f(x, weight, bias, epilogue).square().sum(), [...leaves, weight]) as Tensor[]).map(g =>
          g.dataSync(),
        ),
      );
      actual.forEach((g, i) => {
        near(g, expected[i], 1e-4, `${machine.name}, gradient ${i}`);
      });
    }
  }
});

test('what is refused, by name; a vector is a row', () => {
  const { backend } = cpu;
  const [x, w] = [create.ones([3, 4], { backend }), create.ones([5, 4], { backend })];
  const vector = linear(create.ones([4], { backend }), w, create.full([5], 2, { backend }), { activation: 'relu' });
  assert.deepEqual([vector.shape, [...vector.dataSync()]], [[5], [6, 6, 6, 6, 6]]);
  assert.throws(() => linear(x, w, null, { gate: create.ones([3, 5], { backend }) }), /a gate needs an activation/);
  assert.throws(() => linear(x, w, null, { activation: 'gelo' }), /activation 'gelo' is not known; known: silu/);
  assert.throws(
    () => linear(x, w, create.ones([4], { backend })),
    /linear: an operand has shape \[4\], expected \[5\] or \[3,5\]/,
  );
  assert.throws(
    () => linear(x, w, null, { residual: create.ones([3, 5], { backend, dtype: 'i32' }) }),
    /expected f32 tensors only, got i32/,
  );
  assert.throws(
    () => linear(x, create.ones([5, 3], { backend }), create.ones([5], { backend })),
    /is no product with a matrix/,
  );
});

test('integers are no factors and no operands of a product, with a bias or without', () => {
  for (const { backend, dtype, name } of machines) {
    const integers = (...shape: number[]): Tensor => create.ones(shape, { backend, dtype: 'i32' });
    const floats = (...shape: number[]): Tensor => create.ones(shape, { backend, dtype });
    const factors = 'expected two f32 or two f64 tensors, got i32 and i32';
    const refused = (call: () => unknown, message: string): void => {
      assert.throws(call, { name: 'ShapeError', message }, `${name}: ${message}`);
    };
    refused(() => linear(integers(2, 3), integers(4, 3), integers(4)), `linear: ${factors}`);
    refused(() => linear(integers(2, 3), integers(4, 3)), `matmul: ${factors}`);
    refused(() => integers(2, 3).matmul(integers(3, 4)), `matmul: ${factors}`);
    refused(() => linear(integers(3), integers(4, 3), integers(4)), `matmul: ${factors}`);
    refused(
      () => linear(floats(2, 3), integers(4, 3), floats(4)),
      `linear: expected two f32 or two f64 tensors, got ${dtype} and i32`,
    );
    refused(() => linear(floats(2, 3), floats(4, 3), integers(4)), `linear: expected ${dtype} tensors only, got i32`);
    // A vector and a product that is kept for its backward pass go another way.
    refused(() => linear(floats(3), floats(4, 3), integers(4)), `linear: expected ${dtype} tensors only, got i32`);
    refused(() => linear(floats(3), floats(4, 3), floats(3)), 'linear: an operand has shape [3], expected [4] or [4]');
    const trained = floats(2, 3).requireGrad();
    refused(
      () => linear(trained, floats(4, 3), integers(4), { activation: 'relu' }),
      `relu: expected ${dtype} tensors only, got i32`,
    );
    refused(
      () => finish(floats(2, 4), null, { residual: integers(2, 4) }),
      `linear: expected ${dtype} tensors only, got i32`,
    );
  }
});

test('an expression reads and makes tensors of its own types only', () => {
  const { backend } = cpu;
  const [integers, floats] = (['i32', 'f32'] as const).map(dtype => create.ones([2], { backend, dtype }));
  assert.throws(() => map('mine', add(arg(0), 1), [integers]), {
    name: 'TypeError',
    message: 'mine: an expression reads a i32 tensor as type f',
  });
  assert.throws(() => map('mine', add(arg(0, 'i'), 1), [floats]), {
    name: 'TypeError',
    message: 'mine: an expression reads a f32 tensor as type i',
  });
  assert.throws(() => map('mine', arg(0), [floats], [], 'i32'), {
    name: 'TypeError',
    message: 'mine: an expression of type f makes no i32 tensor',
  });
  assert.throws(() => mapInto('mine', [arg(0)], [floats], [integers]), {
    name: 'TypeError',
    message: 'mine: an expression of type f makes no i32 tensor',
  });
});
