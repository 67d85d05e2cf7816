// Every kind of edit, those of the paper and those beyond: gradients, identity starts, what stays untouched, subspaces,
// scales, dropout, biases, files. What positions they stand at is tested in reft-edits.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { gradcheck } from '../src/autograd/gradcheck.js';
import { gradientsOf, noGrad } from '../src/autograd/tape.js';
import { scope } from '../src/autograd/scope.js';
import {
  adapterFromFiles,
  adapterToFiles,
  getReftModel,
  kindByName,
  kindNames,
  kinds,
  resolveConfig,
  type Intervention,
  type ReftConfig,
  type ReftModel,
} from '../src/reft/index.js';
import { orthonormalityError } from '../src/nn/hostMatrices.js';
import { parameterSpecs } from '../src/reft/intervention.js';
import { applyEdit, type EditSettings } from '../src/reft/applyEdit.js';
import { editActivations } from '../src/reft/editOp.js';
import { optionsOf } from '../src/reft/defineEdit.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { runs } from './helpers/draw.js';
import { tinyModel } from './helpers/tinyModel.js';
import { onWholeBatch } from './helpers/packed.js';

const names = kindNames();
const furthest = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i])));
const normal = (shape: readonly number[], seed: number, std = 1): Tensor =>
  create.normal(shape, { seed, dtype: 'f64', std });

/** Random parameters of a kind by name; R with orthonormal rows is not needed for gradients. */
function randomSettings(
  name: string,
  options: { width: number; rank: number; activation?: EditSettings['activation'] },
): { settings: EditSettings; leaves: [string, Tensor][] } {
  const kind = kindByName(name);
  const { width, rank, activation = 'tanh' } = options;
  const kindOptions = optionsOf(kind, name === 'adaptive' ? { experts: 2 } : {});
  const specs = parameterSpecs({ kind: name, rank, kindOptions, bias: true, trainScale: false }, width);
  const leaves = specs.map(({ name: own, shape }, i): [string, Tensor] => [own, normal(shape, 20 + i, 0.5)]);
  return {
    settings: { kind, size: { width, rank, options: kindOptions }, activation, parameters: Object.fromEntries(leaves) },
    leaves,
  };
}

const hasR = (name: string): boolean =>
  parameterSpecs({ kind: name, rank: 1, kindOptions: {}, bias: true, trainScale: false }, 8).some(s => s.name === 'R');

test('the kinds are those of the paper, and three beyond', () => {
  assert.deepEqual(names.slice(0, 10), [
    'loreft',
    'direft',
    'direftOrthogonal',
    'noreft',
    'consreft',
    'lobireft',
    'gated',
    'adaptive',
    'nonlinear',
    'addition',
  ]);
});

for (const name of names) {
  describe(name, () => {
    test('has the gradients of its formula, with scales and subspaces', () =>
      fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 4, max: 7 }),
          fc.integer({ min: 1, max: 2 }),
          fc.nat(100),
          fc.boolean(),
          fc.constantFrom('linear', 'gelu', 'tanh', 'sigmoid'),
          async (width, rank, seed, masked, activation) => {
            const { settings, leaves } = randomSettings(name, { width, rank, activation: activation as 'gelu' });
            const indices = Int32Array.of(4, 0, 3);
            const picked = Float64Array.from({ length: 3 * rank }, (_, i) => Number((i * 7 + seed) % 3 > 0));
            const mask = masked && hasR(name) ? { mask: create.from(picked, [3, rank]) } : {};
            await gradcheck(
              (h, scale, ...given) =>
                applyEdit(
                  h,
                  { ...settings, parameters: Object.fromEntries(leaves.map(([own], i) => [own, given[i]])) },
                  { indices, scale, ...mask },
                ),
              [normal([2, 3, width], seed), normal([3], seed + 1), ...leaves.map(([, t]) => t)],
              { seed },
            );
          },
        ),
        runs(6),
      ));

    test('leaves other rows alone, bit for bit', () => {
      const { settings } = randomSettings(name, { width: 6, rank: 2 });
      const h = normal([2, 3, 6], 1);
      const [before, after] = [h, applyEdit(h, settings, { indices: Int32Array.of(4, 1) })].map(t => [...t.dataSync()]);
      for (let row = 0; row < 6; row++) {
        const same = furthest(after.slice(row * 6, row * 6 + 6), before.slice(row * 6, row * 6 + 6)) === 0;
        assert.equal(same, row !== 4 && row !== 1, `row ${row}`);
      }
    });

    test('scale: h + c (edited - h)', () => {
      const { settings } = randomSettings(name, { width: 6, rank: 2 });
      const h = normal([1, 4, 6], 1);
      const indices = Int32Array.of(0, 1, 2, 3);
      const delta = (scale?: Tensor): Tensor =>
        applyEdit(h, settings, { indices, ...(scale ? { scale } : {}) })
          .sub(h)
          .reshape([4, 6]);
      const c = create.from(Float64Array.of(0, 1, -2, 0.5), [4]);
      assert.ok(
        furthest(delta(c).dataSync(), delta().mul(c.unsqueeze(1)).dataSync()) < 1e-14,
        'furthest(delta(c).dataSync(), delta().mul(c.unsqueeze(1)).dataSync(...',
      );
    });
  });
}

describe('subspaces', () => {
  test('each row of the batch moves in its own rows of R only (fault 13)', async () => {
    const base = await tinyModel({ dtype: 'f64' });
    for (const kind of names.filter(hasR)) {
      const reft = getReftModel(base, {
        kind,
        layers: [1],
        rank: 3,
        positions: 'all',
        ...(kind === 'adaptive' ? { kindOptions: { experts: 2 } } : {}),
      });
      const { R } = noGrad(() => reft.interventions[0].parameters());
      const h = normal([3, 2, 16], 3);
      const layout = { batch: 3, width: 2, starts: [0, 0, 0], promptLengths: [2, 2, 2], lengths: [2, 2, 2] };
      const lists = [[0, 2], null, []];
      const apply = onWholeBatch(reft.edits(layout, undefined, { subspaces: lists })[0]);
      const coordinates = noGrad(() => apply(h).sub(h).reshape([6, 16]).matmulT(R)).dataSync();
      const whole = noGrad(() => onWholeBatch(reft.edits(layout)[0])(h).sub(h).reshape([6, 16]).matmulT(R)).dataSync();
      const k = coordinates.length / 6;
      for (let row = 0; row < 6; row++) {
        for (let i = 0; i < k; i++) {
          const list = lists[Math.floor(row / 2)];
          const expected = !list || list.includes(i % 3) ? whole[row * k + i] : 0;
          assert.ok(Math.abs(coordinates[row * k + i] - expected) < 1e-12, `${kind}, row ${row}, coordinate ${i}`);
        }
      }
      const all = noGrad(() => onWholeBatch(reft.edits(layout, undefined, { subspaces: [0, 1, 2] })[0])(h)).dataSync();
      assert.ok(
        furthest(all, noGrad(() => onWholeBatch(reft.edits(layout)[0])(h)).dataSync()) < 1e-13,
        `${kind}: all rows of R are the whole edit`,
      );
    }
  });

  test('what is not there is refused', async () => {
    const base = await tinyModel();
    const h = create.ones([2, 1, 16]);
    const layout = { batch: 2, width: 1, starts: [0, 0], promptLengths: [1, 1], lengths: [1, 1] };
    const call = (kind: string, subspaces: readonly number[] | readonly (readonly number[] | null)[]) => () =>
      onWholeBatch(
        getReftModel(base, { kind, layers: [1], rank: 3, positions: 'all' }).edits(layout, undefined, { subspaces })[0],
      )(h);
    assert.throws(call('direft', [0]), { message: 'subspaces: direft has no R whose rows they could be' });
    assert.throws(call('loreft', [3]), { message: 'subspaces: row 3 is out of range, R has rows 0..2' });
    assert.throws(call('loreft', [[0]]), { message: 'subspaces: 1 lists for 2 rows of the batch' });
    assert.throws(call('loreft', [[0], 1] as unknown as number[]), { message: /got both$/ });
  });
});

type More = [training?: { seed: number; step: number }, rows?: { scale?: readonly number[] | Tensor }];

const oneForward = (reft: ReftModel, h: Tensor, ...more: More): Tensor => {
  const [batch, width] = h.shape;
  const of = (n: number): number[] => new Array<number>(batch).fill(n);
  const [edit] = reft.edits({ batch, width, starts: of(0), promptLengths: of(width), lengths: of(width) }, ...more);
  return onWholeBatch(edit)(h);
};

describe('scales', () => {
  test('per row of the batch, as numbers or as a tensor into which gradients flow', async () => {
    const base = await tinyModel({ dtype: 'f64' });
    const h = normal([3, 2, 16], 5);
    for (const kind of names) {
      const reft = getReftModel(base, { kind, layers: [1], rank: 2, positions: 'all', scale: 0.5 });
      const plain = noGrad(() => oneForward(reft, h).sub(h));
      const given = noGrad(() => oneForward(reft, h, undefined, { scale: [1, 0, -2] }).sub(h));
      const factors = create.from(Float64Array.of(1, 0, -2), [3, 1, 1]);
      assert.ok(furthest(given.dataSync(), plain.mul(factors).dataSync()) < 1e-13, kind);
      await gradcheck(scale => oneForward(reft, h, undefined, { scale }), [normal([3], 6)]);
    }
    const reft = getReftModel(base, { layers: [1], positions: 'all' });
    assert.throws(() => oneForward(reft, h, undefined, { scale: [1, 2] }), {
      message: 'scale: expected 3 finite numbers, one for each row of the batch, got [1,2]',
    });
    assert.throws(() => oneForward(reft, h, undefined, { scale: create.ones([2]) }), {
      message: /^scale: expected shape \[3\]/,
    });
  });

  test('in generation too, with subspaces: with the cache and without, in a batch and alone; at 0 it is the base', async () => {
    const base = await tinyModel({ dtype: 'f64' });
    const prompts = [
      [3, 5, 7],
      [2, 4, 6, 8, 1],
      [9, 1],
      [3, 5, 7],
    ];
    const options = { maxNewTokens: 6, stopTokenIds: [] };
    const idsOf = async (answers: Promise<{ ids: number[] }[]>): Promise<number[][]> => (await answers).map(a => a.ids);
    for (const config of [
      { positions: 'all', scale: 2 },
      { positions: 'l1', newTokens: { every: 2 }, kind: 'adaptive' },
    ] as const) {
      const reft = getReftModel(base, { layers: [0, 2], rank: 3, seed: 5, ...config });
      const scale = [3, 0, 1, -3];
      const subspaces = [[0, 2], null, [], null];
      const rows = { scale, subspaces };
      const together = await idsOf(reft.generate(prompts, { ...options, rows }));
      assert.deepEqual(
        await idsOf(reft.generate(prompts, { ...options, rows: () => rows, useCache: false })),
        together,
      );
      for (const [b, prompt] of prompts.entries()) {
        const alone = await idsOf(
          reft.generate(prompt, { ...options, rows: { scale: [scale[b]], subspaces: [subspaces[b]] } }),
        );
        assert.deepEqual(alone[0], together[b], `row ${b}`);
      }
      for (const b of [1, 2]) assert.deepEqual((await idsOf(base.generate(prompts[b], options)))[0], together[b]);
      assert.notDeepEqual(together[0], together[3]);
      await assert.rejects(reft.generate(prompts, { ...options, rows: { scale: [1] } }), {
        message: /^scale: expected 4 finite numbers/,
      });
    }
  });

  test('trained: one number for each intervention, from the configured one on, saved with the rest', async () => {
    const base = await tinyModel();
    const reft = getReftModel(base, { layers: [1], rank: 2, positions: 'all', scale: 0.25, trainScale: true });
    const [intervention] = reft.interventions;
    const h = create.normal([1, 3, 16], { seed: 7 });
    const fixed = getReftModel(base, { layers: [1], rank: 2, positions: 'all', scale: 0.25 });
    assert.ok(
      furthest(noGrad(() => oneForward(reft, h)).dataSync(), noGrad(() => oneForward(fixed, h)).dataSync()) < 1e-6,
      'furthest(noGrad(() => oneForward(reft, h)).dataSync(), noGrad(() =>...',
    );
    const { tensor } = reft.trained().find(t => t.name === 'block_output/1.scale') as { tensor: Tensor };
    const [g] = gradientsOf(oneForward(reft, h).sum(), [tensor]);
    const one = noGrad(() => oneForward(fixed, h).sub(h).sum().mul(4)).dataSync()[0];
    assert.ok(
      Math.abs((g as Tensor).dataSync()[0] - one) < 1e-4 * Math.max(1, Math.abs(one)),
      'Math.abs((g as Tensor).dataSync()[0] - one) < 1e-4 * Math.max(1, Ma...',
    );
    assert.equal(reft.parameterCount, fixed.parameterCount + 1);
    intervention.set('scale', create.from([0.75]));
    const again = await adapterFromFiles(base, await adapterToFiles(reft));
    assert.deepEqual(noGrad(() => oneForward(again, h)).dataSync(), noGrad(() => oneForward(reft, h)).dataSync());
  });
});

describe('starts', () => {
  test('identityStart changes nothing, for every kind that can, and can be trained from', async () => {
    const base = await tinyModel({ dtype: 'f64' });
    const h = normal([2, 3, 16], 8);
    const can: string[] = [];
    for (const kind of names) {
      for (const bias of [true, 'inner', false] as const) {
        const config: ReftConfig = { kind, layers: [1], rank: 3, positions: 'all', identityStart: true, bias };
        if (kind === 'consreft') {
          assert.throws(() => getReftModel(base, config), {
            message: 'identityStart: consreft has no start that changes nothing',
          });
          continue;
        }
        const reft = getReftModel(base, config);
        assert.ok(
          furthest(noGrad(() => oneForward(reft, h)).dataSync(), h.dataSync()) < 1e-13,
          `${kind}, bias ${bias}`,
        );
        const gradients = gradientsOf(
          oneForward(reft, h).square().sum(),
          reft.trained().map(t => t.tensor),
        );
        assert.ok(
          gradients.some(g => g?.dataSync().some(x => Math.abs(x) > 1e-6)),
          `${kind} has a gradient at its start`,
        );
        can.push(kind);
      }
    }
    assert.equal(new Set(can).size, names.length - 1);
    assert.throws(
      () => resolveConfig({ kind: 'loreft', layers: [0], activation: 'gelu', identityStart: true }, base.config),
      { message: /^identityStart: loreft with the activation gelu has no start/ },
    );
    assert.throws(
      () =>
        resolveConfig(
          { kind: 'direftOrthogonal', layers: [0], activation: 'sigmoid', identityStart: true },
          base.config,
        ),
      { message: /with the activation sigmoid/ },
    );
  });

  test('biases: all, the inner ones, or none', async () => {
    const base = await tinyModel();
    const has = (kind: string, bias: true | false | 'inner'): string =>
      Object.keys(noGrad(() => getReftModel(base, { kind, layers: [1], bias }).interventions[0].parameters())).join(
        ' ',
      );
    assert.deepEqual(
      [has('noreft', true), has('noreft', 'inner'), has('noreft', false)],
      ['W1 b W2 b2', 'W1 b W2', 'W1 W2'],
    );
    assert.deepEqual([has('loreft', true), has('loreft', 'inner'), has('loreft', false)], ['R W b', 'R W b', 'R W']);
    assert.deepEqual(
      [has('nonlinear', 'inner'), has('nonlinear', false), has('consreft', false)],
      ['R U b V', 'R U V', 'R s'],
    );
    assert.throws(() => getReftModel(base, { layers: [1], bias: 'outer' as 'inner' }), { message: /bias: / });
  });
});

test('what is outside the span of R is untouched; the states of every kind with R', async () => {
  const base = await tinyModel({ dtype: 'f64' });
  for (const kind of names.filter(hasR)) {
    for (const orthogonal of ['householder', 'cayley', 'exponential', 'qr', 'polar', 'torchHouseholder'] as const) {
      const reft = getReftModel(base, { kind, layers: [1], rank: 2, positions: 'all', orthogonal });
      const { R } = noGrad(() => reft.interventions[0].parameters());
      const { error } = orthonormalityError(R.dataSync(), R.shape);
      assert.ok(error < 1e-12, `R is ${error} from orthonormal`);
      const h = normal([1, 4, 16], 4);
      const delta = noGrad(() => oneForward(reft, h).sub(h).reshape([4, 16]));
      const outside = noGrad(() => delta.sub(delta.matmulT(R).matmul(R)).dataSync());
      assert.ok(
        Math.max(...delta.dataSync()) > 1e-3 && Math.max(...outside.map(Math.abs)) < 1e-12,
        `${kind}, ${orthogonal}`,
      );
    }
  }
});

describe('dropout', () => {
  const config = { layers: [1], rank: 2, positions: 'all', dropout: 0.5 } as const;

  test("on the difference, or on the state as pyreft's; off when not training (fault 3)", async () => {
    const base = await tinyModel();
    const h = create.normal([1, 40, 16], { seed: 9 });
    for (const kind of names) {
      for (const dropoutOn of ['difference', 'state'] as const) {
        const reft = getReftModel(base, { ...config, kind, dropoutOn });
        const without = getReftModel(base, { ...config, kind, dropout: 0 });
        for (const { interventions } of [reft, without]) shake(interventions, 3);
        const plain = noGrad(() => oneForward(without, h)).dataSync();
        assert.deepEqual(noGrad(() => oneForward(reft, h)).dataSync(), plain, `${kind}: no dropout outside training`);
        const dropped = noGrad(() => oneForward(reft, h, { seed: 1, step: 3 })).dataSync();
        assert.deepEqual(
          noGrad(() => oneForward(reft, h, { seed: 1, step: 3 })).dataSync(),
          dropped,
          'the same step, the same mask',
        );
        assert.notDeepEqual(noGrad(() => oneForward(reft, h, { seed: 1, step: 4 })).dataSync(), dropped);
        const from = h.dataSync();
        let kept = 0;
        dropped.forEach((x, i) => {
          const full = dropoutOn === 'difference' ? from[i] + 2 * (plain[i] - from[i]) : 2 * plain[i];
          const none = dropoutOn === 'difference' ? from[i] : 0;
          const isKept = Math.abs(x - full) < 1e-4;
          assert.ok(
            isKept || Math.abs(x - none) < 1e-5,
            `${kind}, ${dropoutOn}: entry ${i} is ${x}, expected ${full} or ${none}`,
          );
          kept += Number(isKept);
        });
        assert.ok(
          kept > 0.3 * dropped.length && kept < 0.7 * dropped.length,
          `${kind}: ${kept} of ${dropped.length} kept`,
        );
      }
    }
  });

  test('gradients flow through the mask that was drawn', async () => {
    const base = await tinyModel({ dtype: 'f64' });
    for (const dropoutOn of ['difference', 'state'] as const) {
      const reft = getReftModel(base, { ...config, dropoutOn });
      await gradcheck(h => oneForward(reft, h, { seed: 2, step: 1 }), [normal([1, 3, 16], 3)]);
    }
  });
});

/**
 * Every parameter moved at random, R through its map. torch's diagonal stays: its int() would make 0 of it (fault 1).
 */
function shake(interventions: readonly Intervention[], seed: number): void {
  interventions.forEach((intervention, i) =>
    intervention.trained().forEach(({ name, tensor }, k) => {
      const noise = create.normal(tensor.shape, { seed: seed + 100 * i + k, std: 0.3, dtype: tensor.dtype as 'f32' });
      intervention.setState(
        name,
        noGrad(() => tensor.detach().add(name.endsWith('.R.original') ? noise.tril(-1) : noise)),
      );
    }),
  );
}

test('save and load give the same bits and the same bytes, for every kind, map and bias (fault 4)', async () => {
  const base = await tinyModel();
  const h = create.normal([1, 5, 16], { seed: 11 });
  const configs: ReftConfig[] = [
    ...names.map(kind => ({
      kind,
      kindOptions: kind === 'adaptive' ? { experts: 3 } : kind === 'nonlinear' ? { hidden: 5 } : {},
    })),
    ...(['cayley', 'exponential', 'qr', 'polar', 'torch'] as const).map(orthogonal => ({ orthogonal })),
    { kind: 'noreft', bias: 'inner' },
    { kind: 'noreft', bias: false },
    { kind: 'gated', activation: 'gelu', dropout: 0.25, dropoutOn: 'state', scale: 0.5, trainScale: true },
  ].map(c => ({ layers: [0, 2], rank: 3, positions: 'all', ...c }) as ReftConfig);
  for (const config of configs) {
    const reft = getReftModel(base, config);
    shake(reft.interventions, 1);
    const files = await adapterToFiles(reft);
    const again = await adapterFromFiles(base, files);
    assert.deepEqual(again.configs, reft.configs);
    for (const [i, intervention] of reft.interventions.entries()) {
      const [a, b] = [intervention, again.interventions[i]].map(x => noGrad(() => x.parameters()));
      for (const name of Object.keys(a))
        assert.deepEqual(b[name].dataSync(), a[name].dataSync(), `${config.kind ?? 'loreft'} ${name}`);
    }
    assert.deepEqual(noGrad(() => oneForward(again, h)).dataSync(), noGrad(() => oneForward(reft, h)).dataSync());
    const twice = await adapterToFiles(again);
    for (const [name, bytes] of files) assert.deepEqual(twice.get(name), bytes, name);
  }
});

test('many edits of one shape are evaluated together, with the gradients each has alone', async () => {
  const base = await tinyModel({ dtype: 'f64' });
  for (const orthogonal of ['householder', 'cayley', 'exponential', 'qr', 'polar', 'torch'] as const) {
    const reft = getReftModel(base, [
      { layers: 'all', rank: 2, positions: 'f2+l2', orthogonal },
      {
        kind: 'adaptive',
        component: 'mlp_output',
        layers: [0, 1],
        rank: 1,
        orthogonal,
        positions: 'l1',
        kindOptions: { experts: 2 },
      },
    ]);
    shake(reft.interventions, 5);
    const inputIds = Int32Array.of(3, 5, 7, 9, 2, 8);
    const layout = { batch: 1, width: 6, starts: [0], promptLengths: [5], lengths: [6] };
    const labels = Int32Array.of(-100, -100, -100, -100, -100, 4);
    const leaves = reft.trained().map(t => t.tensor);
    const run = (together: boolean): (ArrayLike<number> | undefined)[] =>
      scope(() => {
        const options = { inputIds, shape: [1, 6] };
        const { loss } = together
          ? reft.loss(options, labels, layout)
          : base.loss({ ...options, edits: reft.edits(layout) }, labels);
        return gradientsOf(loss, leaves).map(g => g?.dataSync());
      });
    const [together, alone] = [run(true), run(false)];
    together.forEach((g, i) => {
      assert.ok(g && furthest(g, alone[i] as ArrayLike<number>) < 1e-13, `${orthogonal}: ${reft.trained()[i].name}`);
    });
  }
});

test('wrong options are refused by name', async () => {
  const { config } = await tinyModel();
  const resolve = (c: ReftConfig) => () => resolveConfig(c, config);
  assert.throws(resolve({ kind: 'adaptive', layers: [0], kindOptions: { expert: 2 } }), {
    message: "kindOptions: adaptive has no option 'expert'; it has experts",
  });
  assert.throws(resolve({ kind: 'loreft', layers: [0], kindOptions: { experts: 2 } }), {
    message: "kindOptions: loreft has no option 'experts'; it has none",
  });
  assert.throws(resolve({ kind: 'adaptive', layers: [0], kindOptions: { experts: true } }), {
    message: 'kindOptions.experts: expected a number like 4, got true',
  });
  assert.throws(resolve({ kind: 'adaptive', layers: [0], kindOptions: { experts: 1.5 } }), {
    message: /^edit 'adaptive', parameter 'G': expected a shape of whole numbers/,
  });
  assert.throws(resolve({ kind: 'adaptive', layers: [0], rank: 8, kindOptions: { experts: 4 } }), {
    message: /^edit 'adaptive', parameter 'R': orthonormal rows need a shape \[k, n\] with k at most n, got \[32,16\]$/,
  });
  assert.throws(resolve({ layers: [0], orthogonal: 'givens' as 'qr' }), { message: /^ReFT configuration: orthogonal/ });
  assert.throws(resolve({ layers: [0], dropoutOn: 'both' as 'state' }), { message: /^ReFT configuration: dropoutOn/ });
  assert.equal(resolve({ kind: 'nonlinear', layers: [0] })().activation, 'gelu');
  assert.equal(Object.keys(kinds).length, 6);
  assert.ok(editActivations.includes('gelu_tanh'), "editActivations.includes('gelu_tanh')");
});
