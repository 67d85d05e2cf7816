// Damaged files: 2,000 seeded mutations of each format must parse, and then give all their values, or throw a
// FormatError; memory grows by less than 100 MB. tokenizer.json and config.json, too. FC_SEED and FC_RUNS choose other
// ones; a failure prints the seed that repeats it alone.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { memorySource } from '../src/io/byteSource.js';
import { FormatError } from '../src/io/errors.js';
import { openGguf } from '../src/io/gguf.js';
import { openLlama2c } from '../src/io/llama2c.js';
import { openMarian } from '../src/io/marian.js';
import { openSafetensors, openShardedSafetensors, writeSafetensors } from '../src/io/safetensors.js';
import type { TensorFile } from '../src/io/tensorFile.js';
import { tokenizerFromFiles } from '../src/io/tokenizerJson.js';
import { tokenizerFromSentencePiece } from '../src/io/tokenizerSentencePiece.js';
import { configFromHF } from '../src/models/families/index.js';
import { readTorchBin } from '../src/io/torchBin.js';
import { bytesOf, ggufBytes, smallGguf } from './helpers/ggufBytes.js';
import type { GgufSpec } from './helpers/ggufBytes.js';
import { llama2cBytes } from './helpers/llama2cBytes.js';
import { marianBytes, settings, smallMarian, type MarianItem } from './helpers/marianBytes.js';
import { below, join, mutateBytes, mutateJson, pick, seededRandom } from './helpers/mutate.js';
import { dictPickle, tensorPickle, torchBytes } from './helpers/torchBytes.js';

const runs = Number(process.env['FC_RUNS'] ?? 2000);
const firstSeed = Number(process.env['FC_SEED'] ?? 20_240_404);
const fixture = (name: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`fixtures/io/${name}`, import.meta.url)));
const utf8 = new TextEncoder();

/** Reads every tensor in every way; whole-number reads of float types are FormatErrors by themselves. */
async function readAll(file: TensorFile): Promise<void> {
  for (const [name, tensor] of file.tensors) {
    const count = tensor.shape.reduce((product, side) => product * side, 1);
    assert.equal((await file.readFloat32(name)).length, count);
    assert.equal((await file.readFloat64(name)).length, count);
    assert.equal((await file.readBytes(name)).length, tensor.byteLength);
    if (/^(I\d|U|BOOL)/.test(tensor.dtype)) await file.readInt32(name).catch(onlyFormatError);
  }
  await file.close();
}

function onlyFormatError(error: unknown): void {
  if (!(error instanceof FormatError)) throw error;
}

/** Runs `attempt` once a seed. Both outcomes must occur, or the damage is not the kind that tests anything. */
function damaged(format: string, attempt: (next: () => number) => Promise<void>): void {
  test(`damaged ${format}: parses or FormatError`, async () => {
    const before = process.memoryUsage().rss;
    let peak = before;
    let refused = 0;
    for (let run = 0; run < runs; run++) {
      const seed = firstSeed + run;
      try {
        await attempt(seededRandom(seed));
      } catch (error) {
        if (!(error instanceof FormatError)) {
          throw new Error(
            `damaged ${format}: FC_SEED=${seed} FC_RUNS=1 threw ${String(error)}, expected a FormatError`,
            { cause: error },
          );
        }
        refused++;
      }
      if (run % 10 === 0) peak = Math.max(peak, process.memoryUsage().rss);
    }
    const grown = (peak - before) / 2 ** 20;
    assert.ok(grown < 100, `memory grew by ${grown.toFixed(1)} MB (FC_SEED=${firstSeed} FC_RUNS=${runs})`);
    if (runs >= 500) assert.ok(refused > runs / 4 && refused < runs, `${refused} of ${runs} refused`);
  });
}

const sample = writeSafetensors(
  [
    { name: 'f32', dtype: 'F32', shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) },
    { name: 'f64', dtype: 'F64', shape: [], data: Float64Array.of(0.1) },
    { name: 'f16', dtype: 'F16', shape: [3], data: Uint16Array.of(0x3c00, 0xc000, 0x7c00) },
    { name: 'bf16', dtype: 'BF16', shape: [1, 2], data: Uint16Array.of(0x3f80, 0xff80) },
    { name: 'i64', dtype: 'I64', shape: [2], data: BigInt64Array.of(-1n, 1n << 40n) },
    { name: 'i32', dtype: 'I32', shape: [2], data: Int32Array.of(-1, 7) },
    { name: 'bool', dtype: 'BOOL', shape: [3], data: Uint8Array.of(1, 0, 1) },
    { name: 'empty', dtype: 'F32', shape: [0, 4], data: new Float32Array() },
  ],
  { format: 'pt' },
);

function splitSafetensors(bytes: Uint8Array): { json: string; data: Uint8Array } {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  return { json: new TextDecoder().decode(bytes.subarray(8, 8 + length)), data: bytes.slice(8 + length) };
}

damaged('safetensors', async next => {
  const original = next() < 0.7 ? sample : fixture('prefix.safetensors');
  const { json, data } = splitSafetensors(original);
  let bytes: Uint8Array;
  if (next() < 0.4) bytes = mutateBytes(original, next, original.length - data.length);
  else {
    const header = utf8.encode(mutateJson(json, next));
    const length = new DataView(new ArrayBuffer(8));
    length.setBigUint64(0, BigInt(header.length), true);
    bytes = join(new Uint8Array(length.buffer), header, data);
  }
  await readAll(await openSafetensors(memorySource(bytes, 'damaged.safetensors')));
});

damaged('safetensors index', async next => {
  const json = JSON.stringify({
    metadata: { total_size: 1000 },
    weight_map: { f32: 'model-1.safetensors', i64: 'model-1.safetensors', prompt_embeddings: 'model-2.safetensors' },
  });
  const index = next() < 0.6 ? utf8.encode(mutateJson(json, next)) : mutateBytes(utf8.encode(json), next, json.length);
  const first = next() < 0.9 ? sample : mutateBytes(sample, next, 600);
  const shards: Record<string, Uint8Array> = {
    'model-1.safetensors': first,
    'model-2.safetensors': fixture('prefix.safetensors'),
  };
  const file = await openShardedSafetensors(memorySource(index, 'damaged.index.json'), async name => {
    if (!Object.hasOwn(shards, name)) throw new Error(`ENOENT: no such file '${name}'`);
    return memorySource(shards[name], name);
  });
  await readAll(file);
});

const smallSpec = smallGguf();
const ggufOriginal = ggufBytes(smallSpec);
const oddCounts = [0n, 1n, 31n, 33n, 64n, 1n << 20n, 1n << 32n, 1n << 40n, (1n << 48n) + 1n, (1n << 64n) - 1n];

/** A GGUF whose header is whole and says something odd. */
function oddGguf(next: () => number): Uint8Array {
  const tensors = [...smallSpec.tensors];
  const metadata = [...smallSpec.metadata];
  const at = below(next, tensors.length);
  const spec: { -readonly [K in keyof GgufSpec]: GgufSpec[K] } = { ...smallSpec, tensors, metadata };
  switch (below(next, 9)) {
    case 0:
      spec.version = pick(next, [0, 1, 2, 4, 0x03000000, 0xffffffff]);
      break;
    case 1:
      spec.tensorCount = pick(next, oddCounts);
      break;
    case 2:
      spec.keyCount = pick(next, oddCounts);
      break;
    case 3:
      tensors[at] = { ...tensors[at], sides: [...tensors[at].sides, pick(next, oddCounts)] };
      break;
    case 4:
      tensors[at] = { ...tensors[at], sides: Array.from({ length: below(next, 7) }, () => pick(next, oddCounts)) };
      break;
    case 5:
      tensors[at] = { ...tensors[at], type: below(next, 45) };
      break;
    case 6:
      tensors[at] = { ...tensors[at], offset: pick(next, oddCounts) };
      break;
    case 7:
      tensors[at] = { ...tensors[at], name: pick(next, [tensors[0].name, '__proto__', '', 'x'.repeat(5000)]) };
      break;
    default:
      metadata.push([
        'odd',
        { type: 'array', of: pick(next, ['u8', 'string', 'array', 'f64']), value: [], count: pick(next, oddCounts) },
      ]);
      if (next() < 0.5)
        metadata.push(['general.alignment', { type: 'i32', value: pick(next, [0, -1, 3, 8, 1 << 30]) }]);
      if (next() < 0.5) spec.metadata = metadata.filter(([key], i) => key !== 'general.alignment' || i > 5);
  }
  return ggufBytes(spec);
}

damaged('GGUF', async next => {
  const bytes = next() < 0.5 ? oddGguf(next) : mutateBytes(ggufOriginal, next, 900);
  await readAll(await openGguf(memorySource(bytes, 'damaged.gguf')));
});

damaged('llama2.c checkpoint', async next => {
  const bytes = llama2cBytes({ vocabulary: next() < 0.5 ? 11 : -11 });
  const odd = [0, -1, 1, 2, 3, 4, 8, 1 << 20, 2 ** 31 - 1, -(2 ** 31), 0x616b3432];
  if (next() < 0.5) {
    const view = new DataView(bytes.buffer);
    for (let fields = below(next, 3); fields >= 0; fields--) view.setInt32(4 * below(next, 7), pick(next, odd), true);
  }
  const damage = next() < 0.5 ? bytes : mutateBytes(bytes, next, next() < 0.5 ? 28 : bytes.length);
  await readAll(await openLlama2c(memorySource(damage, 'damaged.bin')));
});

const marianSettingsText = 'type: transformer\ndim-emb: 2\ndim-vocabs:\n  - 4\n  - 4\nversion: v1.9.56 94aeaa46\n';

damaged('marian model', async next => {
  const items = smallMarian();
  const at = below(next, items.length);
  const item: { -readonly [K in keyof MarianItem]: MarianItem[K] } = { ...items[at] };
  let bytes: Uint8Array;
  switch (below(next, 6)) {
    case 0:
      item.dataBytes = pick(next, oddCounts);
      break;
    case 1:
      item.shape = Array.from({ length: below(next, 10) }, () => pick(next, [0, 1, 2, 4, -1, 1 << 20, 2 ** 31 - 1]));
      break;
    case 2:
      item.type = pick(next, [0, 0x101, 0x201, 0x402, 0x404, 0x408, 0x4101, 0x4102, 0xffff]);
      break;
    case 3:
      item.name = pick(next, ['Wemb', '__proto__', '', 'x'.repeat(2000), 'special:model.yml']);
      break;
    default:
      items[3] = settings(
        new TextDecoder().decode(mutateBytes(utf8.encode(marianSettingsText), next, marianSettingsText.length)),
      );
  }
  if (at !== 3 || items[3].name !== item.name) items[at] = item;
  bytes = marianBytes({ items, ...(next() < 0.1 ? { count: pick(next, oddCounts) } : {}) });
  if (next() < 0.5) bytes = mutateBytes(bytes, next, 400);
  await readAll(await openMarian(memorySource(bytes, 'damaged.bin')));
});

const torchFiles = ['loreft.bin', 'loreft-shared.bin', 'nodireft.bin'].map(fixture);
const smallStorage = bytesOf(Float32Array.of(1, 2, 3, 4, 5, 6));
const smallPickle = dictPickle([
  ['a', tensorPickle('FloatStorage', '0', 6, 0, [2, 3], [3, 1])],
  ['b', tensorPickle('FloatStorage', '0', 6, 1, [2, 2], [1, 3])],
  ['c', [0x4b, 7]],
]);

damaged('torch file', async next => {
  let bytes: Uint8Array;
  if (next() < 0.5) {
    const pickle = mutateBytes(Uint8Array.from(smallPickle), next, smallPickle.length);
    bytes = torchBytes([...pickle], { 0: next() < 0.9 ? smallStorage : smallStorage.slice(4) });
  } else {
    const original = pick(next, torchFiles);
    // Half of the damage goes to the directory at the end.
    const reversed = next() < 0.5;
    bytes = mutateBytes(reversed ? original.slice().reverse() : original, next, reversed ? 1000 : 700);
    if (reversed) bytes.reverse();
  }
  for (const value of (await readTorchBin(memorySource(bytes, 'damaged.bin'))).values()) {
    if (typeof value !== 'object' || value === null) continue;
    assert.equal(
      value.data.length,
      value.shape.reduce((product, side) => product * side, 1),
    );
  }
});

const tokenizerParts = JSON.parse(
  readFileSync(new URL('fixtures/tokenizer/bpe/tokenizer.json', import.meta.url), 'utf8'),
) as Record<string, unknown>;
const { model: vocabulary, added_tokens: added, ...components } = tokenizerParts;
const smallTokenizer = JSON.stringify({ ...components, added_tokens: (added as unknown[]).slice(0, 4) });
const parsedOr = (text: string): Record<string, unknown> | null => {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return null;
  }
};

damaged('tokenizer.json', async next => {
  const text = mutateJson(smallTokenizer, next);
  const json = parsedOr(text);
  const tokenizerJson = json ? JSON.stringify({ ...json, model: vocabulary }) : text;
  const tokenizer = tokenizerFromFiles({ tokenizerJson }, 'damaged/tokenizer.json');
  tokenizer.decode(tokenizer.encode('Hello, world 12\n ok'));
});

const sentencePiece = ['unigram', 'bytes'].map(
  name => new Uint8Array(readFileSync(new URL(`fixtures/tokenizer/sentencepiece/${name}.model`, import.meta.url))),
);

damaged('SentencePiece model', async next => {
  const original = pick(next, sentencePiece);
  const bytes = mutateBytes(original, next, original.length);
  const tokenizer = tokenizerFromSentencePiece(bytes, 'damaged.spm');
  try {
    tokenizer.decode(tokenizer.encode('The lamp\n turns, 12', { splitSpecialTokens: true }));
  } catch (error) {
    // Tables are followed when a text is normalized: one that leads outside itself is found out then.
    assert.match(String(error), /^Error: damaged\.spm: normalizer: Precompiled: /);
  }
});

const config = JSON.stringify({
  model_type: 'llama',
  vocab_size: 300,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: true,
  eos_token_id: [1, 2],
  hidden_act: 'silu',
  rope_scaling: {
    rope_type: 'llama3',
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 64,
  },
});

damaged('config.json', async next => {
  const json = parsedOr(mutateJson(config, next));
  if (!json) throw new FormatError('damaged/config.json', 'is not JSON');
  const { headDim, layers } = configFromHF(json, 'damaged/config.json');
  assert.equal(headDim % 2, 0);
  assert.equal(Number.isInteger(layers), true);
});
