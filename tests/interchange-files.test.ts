// Interchange interventions as files, activation patching against runs by hand, and heat maps.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { scope } from '../src/autograd/scope.js';
import { createCpuBackend } from '../src/backends/index.js';
import { noGrad } from '../src/autograd/tape.js';
import { FormatError } from '../src/io/errors.js';
import {
  activationPatching,
  getInterchangeModel,
  heatMap,
  interchangeFromFiles,
  interchangeToFiles,
  loadInterchange,
  principalComponents,
  saveInterchange,
  setPrincipalComponents,
  tokenBatch,
  type InterchangeConfig,
  type InterchangeModel,
  type InterchangeRun,
  type PatchingOptions,
} from '../src/interchange/index.js';
import { create } from '../src/tensor/create.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const base = tokenBatch([tinyIds(5, 1), tinyIds(6, 2)]);
const source = tokenBatch([tinyIds(6, 3), tinyIds(5, 4)]);
const run: InterchangeRun = { base, sources: [source], unitLocations: { base: [1, -1] } };
const logitsOf = (interchange: InterchangeModel): Float32Array =>
  noGrad(() => scope(() => interchange.run(run).logits.dataSync() as Float32Array));

describe('files', () => {
  const configs: InterchangeConfig[] = [
    {
      kind: 'lowRankRotatedSpace',
      layer: 0,
      lowRankDimension: 3,
      subspacePartition: [
        [0, 1],
        [1, 3],
      ],
      subspaces: [1],
      interventionLinkKey: 'R',
    },
    {
      kind: 'lowRankRotatedSpace',
      layer: 2,
      lowRankDimension: 3,
      subspacePartition: [
        [0, 1],
        [1, 3],
      ],
      subspaces: [0],
      interventionLinkKey: 'R',
    },
    { kind: 'boundlessRotatedSpace', layer: 1 },
    { kind: 'sigmoidMask', layer: 1, component: 'attention_value_output', head: 1 },
    { kind: 'jumpReluAutoencoder', layer: 1, latentDim: 9, seed: 4, keepError: false },
    { kind: 'noise', layer: 0, noiseLevel: 0.1 },
    { kind: 'pcaRotatedSpace', layer: 1, lowRankDimension: 4 },
  ];

  test('hold all that is needed to build the same interventions again', async () => {
    const model = await tinyModel();
    const saved = getInterchangeModel(model, configs);
    saved.setTemperature(0.7);
    const states = create.normal([50, 16], { seed: 8 });
    setPrincipalComponents(saved.interventions[6].space, await principalComponents(states, 4));
    const folder = await mkdtemp(join(tmpdir(), 'interchange-'));
    try {
      await saveInterchange(saved, folder);
      assert.deepEqual((await readdir(folder)).sort(), ['interchange_config.json', 'interchange_model.safetensors']);
      const loaded = await loadInterchange(model, folder, { onWarning: message => assert.fail(message) });
      assert.deepEqual(
        loaded.interventions.map(i => i.id),
        saved.interventions.map(i => i.id),
      );
      assert.equal(loaded.spaces.length, 6);
      const [expected, actual] = [logitsOf(saved), logitsOf(loaded)];
      expected.forEach((x, i) => assert.ok(Math.abs(x - actual[i]) < 1e-5, 'Math.abs(x - actual[i]) < 1e-5'));
      assert.ok(
        loaded.spaces.every(s => s.temperature === 0.7),
        'loaded.spaces.every(s => s.temperature === 0.7)',
      );
      const warnings: string[] = [];
      await loadInterchange(await tinyModel({ seed: 2 }), folder, { onWarning: message => warnings.push(message) });
      assert.match(warnings.join(), /was found in other weights \(tiny\)/);
    } finally {
      await rm(folder, { recursive: true });
    }
    const chain = getInterchangeModel(
      model,
      [
        { kind: 'rotatedSpace', layer: 0 },
        { kind: 'vanilla', layer: 1 },
      ],
      { mode: 'serial' },
    );
    assert.equal((await interchangeFromFiles(model, await interchangeToFiles(chain))).mode, 'serial');
  });

  test('bad ones are refused with a FormatError that says what is wrong', async () => {
    const model = await tinyModel();
    const good = await interchangeToFiles(
      getInterchangeModel(model, [{ kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 2 }]),
    );
    const other = await interchangeToFiles(
      getInterchangeModel(model, [{ kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 3 }]),
    );
    const more = await interchangeToFiles(getInterchangeModel(model, [{ kind: 'boundlessRotatedSpace', layer: 1 }]));
    const [config, weights] = ['interchange_config.json', 'interchange_model.safetensors'];
    const bytes = (files: Map<string, Uint8Array>, name: string): Uint8Array => files.get(name) as Uint8Array;
    const edited = (
      change: (json: Record<string, unknown> & { interventions: Record<string, unknown>[] }) => void,
    ): Uint8Array => {
      const json = JSON.parse(new TextDecoder().decode(bytes(good, config))) as Parameters<typeof change>[0];
      change(json);
      return new TextEncoder().encode(JSON.stringify(json));
    };
    const skewed = bytes(good, weights).slice();
    new DataView(skewed.buffer).setFloat32(skewed.length - 4, 3, true);
    const cases: [string, Uint8Array | null, RegExp][] = [
      [config, null, /has no interchange_config\.json/],
      [weights, null, /has no interchange_model\.safetensors/],
      [config, new TextEncoder().encode('{'), /configuration/],
      [
        config,
        edited(json => {
          json.mode = 'both';
        }),
        /mode/,
      ],
      [
        config,
        edited(json => {
          json.extra = 1;
        }),
        /extra/,
      ],
      [
        config,
        edited(json => {
          json.interventions[0].layer = 9;
        }),
        /model has layers 0\.\.2/,
      ],
      [
        config,
        edited(json => {
          json.interventions[0].kind = 'swap';
        }),
        /'swap' is not known/,
      ],
      [
        config,
        edited(json => {
          json.interventions[0].subspacePartition = 4;
        }),
        /interchange_config\.json/,
      ],
      [
        config,
        edited(json => {
          json.temperatures = [];
        }),
        /temperatures: expected 1, got 0/,
      ],
      [weights, bytes(other, weights), /is F32 \[3,16\], expected F32 \[2,16\]/],
      [weights, bytes(more, weights), /has no tensor 'lowRankRotatedSpace@block_output\/1\.R'/],
      [weights, skewed, /must have orthonormal rows/],
    ];
    for (const [name, content, message] of cases) {
      const files = new Map(good);
      if (content) files.set(name, content);
      else files.delete(name);
      await assert.rejects(
        interchangeFromFiles(model, files),
        (error: Error) => error instanceof FormatError && message.test(error.message),
        String(message),
      );
    }
  });
});

describe('activation patching', () => {
  const options: PatchingOptions = {
    base,
    source,
    answers: [
      { source: 3, base: 5 },
      { source: 7, base: 1 },
    ],
    positions: [0, 2, -1],
    components: ['block_output', 'mlp_output'],
    layers: [0, 2],
  };

  test('is a run with one state swapped, for each component, layer and position', async () => {
    const model = await tinyModel({ dtype: 'f64' });
    const result = await activationPatching(model, { ...options, batchSize: 4 });
    assert.deepEqual(
      [result.layers, result.positions, result.components],
      [
        [0, 2],
        [0, 2, 4],
        ['block_output', 'mlp_output'],
      ],
    );
    /** The metric by the definition, from logits [2, 6, 23] at each row's last token. */
    const metric = (logits: ArrayLike<number>, lengths: number[]): number =>
      [0, 1].reduce((sum, b) => {
        const row = (token: number): number => logits[(b * 6 + lengths[b] - 1) * 23 + token];
        const { source: s, base: o } = (options.answers as { source: number; base: number }[])[b];
        return sum + (row(s) - row(o)) / 2;
      }, 0);
    const plain = (batch: typeof base): ArrayLike<number> =>
      noGrad(() => scope(() => model.forward(batch).logits.dataSync()));
    const [before, after] = [metric(plain(base), [5, 6]), metric(plain(source), [6, 5])];
    assert.ok(
      Math.abs(result.baseMetric - before) < 1e-12 && Math.abs(result.sourceMetric - after) < 1e-12,
      'Math.abs(result.baseMetric - before) < 1e-12 && Math.abs(result.sou...',
    );
    for (const [c, component] of result.components.entries()) {
      for (const [l, layer] of result.layers.entries()) {
        for (const [p, position] of [0, 2, -1].entries()) {
          const interchange = getInterchangeModel(model, { kind: 'vanilla', layer, component });
          const logits = noGrad(() =>
            scope(() =>
              interchange.run({ base, sources: [source], unitLocations: { base: position } }).logits.dataSync(),
            ),
          );
          const value = metric(logits, [5, 6]);
          assert.ok(Math.abs(result.metric[c][l][p] - value) < 1e-12, `${component} ${layer} ${position}`);
          assert.ok(
            Math.abs(result.effects[c][l][p] - (value - before) / (after - before)) < 1e-12,
            'Math.abs(result.effects[c][l][p] - (value - before) / (after - befo...',
          );
        }
      }
    }
    assert.ok(Math.abs(result.effects[0][1][2] - 1) < 1e-12, 'the last state of the last block is everything');
    assert.ok(Math.abs(result.effects[0][1][0]) < 1e-12, 'what nobody reads any more is nothing');
  });

  test('frees what it kept, takes a metric, and refuses what does not fit', async () => {
    // A backend of its own: nothing else is freed there meanwhile.
    const model = await tinyModel({ device: createCpuBackend() });
    const { answers: _, ...rest } = options;
    await activationPatching(model, options);
    const { liveBytes } = model.backend.stats();
    const own = await activationPatching(model, { ...rest, metric: (logits, row) => logits[3 + row] });
    assert.equal(own.effects.length, 2);
    assert.equal(model.backend.stats().liveBytes, liveBytes);
    const cases: [Partial<PatchingOptions>, RegExp][] = [
      [{ positions: 5 }, /patching: base, row 0: position 5 is out of range for 5 tokens/],
      [{ positions: [] }, /base row 0 has 0 positions, expected at least one/],
      [{ positions: 'all' }, /base row 1 has 6 positions, expected 5 in every row/],
      [{ layers: [3] }, /the model has layers 0\.\.2/],
      [{ components: ['final_norm'] }, /component 'final_norm' is not within blocks/],
      [{ source: tokenBatch([tinyIds(5, 1)]) }, /2 bases and 1 sources/],
      [{ source: base }, /must differ/],
      [{ answers: [{ source: 1, base: 2 }] }, /answers for 1 pairs, there are 2/],
      [
        {
          answers: [
            { source: 99, base: 2 },
            { source: 1, base: 2 },
          ],
        },
        /answer 99 is outside the vocabulary of 23/,
      ],
      [{ metric: () => 1 }, /either answers or a metric/],
      [{ batchSize: 0 }, /batchSize must be a whole number above 0/],
      [{ predictAt: [0, 1] }, /predictAt must be one position a row, base row 0 has 2/],
    ];
    for (const [wrong, message] of cases)
      await assert.rejects(activationPatching(model, { ...options, ...wrong }), { message });
    const controller = new AbortController();
    controller.abort();
    await assert.rejects(activationPatching(model, { ...options, signal: controller.signal }), { name: 'AbortError' });
  });
});

describe('a heat map', () => {
  const panels = [
    {
      title: 'block_output',
      values: [
        [0, 0.5],
        [1, -0.001],
      ],
    },
    {
      title: 'mlp_output',
      values: [
        [0.25, 0],
        [0, 0.75],
      ],
    },
  ];
  const options = { title: 'Effects & more', rows: [0, 1], columns: ['the', 'the'] };

  test('is a standalone SVG with a cell for each number, the same for the same numbers', async () => {
    const svg = await heatMap(panels, options);
    assert.match(svg, /^<svg /);
    assert.match(svg, /xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
    assert.match(svg, /Effects &amp; more/);
    assert.equal([...svg.matchAll(/<rect /g)].length, 8, 'equal labels of columns stay two columns');
    for (const text of ['block_output', 'mlp_output', '0.50', '1.00', '0.25', '0.75'])
      assert.ok(svg.includes(`>${text}<`), text);
    assert.ok(!svg.includes('>-0.00<'), "!svg.includes('>-0.00<')");
    assert.equal(await heatMap(panels, options), svg);
    assert.equal([...(await heatMap(panels.slice(0, 1), options)).matchAll(/<rect /g)].length, 4);
  });

  test('needs values that fit its labels', async () => {
    await assert.rejects(heatMap([], options), /expected at least one panel/);
    await assert.rejects(heatMap([{ title: 'x', values: [[1]] }], options), /panel 'x' must be 2 x 2, its rows have 1/);
  });
});
