// Runs with sources on a small model: which rows are read and written, in parallel and as a chain, against loops
// written by hand with plain arrays.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { scope } from '../src/autograd/scope.js';
import { noGrad } from '../src/autograd/tape.js';
import { createCpuBackend } from '../src/backends/index.js';
import type { CausalLM } from '../src/models/causalLM.js';
import { onBatch, type SiteEdit } from '../src/models/patch.js';
import { siteName, type Site } from '../src/models/sites.js';
import {
  getInterchangeModel,
  tokenBatch,
  type InterchangeConfig,
  type InterchangeModel,
  type InterchangeRun,
  type TokenBatch,
} from '../src/interchange/index.js';
import { orthogonalMaps, type OrthogonalMapName } from '../src/nn/orthogonal/maps.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const hidden = 16;
const model = await tinyModel({ dtype: 'f64' });
const block = (layer: number): Site => ({ layer, component: 'block_output' });

const numbers = (t: Tensor): number[] => Array.from(noGrad(() => scope(() => t.dataSync())));
const furthest = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  assert.equal(a.length, b.length);
  return Array.from(a).reduce<number>((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);
};

const logitsOf = (interchange: InterchangeModel, run: InterchangeRun): number[] =>
  noGrad(() => scope(() => Array.from(interchange.run(run).logits.dataSync())));

/** Hidden states [B * T][width] at sites, and logits, of a run where some rows are what `write` gives. */
function byHand(
  base: TokenBatch,
  read: Site[],
  write: { site: Site; row: number; value: (before: number[]) => number[] }[] = [],
  on: CausalLM = model,
): { states: Map<string, number[][]>; logits: number[] } {
  return noGrad(() =>
    scope(() => {
      const edits = write.map(({ site, row, value }): SiteEdit => ({
        site,
        apply: onBatch(h => {
          const width = h.shape[2];
          const data = Float64Array.from(h.dataSync());
          data.set(value([...data.subarray(row * width, (row + 1) * width)]), row * width);
          return create.from(data, h.shape, { dtype: 'f64', backend: h.backend });
        }),
      }));
      const { collected, logits } = on.forward({ ...base, edits, collect: read });
      const states = new Map(
        read.map(site => {
          const t = collected.get(siteName(site)) as Tensor;
          const data = Array.from(t.dataSync());
          return [
            siteName(site),
            Array.from({ length: data.length / t.shape[2] }, (_, i) =>
              data.slice(i * t.shape[2], (i + 1) * t.shape[2]),
            ),
          ];
        }),
      );
      return { states, logits: Array.from(logits.dataSync()) };
    }),
  );
}

const at = (states: Map<string, number[][]>, site: Site, row: number): number[] =>
  (states.get(siteName(site)) as number[][])[row];

const base = tokenBatch([tinyIds(5, 1), tinyIds(7, 2)]);
const source = tokenBatch([tinyIds(6, 3), tinyIds(4, 4)]);
const other = tokenBatch([tinyIds(3, 5), tinyIds(6, 6)]);
/** [5 and 7 tokens], padded to 7. */
const width = 7;

describe('a parallel run', () => {
  test('with the base as source is the base, bit for bit', () => {
    const plain = noGrad(() => numbers(model.forward(base).logits));
    const kinds: InterchangeConfig[] = [
      { kind: 'vanilla', layer: 1 },
      { kind: 'lowRankRotatedSpace', layer: 0, lowRankDimension: 3 },
      { kind: 'boundlessRotatedSpace', layer: 2 },
      { kind: 'sigmoidMask', layer: 1, component: 'mlp_output' },
      { kind: 'jumpReluAutoencoder', layer: 1, latentDim: 20 },
    ];
    for (const config of kinds) {
      assert.deepEqual(
        logitsOf(getInterchangeModel(model, config), { base, sources: [base], unitLocations: { base: [0, 2, -1] } }),
        plain,
        config.kind,
      );
    }
  });

  test('reads each source at its own positions and writes the base at its own: two sites, two sources', () => {
    const interchange = getInterchangeModel(model, [
      { kind: 'vanilla', layer: 0 },
      { kind: 'vanilla', layer: 1, component: 'attention_output' },
    ]);
    const [first, second] = [block(0), { layer: 1, component: 'attention_output' } as const];
    const actual = logitsOf(interchange, {
      base,
      sources: [source, other],
      unitLocations: [
        { base: [[1], [6]], source: [[5], [0]] },
        { base: [3, 0], source: [1, -1] },
      ],
    });
    const from = byHand(source, [first]).states;
    const [too] = [byHand(other, [second]).states];
    const put = (site: Site, row: number, value: number[]): { site: Site; row: number; value: () => number[] } => ({
      site,
      row,
      value: () => value,
    });
    const expected = byHand(
      base,
      [],
      [
        put(first, 1, at(from, first, 5)),
        put(first, width + 6, at(from, first, 6)),
        put(second, 3, at(too, second, 1)),
        put(second, 0, at(too, second, 2)),
        put(second, width + 3, at(too, second, 6 + 1)),
        put(second, width, at(too, second, 6 + 5)),
      ],
    ).logits;
    assert.ok(furthest(actual, expected) < 1e-12, 'furthest(actual, expected) < 1e-12');
  });

  test('gives the same for either side of padding, and for rows by themselves', () => {
    const interchange = getInterchangeModel(model, { kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 4 });
    const left = (rows: Int32Array[], size: number): TokenBatch => {
      const [inputIds, attentionMask] = [new Int32Array(rows.length * size), new Int32Array(rows.length * size)];
      rows.forEach((ids, b) => {
        inputIds.set(ids, (b + 1) * size - ids.length);
        attentionMask.fill(1, (b + 1) * size - ids.length, (b + 1) * size);
      });
      return { inputIds, attentionMask, shape: [rows.length, size] };
    };
    const [bases, sources] = [
      [tinyIds(5, 1), tinyIds(7, 2)],
      [tinyIds(6, 3), tinyIds(4, 4)],
    ];
    const unitLocations = { base: [2, -1], source: [-2, 0] };
    const right = logitsOf(interchange, { base: tokenBatch(bases), sources: [tokenBatch(sources)], unitLocations });
    const padded = logitsOf(interchange, { base: left(bases, 9), sources: [left(sources, 7)], unitLocations });
    bases.forEach((ids, b) => {
      const alone = logitsOf(interchange, {
        base: tokenBatch([ids]),
        sources: [tokenBatch([sources[b]])],
        unitLocations,
      });
      const part = (all: number[], size: number, start: number): number[] =>
        all.slice((b * size + start) * 23, (b * size + start + ids.length) * 23);
      assert.ok(
        furthest(part(right, 7, 0), alone) < 1e-12 && furthest(part(padded, 9, 9 - ids.length), alone) < 1e-12,
        `row ${b}`,
      );
    });
  });

  test('a source of one row feeds every row; a group without a source is left out; positions as text', () => {
    const interchange = getInterchangeModel(model, [
      { kind: 'vanilla', layer: 0 },
      { kind: 'vanilla', layer: 2 },
    ]);
    const one = tokenBatch([tinyIds(6, 3)]);
    const twice = tokenBatch([tinyIds(6, 3), tinyIds(6, 3)]);
    const unitLocations = { base: 'l1', source: '-1' };
    const expected = logitsOf(interchange, { base, sources: [twice, twice], unitLocations });
    assert.deepEqual(logitsOf(interchange, { base, sources: [one], unitLocations }), expected);
    const single = getInterchangeModel(model, { kind: 'vanilla', layer: 2 });
    const alone = logitsOf(single, { base, sources: [one], unitLocations });
    assert.deepEqual(logitsOf(interchange, { base, sources: [null, one], unitLocations }), alone);
    assert.deepEqual(logitsOf(interchange, { base, sources: [one], unitLocations: [null, unitLocations] }), alone);
  });

  test('takes given representations in place of sources, and what a run reads can be given to the next', () => {
    const interchange = getInterchangeModel(model, [
      { kind: 'rotatedSpace', layer: 1 },
      { kind: 'addition', layer: 2 },
    ]);
    const run = { base, unitLocations: { base: [1, 3], source: [0, 1] } };
    const expected = logitsOf(interchange, { ...run, sources: [source, other] });
    const given = noGrad(() => interchange.sourceRows({ ...run, sources: [source, other] }));
    assert.deepEqual(
      given.map(t => t?.shape),
      [
        [4, hidden],
        [4, hidden],
      ],
    );
    assert.deepEqual(logitsOf(interchange, { ...run, sourceRepresentations: given }), expected);
    const v = create.normal([hidden], { seed: 5, dtype: 'f64' });
    const added = byHand(
      base,
      [],
      [{ site: block(2), row: 2, value: h => h.map((x, k) => x + v.dataSync()[k]) }],
    ).logits;
    const steering = getInterchangeModel(model, { kind: 'addition', layer: 2 });
    const actual = logitsOf(steering, {
      base,
      sourceRepresentations: [v],
      unitLocations: { base: [[2], []], source: [[], []] },
    });
    assert.ok(furthest(actual, added) < 1e-12, 'furthest(actual, added) < 1e-12');
  });

  test('one head is swapped, the others are not', () => {
    const site = { layer: 1, component: 'attention_value_output' } as const;
    const interchange = getInterchangeModel(model, { kind: 'vanilla', ...site, head: 2 });
    const from = byHand(source, [site]).states;
    const swapped =
      (row: number) =>
      (h: number[]): number[] => [...h.slice(0, 8), ...at(from, site, row).slice(8, 12), ...h.slice(12)];
    const expected = byHand(
      base,
      [],
      [
        { site, row: 1, value: swapped(1) },
        { site, row: width + 1, value: swapped(6 + 1) },
      ],
    ).logits;
    assert.ok(
      furthest(logitsOf(interchange, { base, sources: [source], unitLocations: { base: 1 } }), expected) < 1e-12,
      'furthest(logitsOf(interchange, { base, sources: [source], unitLocat...',
    );
  });

  test('collect reads the rows asked for, after the edits of its site, and zero writes zeros', () => {
    const interchange = getInterchangeModel(model, [
      { kind: 'zero', layer: 1 },
      { kind: 'collect', layer: 1 },
      { kind: 'collect', layer: 0 },
    ]);
    const run: InterchangeRun = {
      base,
      unitLocations: [
        { base: [[0], [3]] },
        {
          base: [
            [0, 2],
            [4, 3],
          ],
        },
        { base: 'all' },
      ],
    };
    const { states } = byHand(base, [block(0), block(1)]);
    const { collected } = noGrad(() => interchange.run(run));
    const zeros = new Array<number>(hidden).fill(0);
    assert.equal(collected[0], null);
    assert.ok(
      furthest(
        numbers(collected[1] as Tensor),
        [zeros, at(states, block(1), 2), at(states, block(1), width + 4), zeros].flat(),
      ) < 1e-12,
      'furthest(numbers(collected[1] as Tensor), [zeros, at(states, block(...',
    );
    const all = [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13].flatMap(row => at(states, block(0), row));
    assert.ok(
      furthest(numbers(collected[2] as Tensor), all) < 1e-12,
      'furthest(numbers(collected[2] as Tensor), all) < 1e-12',
    );
  });

  test("passes the base's sites, with the interventions as edits that say what they are", () => {
    const interchange = getInterchangeModel(model, [
      { kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 3 },
      { kind: 'zero', layer: 1 },
    ]);
    const seen: [string, unknown][] = [];
    noGrad(() =>
      scope(() =>
        interchange.run({
          base,
          sources: [source],
          unitLocations: [{ base: 1 }, { base: [[0], []] }],
          onSite: (site, _, edits) => {
            seen.push([siteName(site), edits.map(e => e.about)]);
          },
        }),
      ),
    );
    assert.equal(seen.length, model.sites().length, 'of the base alone');
    const edited = seen.filter(([, edits]) => (edits as unknown[]).length > 0);
    assert.deepEqual(edited, [
      [
        'block_output/1',
        [
          {
            id: 'lowRankRotatedSpace@block_output/1',
            kind: 'lowRankRotatedSpace',
            rank: 3,
            rows: [1, width + 1],
            parameters: { R: [3, hidden] },
          },
          { id: 'zero@block_output/1', kind: 'zero', rows: [0] },
        ],
      ],
    ]);
  });

  test('any orthogonal map holds R', () => {
    const plain = logitsOf(getInterchangeModel(model, { kind: 'vanilla', layer: 1 }), {
      base,
      sources: [source],
      unitLocations: { base: 1 },
    });
    for (const orthogonal of Object.keys(orthogonalMaps) as OrthogonalMapName[]) {
      const whole = getInterchangeModel(model, { kind: 'rotatedSpace', layer: 1, orthogonal });
      assert.ok(
        furthest(logitsOf(whole, { base, sources: [source], unitLocations: { base: 1 } }), plain) < 1e-11,
        orthogonal,
      );
      assert.ok(
        whole.trained().every(t => t.orthogonal) && whole.trained().length > 0,
        'whole.trained().every(t => t.orthogonal) && whole.trained().length > 0',
      );
      assert.equal(
        getInterchangeModel(model, { kind: 'rotatedSpace', layer: 1, orthogonal, trainable: false }).trained().length,
        0,
      );
    }
  });

  test('noise is of its level, the same for a seed, and nowhere else', () => {
    const run: InterchangeRun = { base, unitLocations: [{ base: 2 }, { base: 'all' }] };
    const noisy = (seed: number, noiseLevel: number): number[] => {
      const interchange = getInterchangeModel(model, [
        { kind: 'noise', layer: 2, seed, noiseLevel },
        { kind: 'collect', layer: 2 },
      ]);
      return numbers(noGrad(() => interchange.run(run)).collected[1] as Tensor);
    };
    const plain = noisy(1, 0);
    assert.deepEqual(noisy(1, 0.5), noisy(1, 0.5));
    const moved = noisy(1, 0.5).map((x, i) => x - plain[i]);
    const rows = moved.flatMap((x, i) => (x === 0 ? [] : [Math.floor(i / hidden)]));
    assert.deepEqual([...new Set(rows)], [2, 5 + 2]);
    assert.ok(
      furthest(
        noisy(1, 1).map((x, i) => x - plain[i]),
        moved.map(x => 2 * x),
      ) < 1e-12,
      'furthest(noisy(1, 1).map((x, i) => x - plain[i]), moved.map(x => 2 ...',
    );
    assert.notDeepEqual(noisy(2, 0.5), noisy(1, 0.5));
  });

  test('gives all memory back but its results', async () => {
    const f32 = await tinyModel({ device: createCpuBackend() });
    const interchange = getInterchangeModel(f32, { kind: 'boundlessRotatedSpace', layer: 1 });
    const once = (): void => {
      const { logits } = noGrad(() => interchange.run({ base, sources: [source], unitLocations: { base: 1 } }));
      logits.storage.dispose();
    };
    once();
    const { liveBytes } = f32.backend.stats();
    for (let i = 0; i < 5; i++) once();
    assert.equal(f32.backend.stats().liveBytes, liveBytes);
  });
});

describe('subspaces', () => {
  const partition = [
    [0, 2],
    [2, 5],
  ] as const;
  const shared = {
    kind: 'lowRankRotatedSpace',
    layer: 1,
    lowRankDimension: 5,
    subspacePartition: partition,
    interventionLinkKey: 'R',
  } as const;

  test("two sources into two parts of one R: each part is its source's, the complement the base's", () => {
    const interchange = getInterchangeModel(model, [
      { ...shared, subspaces: [0] },
      { ...shared, subspaces: [1] },
    ]);
    assert.equal(interchange.spaces.length, 1);
    assert.equal(interchange.trained().length, 1);
    const R = numbers(noGrad(() => interchange.spaces[0].parameters().R));
    const [s0, s1] = [byHand(source, [block(1)]).states, byHand(other, [block(1)]).states];
    const value =
      (b: number) =>
      (h: number[]): number[] => {
        const result = [...h];
        for (let i = 0; i < 5; i++) {
          const s = i < 2 ? at(s0, block(1), b * 6) : at(s1, block(1), b * 6);
          const u = h.reduce((sum, x, k) => sum + R[i * hidden + k] * (s[k] - x), 0);
          for (let k = 0; k < hidden; k++) result[k] += R[i * hidden + k] * u;
        }
        return result;
      };
    const expected = byHand(
      base,
      [],
      [0, 1].map(b => ({ site: block(1), row: b * width + 2, value: value(b) })),
    ).logits;
    const run: InterchangeRun = { base, sources: [source, other], unitLocations: { base: 2, source: 0 } };
    assert.ok(
      furthest(logitsOf(interchange, run), expected) < 1e-12,
      'furthest(logitsOf(interchange, run), expected) < 1e-12',
    );
    // In the other order, and with the parts named by the run.
    const turned = getInterchangeModel(model, [
      { ...shared, subspaces: [1], groupKey: 1 },
      { ...shared, subspaces: [0], groupKey: 0 },
    ]);
    assert.ok(furthest(logitsOf(turned, run), expected) < 1e-12, 'furthest(logitsOf(turned, run), expected) < 1e-12');
    const named = getInterchangeModel(model, [shared, shared]);
    assert.ok(
      furthest(logitsOf(named, { ...run, subspaces: [[0], [[1], [1]]] }), expected) < 1e-12,
      'furthest(logitsOf(named, { ...run, subspaces: [[0], [[1], [1]]] }),...',
    );
  });

  test('all parts together are the whole of R; other subspaces for each row are the rows run one by one', () => {
    const interchange = getInterchangeModel(model, shared);
    const run: InterchangeRun = { base, sources: [source], unitLocations: { base: [1, 2] } };
    assert.deepEqual(logitsOf(interchange, { ...run, subspaces: [[0, 1]] }), logitsOf(interchange, run));
    const { logits } = byHand(base, []);
    assert.ok(furthest(logitsOf(interchange, { ...run, subspaces: [[]] }), logits) < 1e-12, 'no subspace, no change');
    const mixed = logitsOf(interchange, { ...run, subspaces: [[[1], [0]]] });
    const [first, second] = [
      logitsOf(interchange, { ...run, subspaces: [[1]] }),
      logitsOf(interchange, { ...run, subspaces: [[0]] }),
    ];
    const half = width * 23;
    assert.ok(
      furthest(mixed, [...first.slice(0, half), ...second.slice(half)]) < 1e-12,
      'furthest(mixed, [...first.slice(0, half), ...second.slice(half)]) <...',
    );
    assert.ok(furthest(first, second) > 1e-3, 'furthest(first, second) > 1e-3');
  });

  test('interchangeDim swaps the first coordinates', () => {
    const interchange = getInterchangeModel(model, { kind: 'vanilla', layer: 1, interchangeDim: 6 });
    const from = byHand(source, [block(1)]).states;
    const expected = byHand(
      base,
      [],
      [0, 1].map(b => ({
        site: block(1),
        row: b * width + 1,
        value: h => [...at(from, block(1), b * 6 + 1).slice(0, 6), ...h.slice(6)],
      })),
    ).logits;
    const run: InterchangeRun = { base, sources: [source], unitLocations: { base: 1 } };
    assert.ok(
      furthest(logitsOf(interchange, run), expected) < 1e-12,
      'furthest(logitsOf(interchange, run), expected) < 1e-12',
    );
    assert.ok(
      furthest(logitsOf(interchange, { ...run, subspaces: [[0, 1, 2, 3, 4, 5]] }), expected) < 1e-12,
      'as single features',
    );
  });
});

describe('a serial run', () => {
  test('puts what is read from each source into the next, and the last into the base', () => {
    const configs: InterchangeConfig[] = [
      { kind: 'vanilla', layer: 0 },
      { kind: 'vanilla', layer: 1 },
    ];
    const run: InterchangeRun = {
      base,
      sources: [source, other],
      unitLocations: [
        { source: 1, base: 2 },
        { source: 2, base: 3 },
      ],
    };
    const first = byHand(source, [block(0)]).states;
    const [a, b] = [0, 1];
    const second = byHand(
      other,
      [block(1)],
      [a, b].map(r => ({ site: block(0), row: r * 6 + 2, value: () => at(first, block(0), r * 6 + 1) })),
    ).states;
    const expected = byHand(
      base,
      [],
      [a, b].map(r => ({ site: block(1), row: r * width + 3, value: () => at(second, block(1), r * 6 + 2) })),
    ).logits;
    const serial = logitsOf(getInterchangeModel(model, configs, { mode: 'serial' }), run);
    assert.ok(furthest(serial, expected) < 1e-12, 'furthest(serial, expected) < 1e-12');

    const plain = byHand(other, [block(1)]).states;
    const both = byHand(
      base,
      [],
      [a, b].flatMap(r => [
        { site: block(0), row: r * width + 2, value: () => at(first, block(0), r * 6 + 1) },
        { site: block(1), row: r * width + 3, value: () => at(plain, block(1), r * 6 + 2) },
      ]),
    ).logits;
    const parallel = logitsOf(getInterchangeModel(model, configs), run);
    assert.ok(
      furthest(parallel, both) < 1e-12 && furthest(parallel, serial) > 1e-3,
      'furthest(parallel, both) < 1e-12 && furthest(parallel, serial) > 1e-3',
    );
  });

  test('a chain at one site reads after it wrote', () => {
    const configs: InterchangeConfig[] = [
      { kind: 'vanilla', layer: 1 },
      { kind: 'vanilla', layer: 1 },
    ];
    const direct = getInterchangeModel(model, { kind: 'vanilla', layer: 1 });
    const expected = logitsOf(direct, { base, sources: [source], unitLocations: { base: 2, source: 1 } });
    const chain = getInterchangeModel(model, configs, { mode: 'serial' });
    assert.ok(
      furthest(
        logitsOf(chain, {
          base,
          sources: [source, other],
          unitLocations: [
            { source: 1, base: 0 },
            { source: 0, base: 2 },
          ],
        }),
        expected,
      ) < 1e-12,
      'furthest(logitsOf(chain, { base, sources: [source, other], unitLoca...',
    );
  });

  test('needs a source for every group, and reads them itself', () => {
    const chain = getInterchangeModel(
      model,
      [
        { kind: 'vanilla', layer: 0 },
        { kind: 'vanilla', layer: 1 },
      ],
      { mode: 'serial' },
    );
    const run = { base, unitLocations: { base: 0 } };
    assert.throws(
      () => logitsOf(chain, { ...run, sources: [source] }),
      /sources: expected 2, one for each group of interventions, got 1/,
    );
    assert.throws(
      () => logitsOf(chain, { ...run, sources: [source, null] }),
      /needs one for each group, there is none for group 1/,
    );
    assert.throws(() => logitsOf(chain, run), /there is none for group 0/);
    assert.throws(() => chain.sourceRows({ ...run, sources: [source, other] }), /depend on each other/);
  });
});

test('generation goes on from the prompt with interventions, with and without a cache', async () => {
  const prompts = [tinyIds(5, 1), tinyIds(7, 2)];
  const interchange = getInterchangeModel(model, { kind: 'lowRankRotatedSpace', layer: 2, lowRankDimension: 12 });
  const run = { sources: [source], unitLocations: { base: [-1, 1], source: [0, 1] } };
  const ids = async (useCache: boolean): Promise<number[][]> =>
    (await interchange.generate(prompts, run, { maxNewTokens: 4, stopTokenIds: [], useCache })).map(g => g.ids);
  const cached = await ids(true);
  assert.deepEqual(await ids(false), cached);
  // Token by token by hand: the whole text again, with the same edits on the prompt.
  const expected = prompts.map((prompt, b) => {
    const text = [...prompt];
    for (let step = 0; step < 4; step++) {
      const length = prompt.length;
      const all = logitsOf(interchange, {
        base: tokenBatch([text]),
        sources: [tokenBatch([[tinyIds(6, 3), tinyIds(4, 4)][b]])],
        unitLocations: { base: [length - 1, 1], source: [0, 1] },
      }).slice(-23);
      text.push(all.indexOf(Math.max(...all)));
    }
    return text.slice(prompt.length);
  });
  assert.deepEqual(cached, expected);
  const plain = (await model.generate(prompts, { maxNewTokens: 4, stopTokenIds: [] })).map(g => g.ids);
  assert.notDeepEqual(cached, plain);
});

describe('what does not fit is refused', () => {
  const interchange = getInterchangeModel(model, { kind: 'vanilla', layer: 1 });
  const run: InterchangeRun = { base, sources: [source], unitLocations: { base: 0 } };

  test('in a run', () => {
    const cases: [Partial<InterchangeRun>, RegExp][] = [
      [
        { unitLocations: { base: 5, source: 0 } },
        /vanilla@block_output\/1: base, row 0: position 5 is out of range for 5 tokens/,
      ],
      [{ unitLocations: { base: -6, source: 0 } }, /base, row 0: position -6 is out of range/],
      [{ unitLocations: { base: 0, source: 4 } }, /source, row 1: position 4 is out of range for 4 tokens/],
      [{ unitLocations: { base: 0.5 } }, /position 0.5 is out of range/],
      [
        { unitLocations: { base: [0, 1], source: 0 } },
        /row 0: 2 base positions and 1 source positions; expected as many/,
      ],
      [{ unitLocations: { base: [0, -5], source: [0, 0] } }, /row 0: base positions \[0, 0\] name one token twice/],
      [{ unitLocations: { base: [[0]] } }, /base: lists for 1 rows, the batch has 2/],
      [{ unitLocations: { base: 'first' } }, /row 0: positions 'first': expected f<N>/],
      [{ unitLocations: [] }, /unitLocations: expected one for each of the 1 interventions, got 0/],
      [{ sources: [] }, /sources: expected 1, one for each group of interventions, or a single one, got 0/],
      [{ sources: [source, source] }, /sources: expected 1/],
      [{ sources: [tokenBatch([[1], [2], [3]])] }, /a source of 3 rows for a base of 2; expected as many, or 1/],
      [
        { sourceRepresentations: [create.zeros([3, hidden], { dtype: 'f64' })] },
        /sourceRepresentations must be \[16\] or \[2, 16\], got \[3,16\]/,
      ],
      [
        { sourceRepresentations: [null, null] },
        /sourceRepresentations: expected one for each of the 1 interventions, got 2/,
      ],
      [{ subspaces: [[16]] }, /subspace 16 is out of range, there are 16 features/],
      [{ subspaces: [[[0], [1], [2]]] }, /subspaces for 3 rows, the batch has 2/],
      [{ subspaces: [] }, /subspaces: expected one for each/],
      [{ base: { inputIds: base.inputIds, shape: [2, 6] } }, /base: 14 ids do not fill shape \[2, 6\]/],
    ];
    for (const [wrong, message] of cases)
      assert.throws(
        () => logitsOf(interchange, { ...run, ...wrong }),
        { message },
        JSON.stringify(wrong.unitLocations),
      );
    const { sources: _, ...without } = run;
    assert.throws(
      () => logitsOf(interchange, without),
      /vanilla@block_output\/1: needs a source, or a sourceRepresentation/,
    );
    assert.throws(() => tokenBatch([]), /expected at least one row/);
    assert.throws(() => tokenBatch([[1], []]), /row 1 has no tokens/);
  });

  test('in a configuration', () => {
    const cases: [object | object[], RegExp][] = [
      [{ kind: 'swap', layer: 0 }, /interchange 'swap' is not known/],
      [{ kind: 'vanilla', layer: 3 }, /site block_output\/3: the model has layers 0..2/],
      [
        { kind: 'vanilla', layer: 0, component: 'resid' },
        /interchange\[0\] \(vanilla\): component 'resid' is not known/,
      ],
      [{ kind: 'vanilla', layer: 0, head: 1 }, /have heads/],
      [
        { kind: 'lowRankRotatedSpace', layer: 0, lowRankDimension: 17 },
        /lowRankDimension at block_output\/0 must be a whole number from 1 to 16, got 17/,
      ],
      [{ kind: 'vanilla', layer: 0, lowRankDimension: 2 }, /lowRankDimension belongs to kinds of low rank/],
      [{ kind: 'autoencoder', layer: 0 }, /latentDim is missing/],
      [{ kind: 'vanilla', layer: 0, latentDim: 4 }, /latentDim belongs to autoencoders/],
      [{ kind: 'vanilla', layer: 0, interchangeDim: 0 }, /interchangeDim must be a whole number from 1 to 16, got 0/],
      [
        { kind: 'lowRankRotatedSpace', layer: 0, lowRankDimension: 4, subspacePartition: [[0, 5]] },
        /subspacePartition\[0\] must be \[from, to\) within the 4 features/,
      ],
      [
        {
          kind: 'vanilla',
          layer: 0,
          subspacePartition: [
            [0, 3],
            [2, 4],
          ],
        },
        /subspacePartition\[1\] has feature 2, which an earlier part has too/,
      ],
      [{ kind: 'sigmoidMask', layer: 0, temperature: 0 }, /temperature must be above 0, got 0/],
      [{ kind: 'noise', layer: 0, noiseLevel: -1 }, /noiseLevel must be 0 or more/],
      [{ kind: 'rotatedSpace', layer: 0, orthogonal: 'magic' }, /orthogonal map 'magic' is not known/],
      [[], /expected at least one intervention/],
      [
        [
          { kind: 'rotatedSpace', layer: 0, interventionLinkKey: 'a' },
          { kind: 'lowRankRotatedSpace', layer: 0, interventionLinkKey: 'a' },
        ],
        /cannot share parameters/,
      ],
    ];
    for (const [config, message] of cases)
      assert.throws(() => getInterchangeModel(model, config as InterchangeConfig), { message }, JSON.stringify(config));
    assert.throws(
      () => getInterchangeModel(model, { kind: 'vanilla', layer: 0 }, { mode: 'both' as 'serial' }),
      /mode must be parallel or serial, got 'both'/,
    );
    const { space } = getInterchangeModel(model, { kind: 'lowRankRotatedSpace', layer: 0 }).interventions[0];
    assert.throws(
      () => space.set('R', create.ones([2, hidden], { dtype: 'f64' })),
      /\.R: expected shape \[1,16\], got \[2,16\]/,
    );
    assert.throws(() => space.set('W', create.ones([2])), /lowRankRotatedSpace has no parameter 'W'/);
    assert.throws(
      () => getInterchangeModel(model, { kind: 'vanilla', layer: 0 }).setTemperature(NaN),
      /temperature: expected a number above 0/,
    );
  });
});
