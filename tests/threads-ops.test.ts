// Results do not depend on the number of threads: every op of the table, its values and its gradients, products over
// the edges of tiles and blocks, and a model's training step give one thread's bits on two, three and five.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { scope } from '../src/autograd/index.js';
import { createCpuBackend, type Backend } from '../src/backends/index.js';
import { getReftModel, ReftTrainer } from '../src/reft/index.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { cotangentFor, floatFunction, floats, gradientsOn } from './helpers/cases.js';
import { Draw, forwardDraws, gradientDraws, runs } from './helpers/draw.js';
import { cpu, cpuPlain, place, type Machine } from './helpers/machines.js';
import { labelled, type Case } from './helpers/recipe.js';
import { elementwise } from './helpers/recipes/elementwise.js';
import { fusedRecipes } from './helpers/recipes/fused.js';
import { layout } from './helpers/recipes/layout.js';
import { products, reductions } from './helpers/recipes/reductions.js';
import { bitsOf, threadedMachine } from './helpers/threaded.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel } from './helpers/tinyModel.js';

const three = threadedMachine(3);
const pairs: readonly (readonly [Machine, readonly Machine[]])[] = [
  [cpu, [threadedMachine(2), three, threadedMachine(5)]],
  [cpuPlain, [threadedMachine(2, { relaxed: false })]],
];
const threaded = pairs.flatMap(([, machines]) => machines);
after(async () => {
  for (const { backend } of threaded) await backend.close();
});

/** The same bits from `body` on one thread and on several. */
function same(body: (machine: Machine) => string[]): void {
  for (const [alone, machines] of pairs) {
    const expected = body(alone);
    for (const machine of machines) assert.deepEqual(body(machine), expected, machine.name);
  }
}

const valuesOn =
  (c: Case) =>
  (machine: Machine): string[] =>
    scope(() => [bitsOf(c.run(...c.inputs.map(h => place(h, machine))).dataSync())]);
const gradients =
  (c: Case) =>
  (machine: Machine): string[] =>
    gradientsOn(floatFunction(c, machine)[0], floats(c), cotangentFor(7), machine).map(bitsOf);

for (const [recipe, label] of labelled([...elementwise, ...layout, ...reductions, ...products, ...fusedRecipes])) {
  if (recipe.needsF64) continue;
  test(`${label}: one thread's bits`, () => {
    const made =
      (smooth: boolean, cap: number) =>
      (drawn: ConstructorParameters<typeof Draw>[0]): Case =>
        recipe.make(new Draw(drawn, { smooth, cap }));
    fc.assert(
      fc.property(forwardDraws.map(made(false, 3000)), c => {
        same(valuesOn(c));
      }),
      runs(4),
    );
    if (recipe.differentiable !== false)
      fc.assert(
        fc.property(gradientDraws.map(made(true, 300)), c => {
          same(gradients(c));
        }),
        runs(3),
      );
  });
}

test("products over the edges of tiles and blocks: one thread's bits", () => {
  const side = fc.constantFrom(1, 2, 3, 4, 7, 8, 9, 15, 17, 31, 64, 65, 130);
  const deep = fc.constantFrom(1, 3, 8, 63, 129, 319, 321, 1300);
  fc.assert(
    fc.property(side, deep, side, fc.boolean(), fc.boolean(), fc.constantFrom(1, 3), (m, k, n, turnA, turnB, batch) => {
      same(machine =>
        scope(() => {
          const make = (rows: number, columns: number, turned: boolean, seed: number): Tensor => {
            const x = tensor.normal([batch, turned ? columns : rows, turned ? rows : columns], {
              seed,
              backend: machine.backend,
            });
            return turned ? x.transpose(-1, -2) : x;
          };
          return [
            bitsOf(
              make(m, k, turnA, 1)
                .matmul(make(k, n, turnB, 2))
                .dataSync(),
            ),
          ];
        }),
      );
    }),
    runs(60),
  );
});

test("a narrow result of many rows, and one of many columns: one thread's bits", () => {
  for (const [m, k, n] of [
    [1500, 40, 9],
    [5, 30, 3000],
    [20, 700, 600],
    [1, 200, 5000],
  ]) {
    same(machine =>
      scope(() => {
        const [a, b] = [
          tensor.normal([m, k], { seed: 3, backend: machine.backend }),
          tensor.normal([n, k], { seed: 4, backend: machine.backend }),
        ];
        return [bitsOf(a.matmul(b.transpose()).dataSync())];
      }),
    );
  }
});

test("losses and answers of a training run: one thread's bits", async () => {
  const run = async (device: Backend): Promise<unknown> => {
    const reft = getReftModel(await tinyModel({ device, hidden: 32 }), {
      layers: [0, 2],
      positions: 'f1+l1',
      rank: 3,
      seed: 5,
    });
    const losses: number[] = [];
    for await (const step of new ReftTrainer(reft, {
      examples: tinyExamples(6),
      steps: 12,
      batchSize: 3,
      learningRate: 1e-2,
    }).steps())
      losses.push(step.loss);
    const answers = await reft.generate(
      [
        [1, 2, 3],
        [4, 5, 6, 7],
      ],
      { maxNewTokens: 6, stopTokenIds: [] },
    );
    return [bitsOf(losses), answers.map(answer => [...answer.ids])];
  };
  assert.deepEqual(await run(three.backend), await run(createCpuBackend()));
});
