// Edits on a model: what each kind computes, on which rows, with which gradients; and that padding, batching and the
// cache change nothing.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { gradcheck } from '../src/autograd/gradcheck.js';
import { scope } from '../src/autograd/scope.js';
import { noGrad } from '../src/autograd/tape.js';
import { collate } from '../src/data/collate.js';
import type { Backend } from '../src/backends/backend.js';
import {
  edit,
  getReftModel,
  kinds,
  layoutOf,
  type PlacedKind,
  type ReftConfig,
  type ReftModel,
} from '../src/reft/index.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { tinyExample } from './helpers/tinyExamples.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';
import { onWholeBatch } from './helpers/packed.js';

const allKinds = Object.values(kinds) as PlacedKind[];
const furthest = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i])));
const normal = (shape: number[], seed: number): Tensor => create.normal(shape, { seed, dtype: 'f64' });

/** The bank of a kind from tensors [slots, r, d] and [slots, r] by parameter name. */
const bankOf = (kind: PlacedKind, tensors: readonly Tensor[]) =>
  kind.place(Object.fromEntries(kind.parameters.map((p, i) => [p.name, tensors[i]])));

describe('every kind', () => {
  const [slots, r, d] = [2, 3, 5];
  const parameters = (kind: PlacedKind): Tensor[] =>
    kind.parameters.map((p, i) => normal(p.shape === 'matrix' ? [slots, r, d] : [slots, r], 10 + i));
  const rows = { indices: Int32Array.of(4, 0, 3), slots: Int32Array.of(1, 0, 1) };

  test('has the gradients of its formula, with several slots, a scale and an activation', async () => {
    for (const kind of allKinds) {
      for (const activation of ['linear', 'gelu', 'tanh'] as const) {
        await gradcheck(
          (h, scale, ...tensors) => edit(h, { ...bankOf(kind, tensors), activation }, { ...rows, scale }),
          [normal([2, 3, d], 1), normal([3], 2), ...parameters(kind)],
        );
      }
    }
  });

  test('computes its formula, on the given rows only', () => {
    const h = normal([2, 3, d], 1);
    const before = h.dataSync();
    for (const kind of allKinds) {
      const tensors = parameters(kind);
      const after = edit(h, bankOf(kind, tensors), rows).dataSync();
      for (let row = 0; row < 6; row++) {
        const x = Array.from(before.slice(row * d, (row + 1) * d));
        const slot = rows.slots[rows.indices.indexOf(row)];
        const inSlot = tensors.map(t => Array.from(t.select(0, slot ?? 0).dataSync()));
        const expected = slot === undefined ? x : formula(kind, x, inSlot);
        const bound = slot === undefined ? 0 : 1e-12;
        assert.ok(furthest(after.slice(row * d, (row + 1) * d), expected) <= bound, `${kind.name}, row ${row}`);
      }
    }
  });

  /** The formulas of the paper in plain numbers. */
  function formula(kind: PlacedKind, h: number[], values: number[][]): number[] {
    const p = Object.fromEntries(kind.parameters.map(({ name }, i) => [name, values[i]]));
    const times = (M: number[]): number[] =>
      Array.from({ length: r }, (_, i) => h.reduce((s, x, k) => s + M[i * d + k] * x, 0));
    const plus = (a: number[], b: number[], sign = 1): number[] => a.map((x, i) => x + sign * b[i]);
    const lift = (u: number[], M: number[]): number[] =>
      h.map((x, k) => x + u.reduce((s, ui, i) => s + ui * M[i * d + k], 0));
    switch (kind.name) {
      case 'loreft':
        return lift(plus(plus(times(p.W), p.b), times(p.R), -1), p.R);
      case 'direft':
        return lift(plus(times(p.W1), p.b), p.W2);
      case 'direftOrthogonal':
        return lift(plus(times(p.W), p.b), p.R);
      case 'noreft':
        return lift(plus(plus(times(p.W1), p.b), plus(times(p.W2), p.b2), -1), p.W2);
      case 'consreft':
        return lift(plus(p.s, times(p.R), -1), p.R);
      case 'lobireft':
        return lift(p.s, p.R);
      default:
        throw new Error(kind.name);
    }
  }
});

/** Logits [B, T, vocabulary] of right- or left-padded rows, with their edits. */
function padded(
  reft: ReftModel,
  rows: { ids: Int32Array; promptLength: number }[],
  side: 'left' | 'right',
): Float32Array[] {
  const batch = collate(
    rows.map(row => ({ ...row, labels: row.ids })),
    { padTokenId: 0, side },
  );
  const [, width] = batch.shape;
  const layout = layoutOf(batch.attentionMask, batch.shape, batch.promptLengths);
  const all = noGrad(() => scope(() => reft.forward(batch, layout).logits.dataSync() as Float32Array));
  const vocabulary = all.length / (rows.length * width);
  return rows.map(({ ids }, b) =>
    all.slice((b * width + batch.starts[b]) * vocabulary, (b * width + batch.starts[b] + ids.length) * vocabulary),
  );
}

const build = async (config: ReftConfig | ReftConfig[], device?: Backend): Promise<ReftModel> => {
  const reft = getReftModel(await tinyModel(device ? { device } : {}), config);
  reft.onWarning = () => undefined;
  return reft;
};

describe('on a model', () => {
  test('an edit by R moves hidden states within the span of R only', async () => {
    for (const kind of ['loreft', 'direftOrthogonal', 'consreft', 'lobireft'] as const) {
      const reft = await build({ kind, layers: [1], rank: 3, positions: 'all' });
      const { R } = noGrad(() => reft.interventions[0].parameters());
      const h = create.normal([1, 6, 16], { seed: 4 });
      const [edit] = reft.edits({ batch: 1, width: 6, starts: [0], promptLengths: [6], lengths: [6] });
      const apply = onWholeBatch(edit);
      const delta = noGrad(() => apply(h).sub(h).reshape([6, 16]));
      const outside = noGrad(() => delta.sub(delta.matmulT(R).matmul(R)).dataSync());
      assert.ok(Math.max(...delta.dataSync()) > 0.1 && Math.max(...outside.map(Math.abs)) < 1e-5, kind);
    }
  });

  test('identityStart starts at the unchanged model; edits change it', async () => {
    const rows = [tinyExample(6, 2, 1)];
    const plain = await build({ layers: [1] });
    plain.enabled = false;
    const [base] = padded(plain, rows, 'right');
    for (const orthogonal of ['householder', 'torch'] as const) {
      const [same] = padded(
        await build({ layers: 'all', identityStart: true, rank: 4, positions: 'all', orthogonal }),
        rows,
        'right',
      );
      assert.ok(furthest(same, base) < 1e-5, 'furthest(same, base) < 1e-5');
    }
    assert.ok(
      furthest(padded(await build({ layers: [1] }), rows, 'right')[0], base) > 1e-2,
      "furthest(padded(await build({ layers: [1] }), rows, 'right')[0], ba...",
    );
  });

  test('switched off it is the base, bit for bit; at scale 0 too; so is an unedited token', async () => {
    const ids = tinyIds(7, 3);
    const reft = await build([
      { layers: [0, 1], positions: 'f1+l1' },
      { kind: 'direft', layers: [2], component: 'mlp_output', positions: 'l2' },
    ]);
    const layout = layoutOf(new Int32Array(7).fill(1), [1, 7], [6]);
    const forward = (): Float32Array =>
      noGrad(() =>
        scope(() => reft.forward({ inputIds: ids, shape: [1, 7] }, layout).logits.dataSync() as Float32Array),
      );
    const base = noGrad(() => scope(() => reft.base.forward({ inputIds: ids, shape: [1, 7] }).logits.dataSync()));
    assert.ok(furthest(forward(), base) > 1e-2, 'furthest(forward(), base) > 1e-2');
    reft.enabled = false;
    assert.deepEqual(forward(), base);
    reft.enabled = true;
    for (const i of reft.interventions) i.enabled = false;
    assert.deepEqual(forward(), base);
    for (const i of reft.interventions) Object.assign(i, { enabled: true, scale: 0 });
    assert.ok(furthest(forward(), base) === 0, 'furthest(forward(), base) === 0');
    const last = await build({ layers: [1], positions: 'l1' });
    const edited = noGrad(() => scope(() => last.forward({ inputIds: ids, shape: [1, 7] }, layout).logits.dataSync()));
    const before = 5 * (base.length / 7);
    assert.deepEqual(edited.slice(0, before), base.slice(0, before));
  });

  test('padding on either side and the rest of a batch change nothing', async () => {
    const rows = [
      tinyExample(5, 3, 1),
      tinyExample(2, 1, 2),
      tinyExample(9, 2, 3),
      { ...tinyExample(4, 2, 4), ids: new Int32Array(6) },
    ];
    for (const config of [
      { layers: [0, 2], positions: 'f2+l2' },
      { layers: [1], positions: 'f1+l1', tied: true },
      { layers: 'all', positions: 'all' },
    ] as const) {
      const reft = await build({ ...config, rank: 2 });
      const alone = rows.map(row => padded(reft, [row], 'right')[0]);
      for (const side of ['left', 'right'] as const) {
        padded(reft, rows, side).forEach((logits, b) => {
          assert.ok(furthest(logits, alone[b]) < 1e-4, `${side}, row ${b}`);
        });
      }
    }
  });

  test('tied is one edit a layer, untied two, prefix ones first', async () => {
    const shape = async (config: Partial<ReftConfig>): Promise<string[]> =>
      (await build({ layers: [0, 2], positions: 'f2+l2', ...config })).interventions.map(i => `${i.id} ${i.side}`);
    assert.deepEqual(await shape({ tied: true }), ['block_output/0 both', 'block_output/2 both']);
    assert.deepEqual(await shape({}), [
      'block_output/0 prefix',
      'block_output/2 prefix',
      'block_output/0#1 suffix',
      'block_output/2#1 suffix',
    ]);
    assert.deepEqual(await shape({ positions: 'l2' }), ['block_output/0 both', 'block_output/2 both']);
    const { base, parameterCount } = await build({ layers: [0, 2], positions: 'f2+l2', rank: 4 });
    assert.equal(parameterCount, 4 * (2 * base.config.hiddenSize * 4 + 4));
  });

  test('two interventions at one place, and other wrong configurations, are refused', async () => {
    await assert.rejects(
      build([{ layers: [1] }, { kind: 'direft', layers: [0, 1] }]),
      /^RangeError: two interventions at block_output\/1/,
    );
    await assert.rejects(build({ layers: [3] }), /layers: 3 is out of range, the model has layers 0\.\.2/);
    await assert.rejects(build({ layers: [1, 1] }), /names a layer twice/);
    await assert.rejects(build({ layers: [1], rank: 17 }), /rank: 17 is more than the 16 numbers of a hidden state/);
    await assert.rejects(
      build({ layers: [1], kind: 'lora' as 'loreft' }),
      /intervention 'lora' is not known; known: loreft, direft/,
    );
    await assert.rejects(
      build({ layers: [1], kind: 'consreft', identityStart: true }),
      /consreft has no start that changes nothing/,
    );
    await assert.rejects(build({ layers: [1], ranks: 2 } as ReftConfig), /ReFT configuration: .*ranks/);
  });

  test('edits are values: calls share nothing, and the base keeps no trace (faults 6, 14)', async () => {
    const base = await tinyModel();
    const [a, b] = [
      getReftModel(base, { layers: [1], positions: '0', seed: 1 }),
      getReftModel(base, { layers: [1], positions: 'l1', seed: 2 }),
    ];
    const rows = [tinyExample(5, 2, 1), tinyExample(3, 1, 2)];
    const first = padded(b, rows, 'right');
    padded(a, rows, 'left');
    padded(a, rows.slice(0, 1), 'right');
    assert.deepEqual(padded(b, rows, 'right'), first);
  });
});

describe('generation', () => {
  const prompts = [tinyIds(5, 1), tinyIds(2, 2), tinyIds(8, 3)].map(ids => [...ids]);
  const configs: ReftConfig[] = [
    { layers: [1], positions: 'l1' },
    { layers: [0, 2], positions: 'f1+l1' },
    { layers: 'all', positions: 'all', kind: 'direft' },
    { layers: [1], positions: '0,-1', component: 'mlp_output' },
  ];

  test('with the cache and without give the same answers (fault 10), in a batch and one by one', async () => {
    for (const config of configs) {
      const reft = await build({ ...config, rank: 4, scale: 3 });
      const options = { maxNewTokens: 8, stopTokenIds: [] };
      const together = (await reft.generate(prompts, options)).map(g => g.ids);
      assert.deepEqual(
        (await reft.generate(prompts, { ...options, useCache: false })).map(g => g.ids),
        together,
      );
      for (const [b, prompt] of prompts.entries())
        assert.deepEqual((await reft.generate(prompt, options))[0].ids, together[b]);
      const base = (await reft.base.generate(prompts, options)).map(g => g.ids);
      assert.notDeepEqual(together, base);
      reft.enabled = false;
      assert.deepEqual(
        (await reft.generate(prompts, options)).map(g => g.ids),
        base,
      );
    }
  });

  test('tells once of prompts too short for their positions', async () => {
    const reft = await build({ layers: [1], positions: 'l3' });
    const told: string[] = [];
    reft.onWarning = message => told.push(message);
    await reft.generate(prompts, { maxNewTokens: 3, stopTokenIds: [] });
    await reft.generate(prompts, { maxNewTokens: 3, stopTokenIds: [] });
    assert.deepEqual(told, ['positions l3: some prompts are too short; their missing positions are left out']);
  });
});
