// Padding changes nothing: losses, gradients, states and logits of a padded batch are those of its rows alone, for
// every edit and at every site; a mask of ones keeps the bits of no mask; norms and linear layers see the real tokens
// alone.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { noGrad, zeroGrad } from '../src/autograd/tape.js';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import { collate } from '../src/data/collate.js';
import { tokenizeRow, type Example } from '../src/data/examples.js';
import type { Tokenizer } from '../src/io/tokenizer.js';
import { tokenizerFromFolder } from '../src/io/tokenizerNode.js';
import {
  compose,
  getReftModel,
  kindNames,
  layoutOf,
  mixEdits,
  ReftTrainer,
  trace,
  type ReftConfig,
  type TrainStep,
} from '../src/reft/index.js';
import { headComponents, siteName, type Site } from '../src/models/sites.js';
import type { CausalLM } from '../src/models/causalLM.js';
import type { TypedArray } from '../src/tensor/dtype.js';
import type { Tensor } from '../src/tensor/tensor.js';
import type { EditedModel } from '../src/reft/editedModel.js';
import { aloneBatch, labelShares, measuredAlone, type LaidOut } from './helpers/rowsAlone.js';
import { tinyExample, tinyExamples } from './helpers/tinyExamples.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const examples = [tinyExample(9, 4, 1), tinyExample(3, 2, 2), tinyExample(5, 3, 3)];

/** The examples padded on one side, or with two columns of padding on the other, too. */
function padded(side: 'left' | 'right', both = false, of: readonly Example[] = examples) {
  const batch = collate(of, { padTokenId: 0, side });
  if (!both)
    return { ...batch, layout: layoutOf(batch.attentionMask, batch.shape, batch.promptLengths, batch.inputIds) };
  const [rows, width] = batch.shape;
  const widen = (list: Int32Array, filler: number): Int32Array => {
    const wide = new Int32Array(rows * (width + 4)).fill(filler);
    for (let b = 0; b < rows; b++) wide.set(list.subarray(b * width, (b + 1) * width), b * (width + 4) + 2);
    return wide;
  };
  const shape = [rows, width + 4] as const;
  const [inputIds, attentionMask, labels] = [
    widen(batch.inputIds, 0),
    widen(batch.attentionMask, 0),
    widen(batch.labels, -100),
  ];
  return {
    ...batch,
    shape,
    inputIds,
    attentionMask,
    labels,
    layout: layoutOf(attentionMask, shape, batch.promptLengths, inputIds),
  };
}

const paddings = [padded('right'), padded('left'), padded('right', true)];
const near = (a: ArrayLike<number>, b: ArrayLike<number>, what: string, bound = 1e-9): void => {
  assert.equal(a.length, b.length, what);
  for (let i = 0; i < a.length; i++)
    assert.ok(Math.abs(a[i] - b[i]) < bound * Math.max(1, Math.abs(b[i])), `${what}: ${a[i]} and ${b[i]} at ${i}`);
};

/** Loss and gradients of everything trained. */
function measured(
  edited: EditedModel,
  trained: readonly { tensor: Tensor }[],
  batch: (typeof paddings)[number],
  dropout = false,
): number[][] {
  const { inputIds, shape, attentionMask, labels, layout } = batch;
  zeroGrad(trained.map(t => t.tensor));
  const { loss } = edited.loss(
    { inputIds, shape, attentionMask },
    labels,
    layout,
    dropout ? { seed: 5, step: 2 } : undefined,
  );
  if (loss.needsGrad) loss.backward();
  return [
    [...loss.dataSync()],
    ...trained.map(t => [...(t.tensor.grad?.dataSync() ?? new Float64Array(t.tensor.size))]),
  ];
}

const nearAll = (a: number[][], b: number[][], what: string): void => {
  assert.equal(a.length, b.length, what);
  a.forEach((list, i) => {
    near(list, b[i], what);
  });
};

/** A padded batch and its rows alone; with dropout, which draws anew for a row alone, the ways to pad it. */

async function agree(
  config: ReftConfig | ReftConfig[],
  model: CausalLM,
  {
    batches = paddings,
    rows = examples,
    dropout = false,
    tokenizer,
  }: { batches?: typeof paddings; rows?: readonly Example[]; dropout?: boolean; tokenizer?: Tokenizer } = {},
): Promise<void> {
  const reft = getReftModel(model, config);
  reft.tokenizer = tokenizer;
  reft.onWarning = () => undefined;
  const trained = reft.trained();
  const alone = measuredAlone(
    () => reft,
    trained.map(t => t.tensor),
    rows,
  );
  const expected = dropout ? measured(reft, trained, batches[0], dropout) : alone;
  if (dropout) assert.notEqual(expected[0][0], alone[0][0], 'something is dropped');
  for (const batch of batches) {
    const numbers = measured(reft, trained, batch, dropout);
    nearAll(numbers, expected, JSON.stringify(config));
    assert.ok(
      numbers.slice(1).some(list => list.some(x => x !== 0)),
      `no gradients: ${JSON.stringify(config)}`,
    );
  }
}

describe('losses and gradients of a padded batch are those of its rows alone', () => {
  test('of every kind', async () => {
    const model = await tinyModel({ dtype: 'f64' });
    for (const kind of kindNames()) await agree({ layers: [1], positions: 'f1+l2', rank: 2, kind }, model);
  });

  test('at every site, single heads too', async () => {
    const model = await tinyModel({ dtype: 'f64' });
    for (const { component } of model
      .sites()
      .filter(s => s.layer === 1 || s.component === 'embeddings' || s.component === 'final_norm')) {
      const layers = [component === 'embeddings' ? 0 : component === 'final_norm' ? 2 : 1];
      await agree({ layers, component, positions: 'all', rank: 2 }, model);
      if ((headComponents as readonly string[]).includes(component))
        await agree({ layers, component, heads: [1], positions: 'l2', rank: 2 }, model);
    }
  });

  test('for every form of positions, several groups, dropout on either target, a trained scale, a sliding window', async () => {
    const model = await tinyModel({ dtype: 'f64' });
    for (const positions of [
      'l1',
      'f7+l7',
      'all',
      [0, 1, -1],
      (ids: readonly number[]) => [ids.length >> 1],
    ] as ReftConfig['positions'][]) {
      await agree({ layers: [0, 2], positions, rank: 2 }, model);
    }
    await agree({ layers: [1], positions: 'l1', newTokens: { every: 2 }, rank: 2 }, model);
    await agree(
      [
        { layers: [0], positions: 'f1', rank: 2, trainScale: true },
        { layers: [1, 2], positions: 'l2', kind: 'direft', rank: 3 },
      ],
      model,
    );
    for (const dropoutOn of ['difference', 'state'] as const)
      await agree({ layers: [1], positions: 'f2+l2', rank: 2, dropout: 0.4, dropoutOn }, model, { dropout: true });
    await agree({ layers: [0, 1], positions: 'l1', rank: 2 }, await tinyModel({ dtype: 'f64', slidingWindow: 3 }));
  });

  test('of mixtures, compositions and functions of hidden states', async () => {
    const model = await tinyModel({ dtype: 'f64' });
    const [a, b] = [1, 2].map(seed =>
      getReftModel(model, { layers: [1], positions: 'f1+l2', rank: 2, tied: true, seed }),
    );
    const trained = [...a.trained(), ...b.trained()];
    const [blended, stacked] = [
      await compose([a, b], 'interpolate', { weights: [0.7, 0.3] }),
      await compose([a, b], 'stack'),
    ];
    const mixed = [a, null, [a, b]];
    const tensors = trained.map(t => t.tensor);
    for (const [edited, alone] of [
      [mixEdits(mixed), row => mixEdits([mixed[row]], model)],
      [blended, () => blended],
      [stacked, () => stacked],
    ] as [EditedModel, (row: number) => EditedModel][]) {
      const expected = measuredAlone(alone, tensors, examples);
      for (const batch of paddings) nearAll(measured(edited, trained, batch), expected, edited.constructor.name);
    }
    const lossOf = ({ inputIds, shape, attentionMask, labels, promptLengths }: LaidOut): number => {
      const graph = trace(a, { inputIds, shape, attentionMask, promptLengths });
      graph.insert({ id: 'half', site: 'blocks.0.hook_mlp_out', apply: h => h.mul(0.5) });
      return graph.loss({ inputIds, shape, attentionMask, promptLengths }, labels).loss.dataSync()[0];
    };
    const shares = labelShares(examples);
    const expected = examples.reduce((sum, example, i) => sum + shares[i] * lossOf(aloneBatch(example)), 0);
    for (const batch of paddings) near([lossOf(batch)], [expected], 'graph');
  });
});

describe('positions found in the text are those of each row, wherever its padding lies', () => {
  let tokenizer: Tokenizer;
  let model: CausalLM;
  let rows: Example[];
  // A row of several hits, one of a single hit at its end, one of none.
  before(async () => {
    tokenizer = await tokenizerFromFolder(fileURLToPath(new URL('fixtures/tokenizer/bpe', import.meta.url)));
    model = await tinyModel({ dtype: 'f64', vocabulary: tokenizer.vocabSize, maxPositions: 128 });
    rows = [
      ['The dog saw another dog and a cat.', ' It ran.'],
      ['A dog', ' ran away.'],
      ['One cat', ' sat.'],
    ].map(([prompt, completion]) => tokenizeRow({ kind: 'completion', prompt, completion, where: prompt }, tokenizer));
    assert.equal(new Set(rows.map(row => row.ids.length)).size, 3);
  });

  const forms: ReftConfig[] = [
    { layers: [0, 1], positions: 'match:/dog|cat/', rank: 2 },
    { layers: [1], positions: 'match:/DOG/i', rank: 2, newTokens: { every: 2 } },
    { layers: [1], positions: 'marker:dog', rank: 2, kind: 'direft' },
    { layers: [0, 2], positions: 'marker:dog', component: 'mlp_output', rank: 2 },
  ];

  test('losses and gradients', async () => {
    const batches = [padded('right', false, rows), padded('left', false, rows), padded('right', true, rows)];
    for (const config of forms) await agree(config, model, { batches, rows, tokenizer });
    await agree([forms[2], forms[3]], model, { batches, rows, tokenizer });
    await agree({ ...forms[0], dropout: 0.4 }, model, { batches, rows, dropout: true, tokenizer });
  });

  test('steps of training, with reuse and without', async () => {
    for (const config of forms) {
      const run = async (batchSize: number, gradientAccumulation: number, reuse: boolean): Promise<number[]> => {
        const reft = getReftModel(model, config);
        reft.onWarning = () => undefined;
        const trainer = new ReftTrainer(reft, {
          tokenizer,
          examples: rows,
          steps: 3,
          batchSize,
          gradientAccumulation,
          learningRate: 1e-2,
          reuse,
        });
        const steps: number[] = [];
        for await (const { loss, gradNorm } of trainer.steps()) steps.push(loss, gradNorm);
        return steps;
      };
      const alone = await run(1, 3, false);
      assert.ok(alone[1] > 0, 'alone[1] > 0');
      for (const reuse of [true, false]) near(await run(3, 1, reuse), alone, JSON.stringify(config));
    }
  });
});

test('states, logits and gradients at sites are those of each row alone, with zeros at padding', async () => {
  const model = await tinyModel({ dtype: 'f64' });
  const reft = getReftModel(model, { layers: [1], positions: 'l2', rank: 2 });
  const sites = model.sites({ heads: true });
  const run = ({ inputIds, shape, attentionMask, labels, layout }: LaidOut, mask: boolean) => {
    const seen: [string, readonly number[]][] = [];
    const onSite = (site: Site, h: Tensor): void => void seen.push([siteName(site), h.shape]);
    const inputs = { inputIds, shape, ...(mask ? { attentionMask } : {}) };
    const output = noGrad(() => reft.forward({ ...inputs, collect: sites, hiddenStates: true, onSite }, layout));
    return { ...output, seen, gradients: reft.gradients(inputs, labels, layout, sites).gradients };
  };
  const alone = examples.map(example => run(aloneBatch(example), false));
  const shares = labelShares(examples);
  assert.equal(alone[0].seen.length, model.sites().length);

  for (const batch of paddings) {
    const { inputIds, shape, attentionMask, layout } = batch;
    const [, width] = shape;
    const starts = examples.map((_, b) => attentionMask.indexOf(1, b * width) - b * width);
    const together = run(batch, true);
    /** Token t of row b in the batch is the token t - start of the row alone. */
    const compare = (states: Tensor, rows: readonly Tensor[], what: string, factors?: readonly number[]): void => {
      const last = rows[0].shape[2];
      assert.deepEqual(states.shape, [...shape, last], what);
      const expected = new Float64Array(states.size);
      for (const [b, row] of rows.entries()) {
        assert.deepEqual(row.shape, [1, examples[b].ids.length, last], what);
        expected.set(
          row.dataSync().map(x => x * (factors?.[b] ?? 1)),
          (b * width + starts[b]) * last,
        );
      }
      const values = states.dataSync();
      near(values, expected, what);
      attentionMask.forEach((real, token) => {
        if (real === 0)
          assert.ok(
            values.slice(token * last, (token + 1) * last).every(x => x === 0),
            `${what}: padding`,
          );
      });
    };
    const logits = alone.map(row => row.logits);
    compare(together.logits, logits, 'logits');
    assert.equal(together.hiddenStates.length, 4);
    together.hiddenStates.forEach((h, i) => {
      compare(
        h,
        alone.map(row => row.hiddenStates[i]),
        `hidden state ${i}`,
      );
    });
    for (const name of sites.map(siteName)) {
      const statesOf = ({ collected }: (typeof alone)[number]): Tensor => collected.get(name)!;
      compare(statesOf(together), alone.map(statesOf), name);
      const gradientOf = ({ gradients }: (typeof alone)[number]): Tensor => gradients.get(name)!;
      compare(gradientOf(together), alone.map(gradientOf), `gradient at ${name}`, shares);
    }
    assert.deepEqual(
      together.seen,
      alone[0].seen.map(([name, { 2: last }]) => [name, [...shape, last]]),
    );

    const real = [...attentionMask.keys()].filter(token => attentionMask[token] === 1);
    const logitsAt = Int32Array.from([...real.slice(1, 6), ...real.slice(-7, -4)]);
    const { vocabSize } = model.config;
    const expected = [...logitsAt].flatMap(token => {
      const [b, t] = [Math.floor(token / width), token % width];
      const place = t - starts[b];
      return [...logits[b].dataSync().slice(place * vocabSize, (place + 1) * vocabSize)];
    });
    // From the input, and from states in the middle of the model.
    for (const from of [undefined, { layer: 1, hiddenStates: together.collected.get('block_output/0')! }]) {
      const inputs = { inputIds, shape, attentionMask, logitsAt, ...(from ? { from } : {}) };
      near(noGrad(() => reft.forward(inputs, layout)).logits.dataSync(), expected, 'chosen logits');
    }
  }
  const { inputIds, shape, attentionMask, layout } = paddings[0];
  assert.throws(
    () => reft.forward({ inputIds, shape, attentionMask, logitsAt: Int32Array.of(99) }, layout),
    /logitsAt: row 99 is out of range/,
  );
});

test('a mask of ones keeps the bits of no mask', async () => {
  const model = await tinyModel();
  const reft = getReftModel(model, { layers: [1], positions: 'l2', rank: 2 });
  const { inputIds, shape, attentionMask, labels, promptLengths } = collate(
    [tinyExample(5, 3, 1), tinyExample(6, 2, 2)],
    { padTokenId: 0 },
  );
  const layout = layoutOf(attentionMask, shape, promptLengths);
  const bits = (mask: { attentionMask?: Int32Array }): (TypedArray | undefined)[] => {
    zeroGrad(reft.trained().map(t => t.tensor));
    const { loss } = reft.loss({ inputIds, shape, ...mask }, labels, layout);
    loss.backward();
    return [loss.dataSync(), ...reft.trained().map(t => t.tensor.grad?.dataSync())];
  };
  assert.deepEqual(bits({ attentionMask }), bits({}));
});

describe('training on rows of different lengths', () => {
  async function run(
    batchSize: number,
    gradientAccumulation: number,
    reuse: boolean,
    beta?: number,
  ): Promise<TrainStep[]> {
    const reft = getReftModel(await tinyModel({ dtype: 'f64' }), {
      layers: [1, 2],
      positions: 'l2',
      rank: 2,
      identityStart: beta !== undefined,
    });
    const rows = tinyExamples(6);
    const pairs = [0, 2, 4].map(i => ({ chosen: rows[i], rejected: rows[i + 1] }));
    const data = beta === undefined ? { examples: rows } : { preferences: { pairs, beta } };
    const trainer = new ReftTrainer(reft, {
      ...data,
      steps: 4,
      batchSize,
      gradientAccumulation,
      learningRate: 1e-2,
      reuse,
    });
    const steps: TrainStep[] = [];
    for await (const step of trainer.steps()) steps.push(step);
    return steps;
  }

  test('takes the steps that rows one by one take, with reuse and without', async () => {
    const alone = await run(1, 6, false);
    for (const reuse of [true, false]) {
      const together = await run(6, 1, reuse);
      for (const key of ['loss', 'gradNorm'] as const)
        near(
          together.map(s => s[key]),
          alone.map(s => s[key]),
          key,
        );
    }
  });

  test('and pairs as well', async () => {
    const alone = await run(1, 3, false, 0.1);
    for (const reuse of [true, false]) {
      const together = await run(3, 1, reuse, 0.1);
      for (const key of ['loss', 'gradNorm'] as const)
        near(
          together.map(s => s[key]),
          alone.map(s => s[key]),
          key,
        );
    }
  });
});

test('a row generates alone what it generates beside longer ones', async () => {
  const reft = getReftModel(await tinyModel({ dtype: 'f64' }), {
    layers: [0, 1],
    positions: 'f1+l1',
    newTokens: 'all',
    rank: 2,
  });
  const prompts = [3, 9, 1].map((n, i) => tinyIds(n, i));
  const options = { maxNewTokens: 6, stopTokenIds: [] };
  const together = (await reft.generate(prompts, options)).map(r => r.ids);
  assert.deepEqual(
    (await reft.generate(prompts, { ...options, useCache: false })).map(r => r.ids),
    together,
  );
  for (const [i, prompt] of prompts.entries())
    assert.deepEqual((await reft.generate(prompt, options))[0].ids, together[i]);
});

test('linear layers are given the real tokens alone', async () => {
  const backend = createCpuBackend();
  const model = await tinyModel({ device: backend });
  const { inputIds, shape, attentionMask } = paddings[0];
  const { matmul } = backend.kernels;
  const rows = (mask: { attentionMask?: Int32Array }): Set<number> => {
    const seen = new Set<number>();
    backend.kernels.matmul = call => {
      seen.add(call.a.shape.slice(0, -1).reduce((n, side) => n * side, 1));
      matmul(call);
    };
    noGrad(() => model.forward({ inputIds, shape, ...mask }));
    return seen;
  };
  assert.deepEqual([...rows({})], [39]);
  assert.deepEqual([...rows({ attentionMask })], [26]);
  backend.kernels.matmul = matmul;
});
