// Which tensors of a checkpoint are taken for which weights: other prefixes, tied heads under either name, int8 rows
// with scales; and what is refused because it would make another model: shapes, whole numbers, weights that nothing
// reads.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memorySource } from '../src/io/byteSource.js';
import { FormatError } from '../src/io/errors.js';
import { writeSafetensors, type SafetensorsEntry } from '../src/io/safetensors.js';
import { loadCausalLM, openCheckpoint } from '../src/models/auto.js';
import type { CausalLM } from '../src/models/causalLM.js';
import { variantConfig, variantEntries, variantIds } from './helpers/variants.js';

const name = 'head_dim';
const plain = await variantEntries(variantConfig(name));
const entryOf = (tensor: string): SafetensorsEntry => plain.find(e => e.name === tensor) as SafetensorsEntry;
const without = (tensor: string): SafetensorsEntry[] => plain.filter(e => e.name !== tensor);
const replaced = (tensor: string, change: Partial<SafetensorsEntry>): SafetensorsEntry[] =>
  plain.map(e => (e.name === tensor ? ({ ...e, ...change } as SafetensorsEntry) : e));

async function load(
  entries: readonly SafetensorsEntry[],
  settings: Record<string, unknown> = {},
  dtype: 'f32' | 'f64' = 'f64',
): Promise<CausalLM> {
  return loadCausalLM(
    await openCheckpoint(memorySource(writeSafetensors([...entries]), 'made.safetensors'), {
      ...variantConfig(name),
      ...settings,
    }),
    { dtype },
  );
}
const refused = (entries: readonly SafetensorsEntry[], message: string | RegExp, settings = {}): Promise<void> =>
  assert.rejects(
    load(entries, settings),
    error =>
      error instanceof FormatError &&
      (typeof message === 'string' ? error.message === `made.safetensors: ${message}` : message.test(error.message)),
    `should be refused with ${String(message)}`,
  );

async function logitsOf(model: CausalLM): Promise<ArrayLike<number>> {
  return model.forward({ inputIds: variantIds, shape: [1, variantIds.length] }).logits.data();
}
const expected = await logitsOf(await load(plain));
const [embedding, head] = ['model.embed_tokens.weight', 'lm_head.weight'];

test('names may have another prefix than model.', async () => {
  const renamed = (prefix: string, headName: string): SafetensorsEntry[] =>
    plain.map(e => ({ ...e, name: e.name === head ? headName : e.name.replace(/^model\./, prefix) }));
  for (const [prefix, headName] of [
    ['', 'lm_head.weight'],
    ['language_model.model.', 'language_model.lm_head.weight'],
    ['module.model.', 'module.lm_head.weight'],
    ['transformer.', 'lm_head.weight'],
    ['base_model.model.model.', 'base_model.model.lm_head.weight'],
  ])
    assert.deepEqual(await logitsOf(await load(renamed(prefix, headName))), expected, prefix);
});

test('two decoders in one file are refused, unless one has the usual names', async () => {
  const copy = (prefix: string): SafetensorsEntry[] =>
    plain.filter(e => e.name !== head).map(e => ({ ...e, name: e.name.replace(/^model\./, prefix) }));
  assert.deepEqual(await logitsOf(await load([...plain, ...copy('draft.')])), expected);
  await refused(
    [...copy('a.'), ...copy('b.'), entryOf(head)],
    "holds several decoders, expected one; they begin with 'a.layers.0.', 'b.layers.0.'",
  );
});

test('a tied pair may be stored under either name, or under both where they are the same', async () => {
  const tied = { tie_word_embeddings: true };
  const weights = entryOf(embedding);
  const asTied = await logitsOf(await load(without(head), tied));
  assert.notDeepEqual(asTied, expected);
  assert.deepEqual(
    await logitsOf(await load([...without(embedding).filter(e => e.name !== head), { ...weights, name: head }], tied)),
    asTied,
  );
  assert.deepEqual(await logitsOf(await load([...without(head), { ...weights, name: head }], tied)), asTied);
  await refused(
    plain,
    "'model.embed_tokens.weight' is not the same as 'lm_head.weight': the configuration ties them; " +
      'tie_word_embeddings: false would take each as it is',
    tied,
  );
  await refused(without(embedding), /has no tensor 'model.embed_tokens.weight'/);
  await refused(without(head), /has no 'lm_head.weight', and its configuration does not tie/);
});

test('tensors of other types that nothing reads are no reason to refuse', async () => {
  const extra: SafetensorsEntry[] = [
    { name: 'model.layers.0.position_ids', dtype: 'I64', shape: [2], data: BigInt64Array.of(0n, 1n) },
    { name: 'model.layers.0.self_attn.mask', dtype: 'BOOL', shape: [2], data: Uint8Array.of(0, 1) },
    { name: 'model.layers.0.self_attn.rotary_emb.inv_freq', dtype: 'F32', shape: [3], data: Float32Array.of(1, 2, 3) },
    { name: 'score.weight', dtype: 'F32', shape: [1, 16], data: new Float32Array(16) },
  ];
  assert.deepEqual(await logitsOf(await load([...plain, ...extra])), expected);
  // The writer has no unsigned types, so that the header is changed instead.
  const bytes = writeSafetensors([
    ...plain,
    { name: 'unused', dtype: 'I64', shape: [1], data: BigInt64Array.of(1n) },
    { name: 'unused.2', dtype: 'I32', shape: [1], data: Int32Array.of(1) },
  ]);
  const changed = Buffer.from(bytes);
  for (const [from, to] of [
    ['"dtype":"I64"', '"dtype":"U64"'],
    ['"dtype":"I32"', '"dtype":"U32"'],
  ])
    changed.write(to, changed.indexOf(from));
  const model = await loadCausalLM(
    await openCheckpoint(memorySource(new Uint8Array(changed), 'made.safetensors'), variantConfig(name)),
    { dtype: 'f64' },
  );
  assert.deepEqual(await logitsOf(model), expected);
});

test('weights that the configuration has no place for are refused', async () => {
  const extra = (tensor: string): SafetensorsEntry => ({
    name: tensor,
    dtype: 'F32',
    shape: [6],
    data: new Float32Array(6).fill(1),
  });
  for (const tensor of [
    'model.layers.1.self_attn.q_norm.weight',
    'model.layers.0.self_attn.q_proj.bias',
    'model.layers.4.mlp.up_proj.weight',
    'model.layers.0.self_attn.q_proj.lora_A.weight',
  ]) {
    await refused(
      [...plain, extra(tensor)],
      `has weights '${tensor}' that its configuration has no place for; the configuration is of another model`,
    );
  }
  await refused(plain, /^made.safetensors: has weights 'model.layers.3.* that its configuration has no place for/, {
    num_hidden_layers: 3,
  });
});

test('a weight of the same size in another shape is refused', async () => {
  const q = 'model.layers.1.self_attn.q_proj.weight';
  await refused(replaced(q, { shape: [16, 24] }), `${q} has shape [16,24], the configuration says [24,16]`);
  await refused(replaced(q, { shape: [384] }), `${q} has shape [384], the configuration says [24,16]`);
  await refused(
    replaced('model.norm.weight', { shape: [4, 4] }),
    'model.norm.weight has shape [4,4], the configuration says [16]',
  );
  await refused(
    replaced(embedding, { shape: [16, 32] }),
    `${embedding} has shape [16,32], the configuration says [32,16]`,
  );
});

test('whole numbers where weights are expected are refused, naming tensor and type', async () => {
  const q = 'model.layers.1.self_attn.q_proj.weight';
  const what = (dtype: string): string =>
    `'${q}' is ${dtype}, expected floating-point weights, or I8 [rows, columns] with ` +
    "'model.layers.1.self_attn.q_proj.SCB' F32 [rows] beside it";
  for (const [dtype, data] of [
    ['I16', new Int16Array(384)],
    ['I32', new Int32Array(384)],
    ['U8', new Uint8Array(384)],
    ['BOOL', new Uint8Array(384)],
    ['I64', new BigInt64Array(384)],
  ] as const)
    await refused(replaced(q, { dtype, data }), what(dtype));
  const scales = (count: number): SafetensorsEntry => ({
    name: 'model.layers.1.self_attn.q_proj.SCB',
    dtype: 'F32',
    shape: [count],
    data: new Float32Array(count),
  });
  await refused([...replaced(q, { dtype: 'I16', data: new Int16Array(384) }), scales(24)], what('I16'));
  const codes = replaced(q, { dtype: 'I8', data: new Int8Array(384) });
  await refused(codes, what('I8'));
  await refused([...codes, scales(16)], what('I8'));
  await refused(
    replaced('model.norm.weight', { dtype: 'I8', data: new Int8Array(16) }),
    /'model.norm.weight' is I8, expected floating-point weights/,
  );
});

test('int8 rows with scales are what they stand for', async () => {
  const at = 'model.layers.1.self_attn.q_proj';
  const codes = Int8Array.from({ length: 384 }, (_, i) => ((i * 37) % 255) - 127);
  const scales = Float32Array.from({ length: 24 }, (_, i) => 0.3 + 0.01 * i);
  const meant = Float32Array.from(codes, (code, i) => Math.fround(code * scales[Math.floor(i / 16)]) / 127);
  const float = await logitsOf(await load(replaced(`${at}.weight`, { data: meant }), {}, 'f32'));
  const int8 = [
    ...replaced(`${at}.weight`, { dtype: 'I8', data: codes }),
    { name: `${at}.SCB`, dtype: 'F32', shape: [24], data: scales } as const,
  ];
  assert.deepEqual(await logitsOf(await load(int8, {}, 'f32')), float);
  const format = (value: number): SafetensorsEntry => ({
    name: `${at}.weight_format`,
    dtype: 'U8',
    shape: [],
    data: Uint8Array.of(value),
  });
  assert.deepEqual(await logitsOf(await load([...int8, format(0)], {}, 'f32')), float);
  await refused([...int8, format(2)], `'${at}.weight_format' is 2: only rows one after the other, 0, are read`);
});
