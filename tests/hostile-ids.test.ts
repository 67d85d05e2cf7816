// Token ids, labels, masks and prompt lengths that are none: each public entry refuses them with one error that says
// what was given and where, before anything is computed. Two trainers of one set of edits notice each other.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { before, describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { collate } from '../src/data/collate.js';
import type { Example } from '../src/data/examples.js';
import { tokenizerFromFiles } from '../src/io/tokenizerJson.js';
import type { CausalLM } from '../src/models/causalLM.js';
import type { Prompt } from '../src/models/generation/generate.js';
import { evaluate, getReftModel, layoutOf, mixEdits, ReftTrainer, trace, type ReftModel } from '../src/reft/index.js';
import { CounterfactualData } from '../src/interchange/counterfactuals.js';
import { getInterchangeModel, tokenBatch, type InterchangeModel } from '../src/interchange/index.js';
import { tinyExample, tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel } from './helpers/tinyModel.js';

let model: CausalLM;
let reft: ReftModel;
const interchange = (): InterchangeModel =>
  getInterchangeModel(model, { kind: 'vanilla', layer: 1, component: 'block_output' });
before(async () => {
  model = await tinyModel();
  reft = getReftModel(model, { layers: [1], positions: 'l1', rank: 2 });
});

/** What is no list of ids, and what is said of it after the name of the list. */
const bad: readonly [unknown, string][] = [
  [[1.5], 'RangeError: : token 1.5 at 0 is no whole number'],
  [[3, NaN], 'RangeError: : token NaN at 1 is no whole number'],
  [[-1], 'RangeError: : token -1 at 0 is outside the vocabulary of 23'],
  [[1, 23], 'RangeError: : token 23 at 1 is outside the vocabulary of 23'],
  [[1, '2'], 'TypeError: : expected token ids, got "2" at 1'],
  [[1, [2]], 'TypeError: : expected token ids, got an array at 1'],
  [[1, null], 'TypeError: : expected token ids, got null at 1'],
  // eslint-disable-next-line no-sparse-arrays
  [[1, , 2], 'TypeError: : expected token ids, got undefined at 1'],
  ['hello', 'TypeError: : expected token ids, an array or an Int32Array, got "hello"'],
  [null, 'TypeError: : expected token ids, an array or an Int32Array, got null'],
  [undefined, 'TypeError: : expected token ids, an array or an Int32Array, got undefined'],
  [{ length: 2 }, 'TypeError: : expected token ids, an array or an Int32Array, got a value of type Object'],
  [BigInt64Array.of(1n), 'TypeError: : expected token ids, got 1 at 0'],
];

const said = (expected: string, name: string): string => expected.replace(': :', `: ${name}:`);

/** `call` with each bad list must throw what is said of it, `name` being the list's. */
async function refuses(name: string, call: (ids: never) => unknown, lists = bad): Promise<void> {
  for (const [ids, expected] of lists) {
    const thrown: unknown = await (async () => call(ids as never))().then(
      () => 'nothing was thrown',
      (error: unknown) => error,
    );
    assert.equal(String(thrown), said(expected, name));
  }
}

describe('token ids that are none', () => {
  const one = (ids: unknown): Prompt => [ids] as never;
  test('in generation, of the base, of edits, of mixtures and of interchange runs', async () => {
    const options = { maxNewTokens: 1 };
    const run = { sources: [tokenBatch([[1, 2]])], unitLocations: { base: 0 } };
    await refuses('generate: prompt 0', ids => model.generate(one(ids), options));
    await refuses('generate: prompt 0', ids => model.generate({ ids }, options));
    await refuses('generate: prompt 0', ids => reft.generate(one(ids), options));
    await refuses('generate: prompt 0', ids => mixEdits([reft]).generate(one(ids), options));
    await refuses('generate: prompt 0', ids => interchange().generate(one(ids), run, options));
    await refuses('generate: prompt 1', ids => model.generate([[1], ids], options));
    await refuses(
      'generate: prompt 0',
      ids => model.generate(ids, options),
      bad.filter(([ids]) => !Array.isArray(ids) || typeof ids[0] === 'number'),
    );
    await refuses('generate: prompt 0', ids => model.generate(ids, options), [
      [[[[1]]], 'TypeError: : expected token ids, got an array at 0'],
    ]);
    assert.equal((await model.generate([[1, 2], Int32Array.of(3), { ids: [4] }], options)).length, 3);
  });

  test('in a forward, a loss, gradients, collected states, graphs and interchange', async () => {
    const shapeOf = (ids: { length?: number } | null): number[] => [1, ids?.length ?? 1];
    const layout = layoutOf(Int32Array.of(1), [1, 1], [1]);
    await refuses('inputIds', ids => model.forward({ inputIds: ids, shape: shapeOf(ids) }));
    await refuses('inputIds', ids =>
      model.forward({ inputIds: ids, shape: shapeOf(ids), collect: [model.site('block_output/0')] }),
    );
    await refuses('inputIds', ids => model.loss({ inputIds: ids, shape: [1, 2] }, Int32Array.of(1, 2)));
    await refuses('inputIds', ids =>
      model.gradients({ inputIds: ids, shape: [1, 2] }, Int32Array.of(1, 2), ['block_output/0']),
    );
    await refuses('inputIds', ids => reft.forward({ inputIds: ids, shape: shapeOf(ids) }, layout));
    await refuses('inputIds', ids => trace(reft, { inputIds: ids, shape: shapeOf(ids) }));
    await refuses('inputIds', ids => trace(model, { inputIds: ids, shape: shapeOf(ids) }));
    const anyVocabulary = bad
      .map(([ids, expected]): [unknown, string] => [ids, expected.replace('the vocabulary of 23', 'any vocabulary')])
      .filter(([, e]) => !e.includes('token 23'));
    await refuses('tokenBatch: row 0', ids => tokenBatch([ids]), anyVocabulary);
    const example = { base: [1, 2], sources: [[3, 4]], label: 5 };
    await refuses(
      'example 0: base',
      ids => new CounterfactualData(interchange(), [{ ...example, base: ids }], { base: 0 }),
    );
    await refuses(
      'example 0: source 0',
      ids => new CounterfactualData(interchange(), [{ ...example, sources: [ids] }], { base: 0 }),
    );
  });

  test('in examples of a trainer, of an evaluation and of a batch', async () => {
    const arrays = bad.map(([ids, expected]): [unknown, string] => [ids, expected]);
    const withIds = (ids: never): Example => ({ ...tinyExample(2, 1, 1), ids });
    await refuses('tiny:1: ids', ids => new ReftTrainer(reft, { examples: [withIds(ids)], steps: 1 }), arrays);
    await refuses('tiny:1: ids', ids => evaluate(model, [withIds(ids)]), arrays);
    const noPlace = { ...tinyExample(2, 1, 1), where: undefined as never };
    assert.throws(
      () =>
        new ReftTrainer(reft, {
          examples: [tinyExample(3, 2, 1), { ...noPlace, ids: Int32Array.of(1, 99, 2) }],
          steps: 1,
        }),
      /^RangeError: training: example 1: ids: token 99 at 1 is outside the vocabulary of 23$/,
    );
    assert.throws(
      () => new ReftTrainer(reft, { examples: [{ ...noPlace, ids: [1, 2, 3] as never }], steps: 1 }),
      /^TypeError: training: example 0: ids: expected an Int32Array, got an array$/,
    );
    assert.throws(
      () => collate([withIds([-3] as never)], { padTokenId: 0 }),
      /^RangeError: tiny:1: ids: token -3 at 0 is outside any vocabulary$/,
    );
    assert.throws(
      () => new ReftTrainer(reft, { examples: [null as never], steps: 1 }),
      /^TypeError: training: example 0: expected an example, got null$/,
    );
  });

  test('in encode and decode of a tokenizer', () => {
    const fixture = (name: string): string =>
      readFileSync(new URL(`fixtures/tokenizer/bpe/${name}`, import.meta.url), 'utf8');
    const tokenizer = tokenizerFromFiles({ tokenizerJson: fixture('tokenizer.json') }, 'T');
    const decode = (ids: unknown) => () => tokenizer.decode(ids as number[]);
    assert.throws(decode('12'), /^TypeError: T: decode: expected token ids, an array or an Int32Array, got "12"$/);
    assert.throws(decode(null), /^TypeError: T: decode: expected token ids, an array or an Int32Array, got null$/);
    assert.throws(decode(['1']), /^TypeError: T: decode: expected token ids, got "1" at 0$/);
    assert.throws(decode([1.5]), /^RangeError: T: decode: token 1\.5 at 0 is no whole number$/);
    assert.throws(decode([-1]), /^RangeError: T: decode: token -1 at 0 is outside any vocabulary$/);
    assert.throws(() => tokenizer.encode([1] as never), /^TypeError: T: encode: expected a text, got an array$/);
    assert.throws(() => tokenizer.encodePrompt(null as never), /^TypeError: T: encode: expected a text, got null$/);
  });
});

test('labels that are none', () => {
  const loss = (labels: unknown) => () =>
    model.loss({ inputIds: Int32Array.of(1, 2), shape: [1, 2] }, labels as Int32Array);
  assert.throws(loss([0, NaN]), /^RangeError: labels: label NaN at 1 is no whole number$/);
  assert.throws(loss([0, 1.5]), /^RangeError: labels: label 1\.5 at 1 is no whole number$/);
  assert.throws(loss('ab'), /^TypeError: labels: expected labels, an array or an Int32Array, got "ab"$/);
  assert.throws(loss(Int32Array.of(0, 23)), /^RangeError: .*label 23 .*outside the 23 classes$/);
  const example = { ...tinyExample(2, 1, 1), labels: Int32Array.of(-100, -100, 40) };
  assert.throws(
    () => new ReftTrainer(reft, { examples: [example], steps: 1 }),
    /^RangeError: tiny:1: labels: label 40 at 2 is outside the vocabulary of 23$/,
  );
  assert.ok(
    model.loss({ inputIds: Int32Array.of(1, 2), shape: [1, 2] }, Int32Array.of(-100, 0)).labelled === 1,
    'label 0 counts',
  );
});

test('prompt lengths that are none', () => {
  const mask = Int32Array.of(0, 1, 1, 1);
  const layout = (lengths: unknown) => () => layoutOf(mask, [1, 4], lengths as number[]);
  for (const length of [4, -1, 1.5, NaN, '2', null]) {
    const shown = typeof length === 'string' ? '"2"' : String(length);
    assert.throws(
      layout([length]),
      new RegExp(`^RangeError: row 0: expected a prompt length from 0 to the 3 tokens there are, got ${shown}$`),
    );
    const example = { ...tinyExample(2, 1, 1), promptLength: length as number };
    assert.throws(
      () => new ReftTrainer(reft, { examples: [example], steps: 1 }),
      new RegExp(`^RangeError: tiny:1: expected a prompt length from 0 to the 3 tokens there are, got ${shown}$`),
    );
  }
  assert.throws(layout(undefined), /^RangeError: promptLengths: expected one for each of 1 rows, got undefined$/);
  assert.throws(layout([1, 2]), /^RangeError: promptLengths: expected one for each of 1 rows, got 2 of them$/);
  assert.deepEqual(Array.from(layoutOf(mask, [1, 4], [3]).lengths), [3]);
});

test('masks that are no run of ones, positions and rows of logits that are none', () => {
  const inputs = { inputIds: Int32Array.of(1, 2, 3), shape: [1, 3] };
  const forward = (more: object) => () => model.forward({ ...inputs, ...more });
  assert.throws(
    forward({ attentionMask: Int32Array.of(1, 0, 1) }),
    /^RangeError: attentionMask: row 0 is not one run of ones/,
  );
  assert.throws(
    forward({ attentionMask: Int32Array.of(2, 2, 2) }),
    /^RangeError: attentionMask: row 0 has 2, expected ones and zeros$/,
  );
  assert.throws(
    forward({ attentionMask: [1, 1, 1] }),
    /^TypeError: attentionMask: expected an Int32Array, got an array$/,
  );
  assert.throws(
    () => layoutOf(Int32Array.of(1, 0, 1), [1, 3], [1]),
    /^RangeError: attentionMask: row 0 is not one run of ones/,
  );
  assert.throws(
    forward({ positions: [0, NaN, 1] }),
    /^RangeError: position NaN is out of range: the model has 64 positions$/,
  );
  assert.throws(forward({ positions: Int32Array.of(0, 1) }), /^RangeError: positions: expected 1 x 3, got 2$/);
  for (const row of [3, -1, 0.5, NaN]) {
    assert.throws(
      forward({ logitsAt: [row] }),
      new RegExp(`^RangeError: logitsAt: row ${row} is out of range, the batch has 3$`),
    );
  }
  assert.throws(
    () => model.forward({ ...inputs, shape: 3 as never }),
    /^TypeError: shape: expected \[batch, length\], got 3$/,
  );
});

test('two trainers of one set of edits notice each other', async () => {
  const set = getReftModel(model, { layers: [1], positions: 'l1', rank: 2 });
  const make = (): ReftTrainer => new ReftTrainer(set, { examples: tinyExamples(4), batchSize: 2, steps: 2 });
  const first = make().steps();
  await first.next();
  const second = make();
  await assert.rejects(
    second.train(),
    /^Error: trainer: another trainer is being run on block_output\/1\.R\.\w+; end its steps first$/,
  );
  // Another set on the same base is another matter.
  const other = new ReftTrainer(getReftModel(model, { layers: [1], positions: 'l1', rank: 2 }), {
    examples: tinyExamples(4),
    batchSize: 2,
    steps: 1,
  });
  assert.equal((await other.train()).steps, 1);
  await first.return();
  assert.equal((await second.train()).steps, 2);
  // Nor does one that was aborted, or one that nobody holds any more.
  const controller = new AbortController();
  controller.abort();
  assert.equal(
    (await new ReftTrainer(set, { examples: tinyExamples(4), steps: 2, signal: controller.signal }).train()).aborted,
    true,
  );
  await (async () => {
    await make().steps().next();
  })();
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  for (let i = 0; i < 20; i++) {
    collect();
    await new Promise(resolve => {
      setTimeout(resolve, 5);
    });
  }
  assert.equal((await make().train()).steps, 2);
});
