// Edits of both stacks of a model that reads and writes: each on the tokens of its own stack, trained, and in text.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { scope } from '../src/autograd/scope.js';
import { noGrad } from '../src/autograd/tape.js';
import { AdamW } from '../src/nn/optim.js';
import { getSeq2SeqReft } from '../src/reft/index.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { tinySeq2Seq } from './helpers/tinySeq2Seq.js';

const labels = Int32Array.from([4, 9, 3, 5, 6, -100]);
const options = {
  inputIds: Int32Array.from([5, 6, 7, 8, 0, 9, 10, 11, 12, 13]),
  shape: [2, 5],
  attentionMask: Int32Array.from([1, 1, 1, 1, 0, 1, 1, 1, 1, 1]),
  decoderShape: [2, 3],
};

test('positions are those of the site of each edit: the last token of the input, the start token, keys of the encoder', async () => {
  const model = await tinySeq2Seq('t5', { dtype: 'f64' });
  const reft = getSeq2SeqReft(model, [
    { stack: 'encoder', layers: [1], positions: 'l1', rank: 2 },
    { stack: 'decoder', layers: [0], positions: '0', rank: 2 },
    { stack: 'decoder', layers: [1], component: 'cross_value_output', positions: 'l2', rank: 2, tied: true },
  ]);
  const inputs = { ...options, ...model.decoderInputs(labels, [2, 3]) };
  const edits = reft.edits(reft.layoutsOf(inputs));
  assert.deepEqual(
    edits.map(({ site, rows }) => [site.stack, site.component, [...(rows ?? [])]]),
    [
      ['encoder', 'block_output', [3, 9]],
      ['decoder', 'cross_value_output', [2, 3, 8, 9]],
      ['decoder', 'block_output', [0, 3]],
    ],
  );
  const [plain, edited] = [model, reft].map(of => noGrad(() => of.forward(inputs).logits).dataSync());
  assert.notDeepEqual(edited, plain);
  reft.set.enabled = false;
  assert.deepEqual(noGrad(() => reft.forward(inputs).logits).dataSync(), plain);
  reft.set.enabled = true;
  const { decoder } = reft.layoutsOf(inputs);
  assert.throws(() => reft.forward(inputs, { decoder }), /encoder\/block_output\/1.*layout of the tokens of 'encoder'/);
  assert.throws(() => reft.layoutsOf({ ...inputs, decoderShape: undefined as unknown as number[] }), /shapes of both/);
  assert.throws(() => getSeq2SeqReft(model, { layers: [0] }), /expected a stack of the model/);
});

test('training moves the loss, and gradients at sites are those with the edits', async () => {
  for (const kind of ['t5', 'bart', 'marian'] as const) {
    const model = await tinySeq2Seq(kind);
    const reft = getSeq2SeqReft(model, [
      { stack: 'encoder', layers: 'all', positions: 'all', rank: 2 },
      { stack: 'decoder', layers: [0], positions: 'all', rank: 2 },
    ]);
    const trained = reft.set.trained().map(({ tensor }) => tensor);
    const optimizer = new AdamW(trained, { learningRate: 0.05 });
    const losses: number[] = [];
    for (let step = 0; step < 8; step++) {
      scope(() => {
        for (const tensor of trained) tensor.grad = null;
        const { loss, labelled } = reft.loss(options, labels);
        assert.equal(labelled, 5);
        loss.backward();
        losses.push(Number(loss.dataSync()[0]));
        optimizer.step();
      });
    }
    assert.ok(losses[7] < 0.8 * losses[0], `${kind}: ${losses.join(', ')}`);
    const { gradients, loss } = reft.gradients(options, labels, ['encoder/block_output/0']);
    assert.ok(Number(loss.dataSync()[0]) < losses[7] * 1.01, 'with the edits');
    assert.deepEqual((gradients.get('encoder/block_output/0') as Tensor).shape, [2, 5, 8]);
  }
});

test('generation edits the encoder once and the decoder by step, with the cache and without', async () => {
  const model = await tinySeq2Seq('t5');
  const reft = getSeq2SeqReft(model, [
    { stack: 'encoder', layers: [0], positions: 'all', rank: 3, seed: 1 },
    { stack: 'decoder', layers: [1], positions: 'all', rank: 3, scale: 3, seed: 2 },
  ]);
  const prompts = [
    [5, 6, 7],
    [8, 9, 10, 11, 4],
  ];
  const more = { maxNewTokens: 7, stopTokenIds: [] };
  const ids = async (of: { generate: typeof reft.generate }, useCache = true): Promise<number[][]> =>
    (await of.generate(prompts, { ...more, useCache })).map(row => row.ids);
  const edited = await ids(reft);
  assert.deepEqual(await ids(reft, false), edited);
  assert.notDeepEqual(await ids(model), edited);
  reft.set.enabled = false;
  assert.deepEqual(await ids(reft), await ids(model));
});
