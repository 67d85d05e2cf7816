// Adapter files: what is saved comes back, the same edits give the same bytes, and bytes that are wrong are refused by
// name.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { noGrad } from '../src/autograd/tape.js';
import { scope } from '../src/autograd/scope.js';
import { FormatError } from '../src/io/errors.js';
import { memorySource } from '../src/io/byteSource.js';
import { openSafetensors, writeSafetensors, type SafetensorsEntry } from '../src/io/safetensors.js';
import {
  adapterFromFiles,
  adapterToFiles,
  getReftModel,
  kinds,
  layoutOf,
  loadReft,
  modelFingerprint,
  ReftTrainer,
  saveAdapter,
  type ReftConfig,
  type ReftModel,
} from '../src/reft/index.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

/** Logits of a fixed prompt with edits. */
function logits(reft: ReftModel): Float32Array {
  const inputIds = tinyIds(8, 5);
  const layout = layoutOf(new Int32Array(8).fill(1), [1, 8], [8]);
  return noGrad(() => scope(() => reft.forward({ inputIds, shape: [1, 8] }, layout).logits.dataSync() as Float32Array));
}

const furthest = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i])));

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'reft-adapter-'));
  try {
    await body(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

const everything: ReftConfig = {
  layers: [0, 2],
  positions: 'f2+l1',
  rank: 3,
  component: 'mlp_output',
  activation: 'gelu',
  dropout: 0.25,
  scale: 0.5,
  orthogonal: 'torch',
  seed: 9,
  bias: false,
};

describe('an adapter that is saved and loaded', () => {
  test('edits as before, for every kind and with everything set (fault 4)', async () => {
    const base = await tinyModel();
    const configs: (ReftConfig | ReftConfig[])[] = [
      ...Object.keys(kinds).map((kind): ReftConfig => ({
        kind: kind as keyof typeof kinds,
        layers: [1],
        positions: 'l2',
        rank: 2,
      })),
      everything,
      [
        { layers: [0], tied: true, positions: 'f1+l1' },
        { kind: 'direft', layers: 'all', positions: 'all', component: 'attention_output' },
      ],
    ];
    for (const config of configs) {
      const reft = getReftModel(base, config);
      reft.interventions[0].scale = 0.75;
      const loaded = await adapterFromFiles(base, await adapterToFiles(reft), {
        onWarning: message => assert.fail(message),
      });
      assert.deepEqual(loaded.configs, reft.configs);
      assert.equal(loaded.interventions[0].scale, 0.75);
      assert.ok(furthest(logits(loaded), logits(reft)) < 1e-5, 'furthest(logits(loaded), logits(reft)) < 1e-5');
      reft.interventions.forEach((intervention, i) => {
        const [before, after] = [intervention, loaded.interventions[i]].map(x => noGrad(() => x.parameters()));
        assert.deepEqual(Object.keys(after), Object.keys(before));
        for (const name of Object.keys(before)) {
          assert.equal(after[name].dtype, 'f32');
          assert.ok(
            furthest(after[name].dataSync(), before[name].dataSync()) <= (name === 'R' ? 1e-6 : 0),
            `${intervention.id}.${name}`,
          );
        }
      });
    }
  });

  test('the same seed gives the same bytes; another seed does not', async () => {
    const [base, same] = [await tinyModel(), await tinyModel()];
    const bytes = async (model: typeof base, seed: number): Promise<unknown> => [
      ...(await adapterToFiles(getReftModel(model, { ...everything, seed }))),
    ];
    assert.deepEqual(await bytes(base, 1), await bytes(same, 1));
    assert.notDeepEqual(await bytes(base, 1), await bytes(base, 2));
  });

  test('goes on training orthonormal (fault 5)', async () => {
    for (const orthogonal of ['householder', 'torch'] as const) {
      const base = await tinyModel();
      const first = getReftModel(base, { layers: [1], rank: 4, orthogonal });
      await new ReftTrainer(first, { examples: tinyExamples(4), steps: 10, learningRate: 3e-2 }).train();
      const loaded = await adapterFromFiles(base, await adapterToFiles(first));
      await new ReftTrainer(loaded, { examples: tinyExamples(4), steps: 50, learningRate: 3e-2 }).train();
      const { R } = noGrad(() => loaded.interventions[0].parameters());
      const product = noGrad(() => R.matmulT(R).dataSync());
      product.forEach((x, k) => {
        assert.ok(Math.abs(x - (k % 5 === 0 ? 1 : 0)) < 1e-5, 'Math.abs(x - (k % 5 === 0 ? 1 : 0)) < 1e-5');
      });
    }
  });

  test('as a folder: written over an older one, other files left alone', async () => {
    await withFolder(async folder => {
      const base = await tinyModel();
      const directory = join(folder, 'a', 'b');
      await getReftModel(base, { layers: [0], rank: 1 }).save(directory);
      await writeFile(join(directory, 'notes.txt'), 'mine');
      const reft = getReftModel(base, { layers: [1], rank: 2 });
      await saveAdapter(reft, directory);
      assert.deepEqual((await readdir(directory)).sort(), [
        'README.md',
        'adapter_config.json',
        'adapter_model.safetensors',
        'notes.txt',
      ]);
      assert.ok(
        furthest(logits(await loadReft(base, directory)), logits(reft)) < 1e-5,
        'furthest(logits(await loadReft(base, directory)), logits(reft)) < 1e-5',
      );
      const readme = await readFile(join(directory, 'README.md'), 'utf8');
      assert.match(readme, /^---\nbase_model: "tiny"/);
      assert.match(
        readme,
        /\| loreft \| `h' = h \+ R\^T \(act\(W h \+ b\) - R h\)` \| block_output \| 1 \| l1 \| 2 \|/,
      );
    });
  });

  test('in a fingerprint: the same in f32 and f64, another for other weights', async () => {
    const fingerprints = await Promise.all(
      [tinyModel(), tinyModel({ dtype: 'f64' }), tinyModel({ seed: 2 })].map(async m => modelFingerprint(await m)),
    );
    assert.match(fingerprints[0], /^sha256:[0-9a-f]{64}$/);
    assert.equal(fingerprints[1], fingerprints[0]);
    assert.notEqual(fingerprints[2], fingerprints[0]);
  });

  test('on other weights of the same sizes it warns, on other sizes it is refused', async () => {
    const files = await adapterToFiles(getReftModel(await tinyModel(), { layers: [1] }));
    const told: string[] = [];
    await adapterFromFiles(await tinyModel({ seed: 2 }), files, { onWarning: message => told.push(message) });
    assert.equal(told.length, 1);
    assert.match(told[0], /was trained on other weights \(tiny\) than those of tiny/);
    await assert.rejects(
      adapterFromFiles(await tinyModel({ layers: 4 }), files),
      /^FormatError: .*was trained on tiny \(3 layers of 16\); tiny has 4 layers of 16$/,
    );
  });
});

describe('adapter files that are wrong', () => {
  async function refused(
    change: (files: Map<string, Uint8Array>) => Promise<void> | void,
    message: RegExp,
  ): Promise<void> {
    const base = await tinyModel();
    const files = await adapterToFiles(getReftModel(base, { layers: [1], rank: 2 }));
    await change(files);
    await assert.rejects(adapterFromFiles(base, files, { source: 'x' }), error => {
      assert.ok(error instanceof FormatError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
  interface Config extends Record<string, unknown> {
    configs: Record<string, unknown>[];
    interventions: Record<string, unknown>[];
  }
  const configured = (message: RegExp, change: (config: Config) => void): Promise<void> =>
    refused(files => {
      const config = JSON.parse(new TextDecoder().decode(files.get('adapter_config.json'))) as Config;
      change(config);
      files.set('adapter_config.json', new TextEncoder().encode(JSON.stringify(config)));
    }, message);
  const stored = (message: RegExp, change: (entries: Record<string, SafetensorsEntry>) => void): Promise<void> =>
    refused(async files => {
      const file = await openSafetensors(memorySource(files.get('adapter_model.safetensors')!, 'm'));
      const entries: Record<string, SafetensorsEntry> = {};
      for (const { name, shape } of file.tensors.values())
        entries[name] = { name, dtype: 'F32', shape, data: await file.readFloat32(name) };
      change(entries);
      files.set('adapter_model.safetensors', writeSafetensors(Object.values(entries)));
    }, message);

  test('are refused with what is wrong', async () => {
    await refused(files => {
      files.delete('adapter_model.safetensors');
    }, /^x: has no adapter_model\.safetensors$/);
    await refused(files => {
      files.set('adapter_config.json', new TextEncoder().encode('[]'));
    }, /adapter_config\.json: the configuration must be a JSON object/);
    await configured(/format_version/, c => {
      c.format_version = 2;
    });
    await configured(/it: Unrecognized key: "x"/, c => {
      c.x = 1;
    });
    await configured(/configs\[0\]: layers: 3 is out of range/, c => {
      c.configs[0].layers = [3];
    });
    await configured(/configs\[0\]: intervention 'toString' is not known/, c => {
      c.configs[0].kind = 'toString';
    });
    await configured(/'block_output\/1\.R' is F32 \[2,16\], expected F32 \[16,16\]/, c => {
      c.configs[0].rank = 16;
    });
    await configured(/interventions: expected block_output\/1, got block_output\/0/, c => {
      c.interventions[0].id = 'block_output/0';
    });
    await configured(/expected block_output\/1, block_output\/1, got block_output\/1/, c => {
      c.configs.push(c.configs[0]);
    });
    await stored(/has no tensor 'block_output\/1\.W'/, e => {
      delete e['block_output/1.W'];
    });
    await stored(/has a tensor 'more' that the configuration does not know/, e => {
      e.more = { name: 'more', dtype: 'F32', shape: [1], data: Float32Array.of(1) };
    });
    await stored(/'block_output\/1\.b' has numbers that are not finite/, e => {
      e['block_output/1.b'].data[0] = NaN;
    });
    await stored(/'block_output\/1\.R' must have orthonormal rows: rows 0 and 0 are off by/, e => {
      e['block_output/1.R'].data[0] = 3;
    });
  });

  test('a folder without an adapter is named', async () => {
    await withFolder(async folder => {
      await assert.rejects(
        loadReft(await tinyModel(), join(folder, 'none')),
        /^FormatError: .*none.adapter_config\.json: cannot be read: ENOENT/,
      );
    });
  });
});
