// Recurrent ops over several sequences in one call: each gives the bits that it gives alone and in pieces with its
// state carried along, on every machine; final states; what is not seen does not matter.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gradcheck, noGrad, scope } from '../src/autograd/index.js';
import { causalConv1d } from '../src/nn/conv.js';
import { linearScan } from '../src/nn/linearScan.js';
import { selectiveScan } from '../src/nn/selectiveScan.js';
import { ssru } from '../src/nn/ssru.js';
import { concat } from '../src/tensor/layout.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { machines, withoutKernels, type Machine } from './helpers/machines.js';

/** Lengths with an empty sequence in the middle and at the end. */
const lengths = [5, 0, 1, 9, 0];
const starts = Int32Array.from(lengths.map((_, s) => lengths.slice(0, s).reduce((sum, n) => sum + n, 0)));
const rows = lengths.reduce((sum, n) => sum + n, 0);

/** A recurrent layer over any sequences: what it gives for their rows, and their states behind them. */
interface Recurrent {
  readonly name: string;
  /** Rows of everything that belongs to a token. */
  inputs(machine: Machine): Tensor[];
  /** Shape of a sequence's state. */
  readonly state: readonly number[];
  /** Its gradients are checked by a recipe alone: it bends where differences cannot follow, or is large. */
  readonly forwardOnly?: boolean;
  run(inputs: readonly Tensor[], starts: Int32Array, state: Tensor | null): { output: Tensor; state: Tensor };
}

const draw = ({ backend, dtype }: Machine, shape: readonly number[], seed: number): Tensor =>
  tensor.normal(shape, { seed, dtype, backend });

// Columns around vectors of four, and a rank above two.
const recurrent: readonly Recurrent[] = [
  ...[[7], [3, 2], [18]].map((width): Recurrent => ({
    name: `linearScan of width ${width.join('x')}`,
    inputs: machine => [draw(machine, [rows, ...width], 1), draw(machine, [rows, ...width], 2)],
    state: width,
    run([a, b], begin, state) {
      const { states, final } = linearScan(a, b, begin, state);
      return { output: states, state: final };
    },
  })),
  ...[7, 18].map((width): Recurrent => ({
    name: `ssru of width ${width}`,
    inputs: machine => [draw(machine, [rows, width], 1), draw(machine, [rows, width], 2)],
    state: [width],
    forwardOnly: true,
    run([forget, candidate], begin, state) {
      const { output, cell } = ssru(forget, candidate, begin, state);
      return { output, state: cell };
    },
  })),
  ...[
    [7, 3],
    [70, 16],
  ].map(([d, n]): Recurrent => ({
    name: `selectiveScan of ${d} channels with ${n} numbers each`,
    inputs: machine => [
      draw(machine, [rows, d], 1),
      draw(machine, [rows, d], 2).softplus(),
      draw(machine, [rows, n], 3),
      draw(machine, [rows, n], 4),
    ],
    state: [d, n],
    forwardOnly: n === 16,
    run([x, dt, B, C], begin, state) {
      const like = { name: '', backend: x.backend, dtype: x.dtype as Machine['dtype'] };
      const [A, D] = [draw(like, [d, n], 5).exp().neg(), draw(like, [d], 6)];
      return selectiveScan({ x, dt, A, B, C, D }, begin, state);
    },
  })),
  ...[7, 18].map((width): Recurrent => ({
    name: `causalConv1d of width ${width}`,
    inputs: machine => [draw(machine, [rows, width], 1)],
    state: [3, width],
    run([x], begin, state) {
      const like = { name: '', backend: x.backend, dtype: x.dtype as Machine['dtype'] };
      const [weight, bias] = [draw(like, [width, 1, 4], 3), draw(like, [width], 4)];
      return causalConv1d(x, weight, bias, begin, { state, activation: 'silu' });
    },
  })),
];

const bits = (t: Tensor): string[] => [`[${t.shape.join()}]`, ...Array.from(t.dataSync(), String)];
const rowsOf = (list: readonly Tensor[], from: number, to: number): Tensor[] => list.map(x => x.slice(0, from, to));

for (const layer of recurrent) {
  for (const machine of machines) {
    const each = (body: () => void): void => {
      scope(() => noGrad(body));
      withoutKernels(machine, () => scope(() => noGrad(body)));
    };

    for (const carried of [false, true]) {
      const label = `${layer.name}, ${carried ? 'from a state' : 'from nothing'}, ${machine.name}`;
      const initial = (): Tensor | null => (carried ? draw(machine, [lengths.length, ...layer.state], 9) : null);
      const whole = (): { inputs: Tensor[]; before: Tensor | null; output: Tensor; state: Tensor } => {
        const [inputs, before] = [layer.inputs(machine), initial()];
        return { inputs, before, ...layer.run(inputs, starts, before) };
      };

      test(`${label}: each sequence gives the bits that it gives alone`, () =>
        each(() => {
          const { inputs, before, output, state } = whole();
          for (const [s, length] of lengths.entries()) {
            const alone = layer.run(
              rowsOf(inputs, starts[s], starts[s] + length),
              Int32Array.of(0),
              before && before.slice(0, s, s + 1),
            );
            assert.deepEqual(bits(alone.output), bits(output.slice(0, starts[s], starts[s] + length)), `sequence ${s}`);
            assert.deepEqual(bits(alone.state), bits(state.slice(0, s, s + 1)), `state of sequence ${s}`);
          }
        }));

      test(`${label}: token by token gives the bits of one pass`, () =>
        each(() => {
          const { inputs, before, output, state } = whole();
          let carriedState = before;
          const steps: Tensor[] = [];
          const order: number[] = [];
          for (let t = 0; t < Math.max(...lengths); t++) {
            // Sequences that are over take part without rows.
            const here = lengths.map((length, s) => (t < length ? [starts[s] + t] : []));
            const begin = Int32Array.from(here.map((_, s) => here.slice(0, s).flat().length));
            const step = layer.run(
              inputs.map(x => x.takeRows(here.flat())),
              begin,
              carriedState,
            );
            carriedState = step.state;
            steps.push(step.output);
            order.push(...here.flat());
          }
          const together = concat(steps);
          order.forEach((row, i) =>
            assert.deepEqual(bits(together.slice(0, i, i + 1)), bits(output.slice(0, row, row + 1)), `row ${row}`),
          );
          assert.deepEqual(bits(carriedState as Tensor), bits(state));
        }));
    }
  }

  if (layer.forwardOnly) continue;
  test(`${layer.name}: gradients of outputs and final states, also to the state before`, async () => {
    const machine = machines[0];
    const inputs = [...layer.inputs(machine), draw(machine, [lengths.length, ...layer.state], 9)];
    await gradcheck((...given) => {
      const { output, state } = layer.run(given.slice(0, -1), starts, given[given.length - 1]);
      return concat([output.flatten(), state.flatten()]);
    }, inputs);
    await gradcheck(
      (...given) => {
        const { output, state } = layer.run(given, starts, null);
        return concat([output.flatten(), state.flatten()]);
      },
      inputs.slice(0, -1),
    );
  });
}

test('selectiveScan: what is carried decays by exp(dt A), and the output sees the token itself', () => {
  const log2 = Math.log(2);
  const column = (...data: number[]): Tensor => tensor(data, [data.length, 1]);
  const { output, state } = selectiveScan(
    {
      x: column(3, 5),
      dt: column(1, 2),
      A: tensor([-log2, 0], [1, 2]),
      B: tensor([1, 10, 2, 20], [2, 2]),
      C: tensor([1, 0, 1, 1], [2, 2]),
      D: tensor([1000]),
    },
    Int32Array.of(0),
    tensor([8, 7], [1, 1, 2]),
  );
  // States 8 / 2 + 3 and 7 + 30, then 7 / 4 + 20 and 37 + 200.
  const near = (got: Tensor, wanted: number[]): void =>
    got.dataSync().forEach((v, i) => assert.ok(Math.abs(v - wanted[i]) < 1e-4 * wanted[i], `${v}, not ${wanted[i]}`));
  near(output, [3007, 5258.75]);
  near(state, [21.75, 237]);
});

test('selectiveScan: a state that is carried does not keep the output of a long sequence in memory', () => {
  const [length, d, n] = [100, 6, 4];
  const [x, B] = [tensor.ones([length, d]), tensor.ones([length, n])];
  const { output, state } = selectiveScan(
    { x, dt: x, A: tensor.zeros([d, n]), B, C: B, D: tensor.zeros([d]) },
    Int32Array.of(0),
  );
  assert.notEqual(state.storage, output.storage);
  assert.deepEqual([...state.dataSync()], new Array(d * n).fill(length));
});

test('selectiveScan: kernels and composition take a sequence without a state as beginning from zeros', () => {
  const [machine] = machines.slice(2);
  const input = { A: tensor([-1, NaN], [1, 2]), B: tensor([2, 3], [1, 2]), C: tensor([1, 1], [1, 2]), D: tensor([0]) };
  const run = (state: Tensor | null): number[] => {
    const on = (t: Tensor): Tensor => tensor(t.dataSync(), t.shape, { backend: machine.backend });
    const { A, B, C, D } = input;
    const given = { x: tensor([1], [1, 1]), dt: tensor([1], [1, 1]), A, B, C, D };
    const moved = Object.fromEntries(Object.entries(given).map(([name, t]) => [name, on(t)])) as typeof given;
    return [...selectiveScan(moved, Int32Array.of(0), state && on(state)).output.dataSync()];
  };
  // The factor of what is not there is not looked at.
  for (const body of [run, (state: Tensor | null) => withoutKernels(machine, () => run(state))]) {
    assert.deepEqual(body(null), [5]);
    assert.deepEqual(body(tensor.zeros([1, 1, 2])), [NaN]);
  }
});

test('linearScan: one row of each sequence is its final state, and a sequence without rows keeps its state', () => {
  const a = tensor([2, 3], [2, 1]);
  const { states, final } = linearScan(a, tensor([10, 20], [2, 1]), Int32Array.of(0, 1), tensor([1, 5], [2, 1]));
  assert.deepEqual([...states.dataSync()], [12, 35]);
  assert.equal(final, states);
  const empty = linearScan(a.slice(0, 0, 0), a.slice(0, 0, 0), Int32Array.of(0, 0), tensor([1, 5], [2, 1]));
  assert.deepEqual(
    [empty.states.shape, [...empty.final.dataSync()]],
    [
      [0, 1],
      [1, 5],
    ],
  );
  const none = linearScan(a, a, Int32Array.of(0, 0, 2));
  assert.deepEqual([...none.final.dataSync()], [0, 9, 0]);
});

for (const machine of machines) {
  test(`linearScan, ${machine.name}: NaN and Infinity stay in their sequence, and go on in it`, () => {
    const { backend, dtype } = machine;
    const of = (data: number[]): Tensor =>
      tensor(dtype === 'f64' ? Float64Array.from(data) : Float32Array.from(data), [6, 1], { dtype, backend });
    const body = (): number[] => [
      ...linearScan(
        of([NaN, 2, 0, Infinity, 2, 0]),
        of([1, Infinity, 3, 4, NaN, 5]),
        Int32Array.of(0, 3),
      ).states.dataSync(),
    ];
    // The first factor of a sequence is not looked at; 0 times Infinity is NaN.
    assert.deepEqual(body(), [1, Infinity, NaN, 4, NaN, NaN]);
    assert.deepEqual(withoutKernels(machine, body), [1, Infinity, NaN, 4, NaN, NaN]);
  });
}
