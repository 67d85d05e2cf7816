// What generation takes from a model's own files: where it ends, and how it samples. And what logits that are not
// finite get.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { AutoTokenizer } from '../src/io/autoTokenizer.js';
import { AutoModelForCausalLM } from '../src/models/auto.js';
import { generationConfigFromGGUF, generationConfigFromHF } from '../src/models/generationConfig.js';
import { getReftModel } from '../src/reft/index.js';
import { caseFolder } from './helpers/caseFolder.js';
import { addSayingWeights, sayingModel } from './helpers/sayingModel.js';
import { tinyModel } from './helpers/tinyModel.js';

test('generation ends where generation_config.json says, in the library as at the command line', async () => {
  const folder = join(await caseFolder('02-generation-config-eos'), 'model');
  // "\n" is followed by "hi<|im_end|>", again and again.
  await addSayingWeights(folder, { 198: 71, 71: 72, 72: 260, 260: 71 });
  const model = await AutoModelForCausalLM.fromPretrained(folder, { device: 'cpu' });
  const tokenizer = await AutoTokenizer.fromPretrained(folder);
  const reft = getReftModel(model, { layers: [0], rank: 1 });
  const { ids } = tokenizer.chat('hi');
  for (const from of [model, reft]) {
    const [answer] = await from.generate(ids, { maxNewTokens: 9 });
    assert.deepEqual([answer.ids, answer.finish], [[71, 72, 260], 'stop']);
  }
  const [on] = await model.generate(ids, { maxNewTokens: 4, stopTokenIds: [] });
  assert.deepEqual([on.ids, on.finish], [[71, 72, 260, 71], 'length']);
});

test('a prompt of tokenizer.chat, a tokenizer and reft.tokenizer bring their ends along, each row its own', async () => {
  const model = await sayingModel(16, { 1: 2, 2: 3, 3: 4, 4: 1 });
  const lengths = async (...args: Parameters<typeof model.generate>): Promise<number[]> =>
    (await model.generate(...args)).map(g => g.ids.length);
  assert.deepEqual(await lengths([[1]], { maxNewTokens: 8 }), [8]);
  assert.deepEqual(
    await lengths([{ ids: [1], stopTokenIds: [3] }, { ids: [1], stopTokenIds: [4] }, [1]], { maxNewTokens: 8 }),
    [2, 3, 8],
  );
  assert.deepEqual(await lengths([[1]], { maxNewTokens: 8, tokenizer: { stopTokenIds: [4] } }), [3]);
  assert.deepEqual(await lengths([{ ids: [1], stopTokenIds: [3] }], { maxNewTokens: 8, stopTokenIds: [] }), [8]);
  const reft = getReftModel(model, { layers: [0], rank: 1 });
  reft.tokenizer = { stopTokenIds: [3] } as unknown as NonNullable<typeof reft.tokenizer>;
  assert.equal((await reft.generate([1], { maxNewTokens: 8 }))[0].ids.length, 2);
});

test('generation_config.json as transformers reads it', () => {
  const read = (json: object) => generationConfigFromHF(json, 'G');
  assert.deepEqual(read({ eos_token_id: [2, 3, -1], temperature: 0.5 }), {
    eosTokenIds: [2, 3],
    sampling: {},
    unsupported: [],
  });
  assert.deepEqual(read({ do_sample: true, eos_token_id: 2, repetition_penalty: 1.1, max_new_tokens: 7 }), {
    eosTokenIds: [2],
    sampling: { temperature: 1, topK: 50, repetitionPenalty: 1.1 },
    maxNewTokens: 7,
    unsupported: [],
  });
  assert.deepEqual(read({ do_sample: true, temperature: 0.6, top_k: 0, top_p: 0.9 }).sampling, {
    temperature: 0.6,
    topP: 0.9,
  });
  assert.deepEqual(read({ num_beams: 4, min_p: 0.1, typical_p: 1, bad_words_ids: null }).unsupported, [
    'num_beams',
    'min_p',
  ]);
  assert.throws(() => read({ temperature: 'hot' }), /^FormatError: G: temperature: /);
  assert.deepEqual(
    generationConfigFromGGUF({ 'tokenizer.ggml.eot_token_id': 7, 'tokenizer.ggml.eom_token_id': 4294967295 }, 10)
      .eosTokenIds,
    [7],
  );
});

test("defaults: 'model' samples as the model's files say, what is given stands above", async () => {
  const model = await sayingModel(
    8,
    { 1: 1 },
    { generation: { do_sample: true, temperature: 1e6, top_k: 3, max_new_tokens: 40 } },
  );
  const ids = async (options: object): Promise<number[]> =>
    (await model.generate([1], { stopTokenIds: [], ...options }))[0].ids;
  assert.deepEqual(await ids({ maxNewTokens: 3 }), [1, 1, 1]);
  assert.equal((await ids({})).length, 64);
  const drawn = await ids({ defaults: 'model' });
  assert.equal(drawn.length, 40);
  assert.equal(new Set(drawn).size, 3);
  assert.deepEqual(await ids({ defaults: 'model', temperature: 0, maxNewTokens: 2 }), [1, 1]);
  assert.equal(new Set(await ids({ defaults: 'model', topK: 8, maxNewTokens: 120, temperature: undefined })).size, 8);
  await assert.rejects(ids({ defaults: 'theirs' }), /^RangeError: defaults: expected 'reft' or 'model', got theirs$/);
  const beams = await sayingModel(8, {}, { generation: { num_beams: 2 } });
  await assert.rejects(
    beams.generate([1], { defaults: 'model' }),
    /generation_config\.json sets num_beams, which is not supported/,
  );
  assert.equal((await beams.generate([1]))[0].ids.length, 64);
});

test('every row of a batch draws from its own stream, whatever rows stand beside it', async () => {
  const model = await tinyModel();
  const draw = async (rows: number, seed = 0): Promise<number[][]> =>
    (
      await model.generate(
        Array.from({ length: rows }, () => [1, 2, 3]),
        { maxNewTokens: 12, temperature: 1.5, seed, stopTokenIds: [] },
      )
    ).map(g => g.ids);
  const three = await draw(3);
  assert.equal(new Set(three.map(ids => ids.join())).size, 3);
  assert.deepEqual((await draw(1))[0], three[0]);
  assert.deepEqual(await draw(3), three);
  assert.notDeepEqual(await draw(3, 1), three);
});

test('a logit that is not finite is an error that names the token and the row', async () => {
  const model = await sayingModel(8, { 1: 2, 2: 3 }, { broken: 3 });
  for (const options of [
    {},
    { temperature: 1 },
    { temperature: 1, topP: 0.5 },
    { temperature: 0.1, topK: 2, seed: 5 },
  ]) {
    await assert.rejects(
      model.generate([[5], [1]], {
        maxNewTokens: 4,
        stopTokenIds: [],
        repetitionPenalty: 1,
        ...options,
        temperature: 0,
      }),
      /^Error: generate: saying: new token 2 of prompt 1: the logit of token 0 is NaN; the model or an edit produced values that are not finite$/,
    );
    await assert.rejects(
      model.generate([[5], [3]], { maxNewTokens: 4, stopTokenIds: [], ...options }),
      /saying: new token 0 of prompt 1: the logit of token 0 is NaN/,
    );
  }
});
