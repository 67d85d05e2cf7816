// Edits in other people's files: pyreft's folders written and read, AdapterHub's read, control vectors; what does not
// fit them is refused by name.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { noGrad } from '../src/autograd/tape.js';
import { memorySource } from '../src/io/byteSource.js';
import { openGguf } from '../src/io/gguf.js';
import { writeSafetensors } from '../src/io/safetensors.js';
import { readTorchBin } from '../src/io/torchBin.js';
import { writeTorchBin } from '../src/io/torchBinWrite.js';
import { readStoredZip } from '../src/io/zipStored.js';
import { crc32, writeStoredZip } from '../src/io/zipWrite.js';
import {
  adapterHubFromFiles,
  controlVectorOf,
  formatPositions,
  getReftModel,
  kinds,
  layoutOf,
  loadEditFolder,
  pyreftFromFiles,
  pyreftToFiles,
  saveAdapter,
  type KindName,
  type ReftConfig,
  type ReftModel,
} from '../src/reft/index.js';
import { writeFolder } from '../src/reft/adapterFilesNode.js';
import type { CausalLM } from '../src/models/index.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { Random } from '../src/tensor/threefry.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const inputIds = tinyIds(7, 1);
const shape = [1, 7];
const layout = layoutOf(new Int32Array(7).fill(1), shape, [5]);
const logits = (reft: ReftModel): Tensor => noGrad(() => reft.forward({ inputIds, shape }, layout)).logits;

async function difference(a: Tensor, b: Tensor): Promise<number> {
  const [x, y] = [await a.data(), await b.data()];
  return Float64Array.from(x).reduce((most, v, i) => Math.max(most, Math.abs(v - y[i])), 0);
}
const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

describe('archives and torch files', () => {
  test('a zip holds its entries; CRC-32 is that of the standard', async () => {
    assert.equal(crc32(new TextEncoder().encode('123456789')), 0xcbf43926);
    await fc.assert(
      fc.asyncProperty(fc.dictionary(fc.string({ minLength: 1 }), fc.uint8Array()), async entries => {
        const bytes = writeStoredZip(new Map(Object.entries(entries)));
        const read = await readStoredZip(memorySource(bytes, 'x.zip'));
        assert.deepEqual([...read.keys()], Object.keys(entries));
        for (const { name, byteOffset: at, byteLength } of read.values())
          assert.deepEqual([...bytes.subarray(at, at + byteLength)], [...entries[name]]);
      }),
    );
  });

  test('a state dict comes back as it was', async () => {
    const named = fc.tuple(
      fc.string({ minLength: 1, maxLength: 9 }),
      fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(named, { maxLength: 5 }), async list => {
        const entries = [...new Map(list)].map(([name, sides], i) => ({
          name,
          dtype: 'F32' as const,
          shape: sides,
          data: Float32Array.from({ length: sides.reduce((a, b) => a * b, 1) }, (_, k) => Math.sin(i + k)),
        }));
        const read = await readTorchBin(
          memorySource(
            writeTorchBin([...entries, { name: '\u0000n', dtype: 'I64', shape: [], data: BigInt64Array.of(-7n) }]),
            'x.bin',
          ),
        );
        for (const { name, shape: sides, data } of entries) {
          const found = read.get(name) as { dtype: string; shape: number[]; data: Float32Array };
          assert.deepEqual([found.dtype, [...found.shape], [...found.data]], ['F32', sides, [...data]]);
        }
        assert.equal((read.get('\u0000n') as { data: BigInt64Array }).data[0], -7n);
      }),
      { numRuns: 40 },
    );
    assert.throws(
      () => writeTorchBin([{ name: 'a', dtype: 'F32', shape: [3], data: new Float32Array(2) }]),
      /'a' has 2 numbers, expected 3/,
    );
  });
});

describe("pyreft's folders", () => {
  const configs: ReftConfig[] = [
    ...(Object.keys(kinds) as KindName[]).map((kind): ReftConfig => ({
      kind,
      layers: [0, 2],
      positions: 'f2+l1',
      rank: 3,
    })),
    { kind: 'noreft', layers: [1], positions: 'l1', rank: 2, bias: 'inner' },
    { kind: 'loreft', layers: [0, 1], positions: 'f1+l1', rank: 2, tied: true, activation: 'gelu' },
    { kind: 'loreft', layers: [1], positions: 'l2', rank: 2, component: 'mlp_output' },
  ];

  test('every kind is written and read back to the same logits, its R orthonormal, and can be trained on (faults 4 and 5)', async () => {
    const model = await tinyModel();
    for (const [seed, config] of configs.entries()) {
      const reft = getReftModel(model, { ...config, seed });
      const files = await pyreftToFiles(reft);
      assert.deepEqual([...files.keys()].filter(name => name.startsWith('intkey_')).length, reft.interventions.length);
      const { positions, activation } = reft.configs[0];
      const again = await pyreftFromFiles(model, files, { positions: formatPositions(positions), activation });
      const what = `${config.kind}, ${String(config.positions)}`;
      assert.deepEqual(
        again.configs.map(c => [c.kind, c.rank, c.tied, c.component, c.bias]),
        reft.configs.map(c => [
          c.kind,
          c.rank,
          c.positions.type === 'ends' && c.positions.first > 0 ? c.tied : true,
          c.component,
          c.bias,
        ]),
        what,
      );
      assert.ok((await difference(logits(again), logits(reft))) < 1e-5, what);
      for (const { name, tensor } of again.trained()) assert.ok(tensor.requiresGrad, name);
    }
  });

  test('keys with dots and module paths are read; what is missing or strange is refused by file', async () => {
    const model = await tinyModel();
    const reft = getReftModel(model, { layers: [0, 2], positions: 'f1+l1', rank: 2 });
    const files = await pyreftToFiles(reft);
    const config = JSON.parse(new TextDecoder().decode(files.get('config.json'))) as {
      sorted_keys: string[];
      representations: unknown[][];
      intervention_types: string[];
    };
    const renamed = (
      rename: (key: string) => string,
      representation: (r: unknown[]) => unknown[] = r => r,
    ): Map<string, Uint8Array> =>
      new Map([
        [
          'config.json',
          json({
            ...config,
            sorted_keys: config.sorted_keys.map(rename),
            representations: config.representations.map(representation),
          }),
        ],
        ...config.sorted_keys.map((key): [string, Uint8Array] => [
          `intkey_${rename(key)}.bin`,
          files.get(`intkey_${key}.bin`) as Uint8Array,
        ]),
      ]);
    const expected = logits(reft);
    const positions = 'f1+l1';
    assert.ok(
      (await difference(
        logits(
          await pyreftFromFiles(
            model,
            renamed(key => key.replaceAll('_', '.').replace('block.output', 'block_output')),
            { positions },
          ),
        ),
        expected,
      )) < 1e-5,
      'await difference(logits(await pyreftFromFiles(model, renamed(key =>...',
    );
    const paths = renamed(
      key => key.replace(/layer_(\d)_comp_block_output/, 'comp_model_layers[$1]_output'),
      ([layer, , ...rest]) => [layer, `model.layers[${Number(layer)}].output`, ...rest],
    );
    assert.ok(
      (await difference(logits(await pyreftFromFiles(model, paths, { positions })), expected)) < 1e-5,
      'await difference(logits(await pyreftFromFiles(model, paths, { posit...',
    );

    const broken = async (change: (c: typeof config) => object, message: RegExp): Promise<void> => {
      await assert.rejects(
        pyreftFromFiles(
          model,
          new Map([...files, ['config.json', json(change(structuredClone(config)))]]),
          { positions },
          'dir',
        ),
        message,
      );
    };
    await broken(
      c => ({
        ...c,
        intervention_types: c.intervention_types.map(() => "<class 'pyreft.interventions.OtherIntervention'>"),
      }),
      /^FormatError: dir\/config\.json: interventions of type .*Other.* cannot be read/,
    );
    await broken(c => ({ ...c, sorted_keys: c.sorted_keys.slice(1) }), /has 3 keys, 4 types and 4 representations/);
    await broken(c => ({ ...c, sorted_keys: ['../../x', ...c.sorted_keys.slice(1)] }), /must not hold a path/);
    await broken(
      c => ({ ...c, representations: c.representations.map(([, ...rest]) => [9, ...rest]) }),
      /the model has layers 0\.\.2/,
    );
    await assert.rejects(
      pyreftFromFiles(model, new Map([...files].slice(1)), { positions }, 'dir'),
      /^FormatError: dir: has no intkey_/,
    );
    await assert.rejects(pyreftFromFiles(model, files, { positions: 'l1' }), /positions must name both, like f7\+l7/);
    const [first] = config.sorted_keys.map(key => `intkey_${key}.bin`);
    await assert.rejects(
      pyreftFromFiles(model, new Map([...files, [first, new Uint8Array(40)]]), { positions }, 'dir'),
      /^FormatError: dir\/intkey_/,
    );
  });

  test('edits that pyreft has no place for are refused', async () => {
    const model = await tinyModel();
    const refused = (config: ReftConfig, message: RegExp): Promise<void> =>
      assert.rejects(pyreftToFiles(getReftModel(model, config)), message);
    await refused(
      { layers: [1], rank: 1, scale: 2 },
      /^RangeError: block_output\/1: pyreft has no scale, so it cannot be written for pyreft$/,
    );
    await refused({ layers: [1], rank: 1, kind: 'gated' }, /pyreft has no gated/);
    await refused({ layers: [1], rank: 1, component: 'query_output', heads: [1] }, /it edits a single head/);
    await refused({ component: 'embeddings', rank: 1 }, /pyvene has no component embeddings/);
  });
});

describe("AdapterHub's folders", () => {
  /** As `adapters` saves them, from a set of edits. */
  async function adapterHubFiles(
    model: CausalLM,
    config: ReftConfig,
    binary: boolean,
  ): Promise<{ files: Map<string, Uint8Array>; reft: ReftModel }> {
    const reft = getReftModel(model, config);
    const [{ positions: ends, tied, rank, kind, layers, activation }] = reft.configs;
    assert.ok(ends.type === 'ends', "ends.type === 'ends'");
    const entries: { name: string; dtype: 'F32'; shape: readonly number[]; data: Float32Array }[] = [];
    for (const { interventions } of [reft]) {
      for (const i of interventions) {
        const unit = !tied && (i.side === 'suffix' || ends.first === 0) ? 1 : 0;
        const at = `model.layers.${i.site.layer}.reft_layer.refts.mine.units.${unit}`;
        const p = noGrad(() => i.parameters());
        const add = async (name: string, t: Tensor): Promise<void> =>
          void entries.push({
            name: `${at}.${name}`,
            dtype: 'F32',
            shape: t.shape,
            data: Float32Array.from(await t.data()),
          });
        await add('learned_source.weight', p.W ?? p.W1);
        await add('learned_source.bias', p.b);
        if (!p.R) await add('projection.weight', p.W2);
        else if (kind === 'direftOrthogonal') await add('projection.weight', p.R);
        else {
          // torch's parametrization of a wide matrix: of its transpose, X = -I and the rows of R as columns of the
          // base.
          const width = p.R.shape[1];
          const { torchHouseholder } = await import('../src/nn/orthogonal/torchHouseholder.js');
          const {
            parameters: { original, base },
          } = torchHouseholder.initial(p.R.detach());
          await add('projection.parametrizations.weight.original', original.transpose().contiguous());
          await add('projection.parametrizations.weight.0.base', base);
          assert.deepEqual(base.shape, [width, width]);
        }
      }
    }
    const hub = {
      model_type: 'llama',
      hidden_size: 16,
      name: 'mine',
      version: 'adapters.1.2.0',
      config: {
        architecture: 'reft',
        layers: [...layers],
        prefix_positions: ends.first,
        suffix_positions: ends.last,
        r: rank,
        orthogonality: kind !== 'noreft' && kind !== 'direft',
        tied_weights: tied,
        subtract_projection: kind === 'loreft' || kind === 'noreft',
        dropout: 0.05,
        non_linearity: activation === 'linear' ? null : 'gelu_new',
        output_reft: true,
        dtype: null,
      },
    };
    const weights: [string, Uint8Array] = binary
      ? ['pytorch_adapter.bin', writeTorchBin(entries)]
      : ['adapter.safetensors', writeSafetensors(entries)];
    return { reft, files: new Map([['adapter_config.json', json(hub)], weights]) };
  }

  test('every kind of unit, tied and not, from both kinds of files', async () => {
    const model = await tinyModel();
    const configs: ReftConfig[] = [
      { layers: [0, 2], positions: 'f2+l1', rank: 2 },
      { layers: [1], positions: 'f2+l2', rank: 1, tied: true },
      { layers: [0], positions: 'f3', rank: 2, activation: 'gelu_tanh' },
      { kind: 'noreft', layers: [1, 2], positions: 'f1', rank: 3, bias: 'inner' },
      { kind: 'direft', layers: [1], positions: 'l2', rank: 2 },
      { kind: 'direftOrthogonal', layers: [1], positions: 'f1+l1', rank: 2 },
    ];
    for (const [i, config] of configs.entries()) {
      const { reft, files } = await adapterHubFiles(model, { ...config, seed: i }, i % 2 === 0);
      const read = await adapterHubFromFiles(model, files);
      assert.ok(
        (await difference(logits(read), logits(reft))) < 1e-5,
        `${config.kind ?? 'loreft'} ${String(config.positions)}`,
      );
      assert.deepEqual(
        [read.configs[0].kind, read.configs[0].dropout, read.configs[0].dropoutOn],
        [config.kind ?? 'loreft', 0.05, 'state'],
      );
    }
  });

  test('what is wrong is named', async () => {
    const model = await tinyModel();
    const { files } = await adapterHubFiles(model, { layers: [1], positions: 'f1', rank: 2 }, false);
    const parsed = JSON.parse(new TextDecoder().decode(files.get('adapter_config.json'))) as { config: object };
    const refused = async (change: object, message: RegExp): Promise<void> => {
      await assert.rejects(
        adapterHubFromFiles(model, new Map([...files, ['adapter_config.json', json({ ...parsed, ...change })]]), 'hub'),
        message,
      );
    };
    await refused(
      { hidden_size: 32 },
      /^FormatError: hub\/adapter_config\.json: was trained on hidden states of 32; .* has 16/,
    );
    await refused({ config: { ...parsed.config, architecture: 'lora' } }, /config\.architecture/);
    await refused({ config: { ...parsed.config, layers: [0] } }, /has no weights for unit 0 of layer 0/);
    await refused({ config: { ...parsed.config, non_linearity: 'swoosh' } }, /non_linearity 'swoosh' is not known/);
    await refused({ config: { ...parsed.config, r: 3 } }, /expected shape/);
    await assert.rejects(
      adapterHubFromFiles(model, new Map([...files].slice(0, 1)), 'hub'),
      /hub: has neither adapter\.safetensors nor pytorch_adapter\.bin/,
    );
  });
});

test('a folder of any format is told from its files', async () => {
  const model = await tinyModel();
  const folder = await mkdtemp(join(tmpdir(), 'reft-formats-'));
  try {
    const reft = getReftModel(model, { layers: [1], positions: 'l1', rank: 2 });
    await saveAdapter(reft, join(folder, 'own'));
    await writeFolder(join(folder, 'pyreft'), await pyreftToFiles(reft));
    await writeFolder(join(folder, 'none'), new Map([['readme.txt', new Uint8Array(1)]]));
    for (const name of ['own', 'pyreft']) {
      const found = await loadEditFolder(model, join(folder, name));
      assert.equal(found.format, name === 'own' ? 'reft' : 'pyreft');
      assert.ok(
        (await difference(logits(found.reft), logits(reft))) < 1e-5,
        'await difference(logits(found.reft), logits(reft)) < 1e-5',
      );
    }
    await assert.rejects(loadEditFolder(model, join(folder, 'none')), /holds no edits: expected adapter_config\.json/);
    await assert.rejects(loadEditFolder(model, join(folder, 'nowhere')), /^FormatError: .*nowhere: cannot be read/);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

describe('control vectors', () => {
  test('lobireft and addition at every token are directions that give the same logits', async () => {
    const model = await tinyModel();
    for (const kind of ['lobireft', 'addition']) {
      const reft = getReftModel(model, { kind, layers: [1, 2], positions: 'all', rank: 2, scale: 1.5 });
      const random = new Random(3);
      for (const { tensor } of reft.trained().filter(t => /\.(s|v)$/.test(t.name))) {
        tensor.backend.write(
          tensor.storage.allocation,
          0,
          Float32Array.from({ length: tensor.size }, () => random.normal()),
        );
      }
      const file = await openGguf(memorySource(await controlVectorOf(reft), 'v.gguf'));
      assert.deepEqual(
        [
          file.metadata['general.architecture'],
          file.metadata['controlvector.model_hint'],
          file.metadata['controlvector.layer_count'],
        ],
        ['controlvector', 'llama', 2],
      );
      assert.deepEqual([...file.tensors.keys()], ['direction.1', 'direction.2']);
      const { create } = await import('../src/tensor/create.js');
      const edits = await Promise.all(
        [1, 2].map(async layer => {
          const v = create.from(await file.readFloat32(`direction.${layer}`), [16], { backend: model.backend });
          return { site: { layer, component: 'block_output' as const }, apply: (h: Tensor) => h.add(v) };
        }),
      );
      assert.ok(
        (await difference(noGrad(() => model.forward({ inputIds, shape, edits })).logits, logits(reft))) < 1e-5,
        kind,
      );
    }
  });

  test('anything else is refused', async () => {
    const model = await tinyModel();
    const refused = (config: ReftConfig, message: RegExp): Promise<void> =>
      assert.rejects(controlVectorOf(getReftModel(model, config)), message);
    await refused(
      { layers: [1], positions: 'all', rank: 1 },
      /^RangeError: block_output\/1: loreft does more than add a vector, so it is no control vector$/,
    );
    await refused({ kind: 'lobireft', layers: [1], positions: 'l1', rank: 1 }, /does not edit every token/);
    await refused(
      { kind: 'lobireft', layers: [1], positions: 'all', newTokens: 'none', rank: 1 },
      /does not edit every token/,
    );
    await refused({ kind: 'lobireft', layers: [0], positions: 'all', rank: 1 }, /no control vector for block 0/);
    await refused(
      { kind: 'lobireft', layers: [1], positions: 'all', rank: 1, component: 'mlp_output' },
      /edits mlp_output, not block outputs/,
    );
    await refused(
      { kind: 'lobireft', layers: [1], positions: 'all', rank: 1, activation: 'gelu' },
      /has the activation gelu/,
    );
  });
});
