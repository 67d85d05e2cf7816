// The small inputs of tests/fixtures/cases that concern models, with their right values: ids that follow "abcabcabc",
// by transformers.

import assert from 'node:assert/strict';
import { rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
import { AutoTokenizer } from '../src/io/autoTokenizer.js';
import { resolveModel } from '../src/io/resolve.js';
import { AutoModelForCausalLM } from '../src/models/auto.js';
import type { CausalLM } from '../src/models/causalLM.js';
import { loadReft } from '../src/reft/adapterFiles.js';
import { caseFolder } from './helpers/caseFolder.js';
import { ropeOf } from './helpers/ropeOf.js';

const prompt = [64, 65, 66, 64, 65, 66, 64, 65, 66];
const folders = new Map<string, Promise<string>>();
after(async () => {
  for (const folder of folders.values()) await rm(await folder, { recursive: true });
});

async function load(name: string, path: string): Promise<CausalLM> {
  const folder = folders.get(name) ?? caseFolder(name);
  folders.set(name, folder);
  return AutoModelForCausalLM.fromPretrained(join(await folder, path), { device: 'cpu' });
}

async function continued(name: string, path: string, maxNewTokens: number): Promise<readonly number[]> {
  const [{ ids }] = await (await load(name, path)).generate(prompt, { maxNewTokens });
  return ids;
}

async function logits(name: string, path: string): Promise<ArrayLike<number>> {
  const model = await load(name, path);
  return model.forward({ inputIds: Int32Array.from(prompt), shape: [1, prompt.length] }).logits.data();
}

const yarnLogits = [
  [0, 3.08117],
  [94, 5.067132],
  [189, 3.619282],
  [261, 0.660446],
] as const;

test('01: Qwen2 slides from layer max_window_layers on', async () => {
  const name = '01-qwen2-window-layers';
  assert.deepEqual(await continued(name, 'half', 8), [238, 22, 258, 119, 119, 119, 72, 251]);
  assert.deepEqual(await logits(name, 'none-slide'), await logits(name, 'full'));
  assert.deepEqual(await continued(name, 'none-slide', 8), await continued(name, 'full', 8));
});

test('03: special tokens that do not exist are no reason to refuse', async () => {
  for (const path of ['model', 'empty-special', 'pad-not-in-json']) {
    assert.deepEqual(await continued('03-pad-minus-one', path, 6), [70, 199, 108, 85, 123, 206], path);
  }
  assert.equal((await load('03-pad-minus-one', 'model')).config.padTokenId, null);
});

test('04: special ids of a GGUF that are not in the vocabulary count as absent', async () => {
  for (const path of ['plain.gguf', 'pad-u32max.gguf', 'eot-beyond.gguf']) {
    assert.deepEqual(await continued('04-gguf-special-id-minus-one', path, 6), [94, 103, 145, 189, 242, 256], path);
  }
  assert.equal((await load('04-gguf-special-id-minus-one', 'pad-u32max.gguf')).config.padTokenId, null);
});

test('05: int8 rows with scales are what they stand for', async () => {
  const name = '05-int8-checkpoint';
  for (const path of ['float', 'dequantised', 'int8'])
    assert.deepEqual(await continued(name, path, 6), [259, 22, 130, 94, 147, 157], path);
  assert.deepEqual(await logits(name, 'int8'), await logits(name, 'dequantised'));
});

test('07: names without model.', async () => {
  const name = '07-base-model-prefix';
  assert.deepEqual(await logits(name, 'no-prefix'), await logits(name, 'usual'));
  assert.deepEqual(await continued(name, 'no-prefix', 6), await continued(name, 'usual', 6));
});

test('08: a split GGUF is opened by its first part, or its folder', async () => {
  const name = '08-gguf-split';
  const expected = [94, 103, 145, 189, 242, 256];
  const first = 'tiny-00001-of-00002.gguf';
  for (const path of ['whole.gguf', first]) assert.deepEqual(await continued(name, path, 6), expected, path);
  assert.deepEqual(await logits(name, first), await logits(name, 'whole.gguf'));
  const model = await load(name, first);
  assert.equal(model.name, 'tiny');
  assert.equal(model.config.tiedHead, false);
  const folder = await (folders.get(name) as Promise<string>);
  await assert.rejects(load(name, 'tiny-00002-of-00002.gguf'), {
    name: 'FormatError',
    message: /tiny-00002-of-00002.gguf: is part 2 of 2 of a split model; open the first one, tiny-00001-of-00002.gguf$/,
  });
  await rm(join(folder, 'whole.gguf'));
  assert.deepEqual(await continued(name, '.', 6), expected);
  const resolved = await resolveModel(folder);
  assert.deepEqual(
    resolved.files.map(file => basename(file)),
    [first, 'tiny-00002-of-00002.gguf'],
  );
  const tokenizer = await AutoTokenizer.fromPretrained(folder);
  assert.equal(tokenizer.vocabSize, 262);
});

test('31: linear scaling by the older key, without a type, and YaRN', async () => {
  const name = '31-gguf-old-rope-scale';
  for (const path of ['scale-linear.gguf', 'scaling-linear.gguf'])
    assert.deepEqual(await continued(name, path, 6), [94, 103, 145, 189, 239, 91], path);
  assert.deepEqual(await logits(name, 'scale-linear.gguf'), await logits(name, 'scaling-linear.gguf'));
  const yarn = await load(name, 'yarn.gguf');
  assert.deepEqual(ropeOf(yarn.config).scaling, {
    rope_type: 'yarn',
    factor: 4,
    original_max_position_embeddings: 512,
    beta_fast: 32,
    beta_slow: 1,
    attention_factor: 1 + 0.1 * Math.log(4),
  });
  // Four of the last token's logits as transformers 5.24.0 computes them.
  const values = await logits(name, 'yarn.gguf');
  const last = (id: number): number => values[8 * yarn.config.vocabSize + id];
  for (const [id, expected] of yarnLogits)
    assert.ok(Math.abs(last(id) - expected) < 1e-5, `logit ${id}: ${last(id)}, expected ${expected}`);
});

test('36: a folder of peft given as an adapter is one error that says what it is', async () => {
  const folder = join(await caseFolder('36-peft-folder-as-adapter'), 'lora');
  folders.set('36', Promise.resolve(join(folder, '..')));
  const model = await load('07-base-model-prefix', 'usual');
  const said = (what: string): RegExp =>
    new RegExp(`adapter_config.json: is of ${what} of peft.*, which changes weights, not hidden states: not loaded$`);
  await assert.rejects(loadReft(model, folder), { name: 'FormatError', message: said('a LoRA') });
  // Older folders have their weights in a file that reft has none of.
  await rename(join(folder, 'adapter_model.safetensors'), join(folder, 'adapter_model.bin'));
  await assert.rejects(loadReft(model, folder), { name: 'FormatError', message: said('a LoRA') });
  for (const peft_type of ['IA3', 'PREFIX_TUNING', 'VERA']) {
    await writeFile(join(folder, 'adapter_config.json'), JSON.stringify({ peft_type, task_type: 'CAUSAL_LM' }));
    await assert.rejects(loadReft(model, folder), { name: 'FormatError', message: said(`a ${peft_type} adapter`) });
  }
  await rm(join(folder, 'adapter_config.json'));
  await assert.rejects(loadReft(model, folder), /adapter_config.json: cannot be read/);
});
