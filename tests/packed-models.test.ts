// Models whose weights stay as their file has them: read from GGUF and safetensors into the row layout, they are the
// model that f32 loading gives: logits, fingerprint, training and generation; their memory is what the file's numbers
// take; what is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noGrad } from '../src/autograd/tape.js';
import { scope } from '../src/autograd/scope.js';
import { createCpuBackend } from '../src/backends/index.js';
import { memorySource } from '../src/io/byteSource.js';
import { openGguf } from '../src/io/gguf.js';
import { openSafetensors, writeSafetensors } from '../src/io/safetensors.js';
import { loadCausalLM, openCheckpoint, type FromPretrainedOptions } from '../src/models/auto.js';
import type { CausalLM } from '../src/models/causalLM.js';
import { getReftModel, ReftTrainer } from '../src/reft/index.js';
import { modelFingerprint } from '../src/train/fingerprint.js';
import type { Packing } from '../src/tensor/packing.js';
import { unpack } from '../src/tensor/layout.js';
import { Random } from '../src/tensor/threefry.js';
import { bytesOf, ggufBytes, type GgufTensorSpec } from './helpers/ggufBytes.js';
import { cpu, cpuPlain, referenceF32, type Machine } from './helpers/machines.js';
import { allPackings, randomPacked } from './helpers/packedWeights.js';
import { threadedMachine } from './helpers/threaded.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import { tinyIds } from './helpers/tinyModel.js';

const [hidden, intermediate, layers, vocabulary] = [64, 96, 2, 23];
const ggmlType: Readonly<Record<Packing, number>> = { f16: 1, q4_0: 2, q4_1: 3, q8_0: 8, bf16: 30 };
const shift: Readonly<Record<Packing, number>> = { f16: 3, bf16: 3, q8_0: 7, q4_0: 5, q4_1: 5 };

/**
 * A llama in GGUF with matrices in one packing after the other of the list; 4 heads of 16, 2 of them for keys and
 * values.
 */
function madeGguf(order: readonly Packing[]): Uint8Array {
  const random = new Random(9);
  let next = 0;
  const matrix = (name: string, rows: number, columns: number): GgufTensorSpec => {
    const packing = order[next++ % order.length];
    return {
      name,
      sides: [columns, rows],
      type: ggmlType[packing],
      data: randomPacked(packing, rows, columns, next, shift[packing]).stored,
    };
  };
  const norm = (name: string): GgufTensorSpec => {
    const values = Float32Array.from({ length: hidden }, () => 1 + 0.1 * random.normal());
    return { name, sides: [hidden], type: 0, data: bytesOf(values) };
  };
  return ggufBytes({
    metadata: [
      ['general.architecture', { type: 'string', value: 'llama' }],
      ['llama.vocab_size', { type: 'u32', value: vocabulary }],
      ['llama.embedding_length', { type: 'u32', value: hidden }],
      ['llama.attention.head_count', { type: 'u32', value: 4 }],
      ['llama.attention.head_count_kv', { type: 'u32', value: 2 }],
      ['llama.feed_forward_length', { type: 'u32', value: intermediate }],
      ['llama.block_count', { type: 'u32', value: layers }],
      ['llama.context_length', { type: 'u32', value: 64 }],
    ],
    tensors: [
      matrix('token_embd.weight', vocabulary, hidden),
      norm('output_norm.weight'),
      ...Array.from({ length: layers }, (_, i) => `blk.${i}`).flatMap(at => [
        norm(`${at}.attn_norm.weight`),
        matrix(`${at}.attn_q.weight`, hidden, hidden),
        matrix(`${at}.attn_k.weight`, 32, hidden),
        matrix(`${at}.attn_v.weight`, 32, hidden),
        matrix(`${at}.attn_output.weight`, hidden, hidden),
        norm(`${at}.ffn_norm.weight`),
        matrix(`${at}.ffn_gate.weight`, intermediate, hidden),
        matrix(`${at}.ffn_up.weight`, intermediate, hidden),
        matrix(`${at}.ffn_down.weight`, hidden, intermediate),
      ]),
    ],
  });
}

const open = async (bytes: Uint8Array, options: FromPretrainedOptions): Promise<CausalLM> =>
  loadCausalLM(await openCheckpoint(memorySource(bytes, 'made.gguf')), options);

function logitsOf(model: CausalLM, length = 12): Float32Array {
  return noGrad(() =>
    scope(() => model.forward({ inputIds: tinyIds(length, 4, vocabulary), shape: [1, length] }).logits.dataSync()),
  ) as Float32Array;
}

function close(actual: ArrayLike<number>, expected: ArrayLike<number>, bound: number, what: string): void {
  assert.equal(actual.length, expected.length, what);
  const largest = Math.max(...Array.from(expected, Math.abs));
  for (let i = 0; i < actual.length; i++) {
    if (!(Math.abs(actual[i] - expected[i]) <= bound * largest))
      assert.fail(`${what}: entry ${i} is ${actual[i]}, expected ${expected[i]}`);
  }
}

for (const order of [...allPackings.map(p => [p]), allPackings]) {
  test(`weights stored as ${order.join(', ')} give the logits of f32 loading`, async () => {
    const bytes = madeGguf(order);
    for (const { backend, name } of [cpu, referenceF32]) {
      const [packed, decoded] = [
        await open(bytes, { device: backend, weights: 'stored' }),
        await open(bytes, { device: backend, weights: 'f32' }),
      ];
      const parameters = new Map(decoded.namedParameters());
      for (const [parameter, t] of packed.namedParameters()) {
        const like = parameters.get(parameter);
        assert.equal(t.packing === null, t.rank === 1, parameter);
        assert.equal(like?.packing, null);
        // Equal to the bit, rows of q and k put in order included.
        scope(() => {
          assert.deepEqual(
            Array.from(unpack(t).dataSync(), x => x + 0),
            Array.from(like?.dataSync() ?? [], x => x + 0),
            parameter,
          );
        });
      }
      close(logitsOf(packed), logitsOf(decoded), 1e-5, name);
      assert.equal(await modelFingerprint(packed), await modelFingerprint(decoded), name);
      assert.equal(packed.parameterCount, decoded.parameterCount);
    }
  });
}

test('training gives the same losses however it is computed: weights stored or f32, reuse, recomputation, threads, relaxed SIMD', async () => {
  const bytes = madeGguf(allPackings);
  const machines = [cpu, cpuPlain, threadedMachine(2), threadedMachine(2, { relaxed: false })];
  const lossesOf = async (
    { backend }: Machine,
    weights: 'stored' | 'f32',
    reuse: boolean,
    recompute: boolean,
  ): Promise<number[]> => {
    const reft = getReftModel(await open(bytes, { device: backend, weights }), {
      layers: [0, 1],
      positions: 'f1+l1',
      rank: 4,
      seed: 3,
    });
    const trainer = new ReftTrainer(reft, {
      examples: tinyExamples(6),
      steps: 12,
      learningRate: 1e-2,
      reuse,
      recompute,
    });
    const found: number[] = [];
    for await (const step of trainer.steps()) found.push(step.loss);
    trainer.dispose();
    return found;
  };
  const expected = await lossesOf(referenceF32, 'f32', false, false);
  assert.equal(expected.length, 12);
  assert.ok(expected[11] < expected[0], expected.join(' '));
  for (const machine of machines) {
    for (const weights of ['stored', 'f32'] as const) {
      for (const reuse of [true, false]) {
        for (const recompute of [true, false]) {
          close(
            await lossesOf(machine, weights, reuse, recompute),
            expected,
            1e-5,
            `${machine.name}, ${weights}, reuse ${reuse}, recompute ${recompute}`,
          );
        }
      }
    }
  }
  await Promise.all(machines.slice(2).map(({ backend }) => backend.close()));
});

test('generation over packed weights is that of f32 weights', async () => {
  const bytes = madeGguf(['q4_1', 'q8_0']);
  const ids = await Promise.all(
    (['stored', 'f32'] as const).map(async weights => {
      const model = await open(bytes, { device: cpu.backend, weights });
      const generated = await model.generate(
        [
          [1, 2, 3],
          [4, 5, 6, 7],
        ],
        { maxNewTokens: 10, stopTokenIds: [] },
      );
      return generated.map(g => g.ids);
    }),
  );
  assert.deepEqual(ids[0], ids[1]);
});

test('a model takes the memory of its stored numbers, and is refused where that does not fit', async () => {
  const bytes = madeGguf(['q4_0']);
  const backend = createCpuBackend({ simd: false });
  const model = await open(bytes, { device: backend, weights: 'stored' });
  const numbers = model
    .parameters()
    .filter(t => t.rank === 2)
    .reduce((n, t) => n + t.size, 0);
  const norms = 4 * hidden * (2 * layers + 1);
  // Rows of 96 weights take 54 bytes and two of padding.
  const total = (numbers * 18) / 32 + 2 * hidden * layers + norms;
  assert.equal(
    model.parameters().reduce((n, t) => n + t.byteLength, 0),
    total,
  );
  await backend.close();
  const reports: number[] = [];
  const other = createCpuBackend({ simd: false, limitBytes: 2 ** 17 });
  await open(bytes, {
    device: other,
    weights: 'stored',
    progressCallback: ({ loaded, total: all }) => reports.push(loaded / all),
  });
  assert.equal(reports.at(-1), 1);
  await other.close();
  const small = createCpuBackend({ simd: false, limitBytes: 2 ** 17 });
  await assert.rejects(open(bytes, { device: small, weights: 'f32' }), /will not fit: the weights take \d+ MiB as f32/);
  await small.close();
});

test('halves of safetensors stay halves', async () => {
  const random = new Random(5);
  const names = ['F16', 'BF16'] as const;
  const bits = names.map(dtype =>
    Uint16Array.from(
      { length: 15 },
      () => (dtype === 'F16' ? 0x2c00 : 0x3e00) + random.integer(1024) + 0x8000 * random.integer(2),
    ),
  );
  const file = await openSafetensors(
    memorySource(
      writeSafetensors(names.map((dtype, i) => ({ name: dtype, dtype, shape: [3, 5], data: bits[i] }))),
      'made.safetensors',
    ),
  );
  for (const [i, name] of names.entries()) {
    const rows: number[] = [];
    await file.readPacked(name, (first, bytes) => {
      assert.equal(first, rows.length / 12);
      rows.push(...bytes);
    });
    // Five halves and two bytes of padding a row.
    const expected = Array.from({ length: 3 }, (_, row) => [
      ...bytesOf(bits[i].subarray(5 * row, 5 * row + 5)),
      0,
      0,
    ]).flat();
    assert.deepEqual(rows, expected);
  }
});

test('numbers that are not finite and f64 are refused', async () => {
  const broken = new Uint8Array(34 * 2);
  broken[35] = 0x7c;
  const file = await openGguf(
    memorySource(
      ggufBytes({ metadata: [], tensors: [{ name: 'w', sides: [32, 2], type: 8, data: broken }] }),
      'made.gguf',
    ),
  );
  await assert.rejects(
    file.readPacked('w', () => undefined),
    /made.gguf: tensor 'w' holds an f16 number that is not finite; load it with weights: 'f32'/,
  );
  await assert.rejects(
    open(madeGguf(['q8_0']), { device: cpu.backend, dtype: 'f64', weights: 'stored' }),
    /weights: 'stored' computes in f32, dtype is f64/,
  );
});
