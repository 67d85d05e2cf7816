// Edits of its own for each row of a batch, in training and in generation, and trained sets put together on one row.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { noGrad } from '../src/autograd/tape.js';
import type { Backend } from '../src/backends/backend.js';
import { createCpuBackend } from '../src/backends/index.js';
import {
  compose,
  getReftModel,
  layoutOf,
  mixEdits,
  principalAngles,
  type ReftConfig,
  type ReftModel,
  type RowEdits,
} from '../src/reft/index.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { Random } from '../src/tensor/threefry.js';
import { runs } from './helpers/draw.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const width = 7;
const promptLength = 4;
const configs: ReftConfig[] = [
  { layers: [0, 2], positions: 'l1', rank: 2 },
  { layers: [0, 2], positions: 'f1+l1', rank: 2, tied: true },
  { layers: [1], positions: 'l1', rank: 3, kind: 'direft' },
  { layers: [0], positions: 'all', rank: 2, activation: 'gelu' },
  { kind: 'lobireft', layers: [0, 1, 2], positions: 'l2', rank: 1, scale: 3 },
  { layers: [2], component: 'attention_value_output', heads: [1, 3], positions: 'all', rank: 2 },
  { kind: 'gated', layers: [1], positions: 'all', rank: 2 },
];

async function difference(a: Tensor, b: Tensor): Promise<number> {
  const [x, y] = [await a.data(), await b.data()];
  assert.equal(x.length, y.length);
  return Float64Array.from(x).reduce((most, v, i) => Math.max(most, Math.abs(v - y[i])), 0);
}

const rowInputs = (row: number) => ({ inputIds: tinyIds(width, row), shape: [1, width] }) as const;
const layout = (batch: number) =>
  layoutOf(new Int32Array(batch * width).fill(1), [batch, width], new Array<number>(batch).fill(promptLength));
const batchInputs = (batch: number) =>
  ({
    inputIds: Int32Array.from(Array.from({ length: batch }, (_, row) => [...tinyIds(width, row)]).flat()),
    shape: [batch, width],
  }) as const;

describe('a batch of different edits', () => {
  test('gives each row what it gets alone, stacked sets in list order', async () => {
    const model = await tinyModel();
    const sets = configs.map((config, i) => getReftModel(model, { ...config, seed: i }));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(fc.nat(sets.length - 1), { maxLength: 3 }), { minLength: 1, maxLength: 5 }),
        async chosen => {
          const rows = chosen.map((list): RowEdits =>
            list.length === 0 ? null : list.length === 1 ? sets[list[0]] : list.map(i => sets[i]),
          );
          const mixed = mixEdits(rows, model);
          const together = noGrad(() => mixed.forward(batchInputs(rows.length), layout(rows.length))).logits;
          for (const [b, list] of chosen.entries()) {
            const alone = noGrad(() =>
              model.forward({ ...rowInputs(b), edits: list.flatMap(i => sets[i].edits(layout(1))) }),
            ).logits;
            assert.ok(
              (await difference(together.slice(0, b, b + 1), alone)) < 2e-5,
              `row ${b} with sets ${list.join(',') || 'none'}`,
            );
          }
          mixed.dispose();
        },
      ),
      { ...runs(25), examples: [[[[0], [1], [0, 1], []]]] },
    );
  });

  test('a row without edits is the base, bit for bit; switches and scales act at once', async () => {
    const model = await tinyModel();
    const [a, b] = [0, 1].map(seed => getReftModel(model, { ...configs[0], seed }));
    const mixed = mixEdits([a, null, b]);
    const run = (): Tensor => noGrad(() => mixed.forward(batchInputs(3), layout(3))).logits;
    const base = noGrad(() => model.forward(batchInputs(3))).logits;
    const first = run();
    assert.equal(await difference(first.slice(0, 1, 2), base.slice(0, 1, 2)), 0);
    assert.ok(
      (await difference(first.slice(0, 0, 1), base.slice(0, 0, 1))) > 1e-3,
      'await difference(first.slice(0, 0, 1), base.slice(0, 0, 1)) > 1e-3',
    );
    a.enabled = false;
    const off = run();
    assert.equal(await difference(off.slice(0, 0, 1), base.slice(0, 0, 1)), 0);
    assert.equal(await difference(off.slice(0, 2, 3), first.slice(0, 2, 3)), 0);
    a.enabled = true;
    for (const i of b.interventions) i.scale = 0;
    assert.ok(
      (await difference(run().slice(0, 2, 3), base.slice(0, 2, 3))) < 1e-6,
      'await difference(run().slice(0, 2, 3), base.slice(0, 2, 3)) < 1e-6',
    );
    for (const i of b.interventions) i.scale = 1;
    assert.equal(await difference(run(), first), 0);
    // Trained on: the bank that was kept is not taken again.
    const [{ tensor }] = a.trained().filter(t => t.name.endsWith('.b'));
    tensor.storage.version++;
    tensor.backend.write(tensor.storage.allocation, 0, Float32Array.of(5, -5));
    assert.ok(
      (await difference(run().slice(0, 0, 1), first.slice(0, 0, 1))) > 1e-3,
      'await difference(run().slice(0, 0, 1), first.slice(0, 0, 1)) > 1e-3',
    );
    mixed.dispose();
  });

  test('trains each set as it would train alone', async () => {
    const model = await tinyModel({ dtype: 'f64' });
    const sets = [0, 1].map(seed => getReftModel(model, { ...configs[1], seed }));
    const labels = (batch: number): Int32Array =>
      Int32Array.from(batchInputs(batch).inputIds, (id, i) => (i % width < promptLength ? -100 : id));
    const gradients = async (): Promise<number[][]> => {
      const all = await Promise.all(
        sets.flatMap(s => s.trained()).map(async t => [...(await (t.tensor.grad as Tensor).data())]),
      );
      for (const { tensor } of sets.flatMap(s => s.trained())) tensor.grad = null;
      return all;
    };
    mixEdits([sets[0], sets[1]]).loss(batchInputs(2), labels(2), layout(2)).loss.backward();
    const together = await gradients();
    sets.forEach((set, b) =>
      set
        .loss(rowInputs(b), labels(2).subarray(b * width, (b + 1) * width), layout(1))
        .loss.mul(0.5)
        .backward(),
    );
    (await gradients()).forEach((expected, i) =>
      expected.forEach((v, k) =>
        assert.ok(
          Math.abs(v - together[i][k]) <= 1e-10 * Math.max(1, Math.abs(v)),
          'Math.abs(v - together[i][k]) <= 1e-10 * Math.max(1, Math.abs(v))',
        ),
      ),
    );
  });

  test('generates what each row generates alone; with prompt-only edits a decode step runs the kernels of the base', async () => {
    const calls: string[] = [];
    const backend = createCpuBackend();
    const model = await tinyModel({ device: logged(backend, calls) });
    const sets = configs
      .slice(0, 4)
      .map((config, i) => getReftModel(model, { ...config, seed: i, ...(i < 3 ? {} : { newTokens: { every: 2 } }) }));
    const prompts = [
      [3, 5, 7],
      [2, 4, 6, 8],
      [9, 1],
      [11, 3, 2],
      [5, 5],
    ];
    const rows: RowEdits[] = [sets[0], sets[3], null, [sets[1], sets[2]], sets[2]];
    const options = { maxNewTokens: 6, stopTokenIds: [] };
    const together = await mixEdits(rows).generate(prompts, options);
    for (const [b, prompt] of prompts.entries()) {
      const [alone] = await mixEdits([rows[b]], model).generate(prompt, options);
      assert.deepEqual(together[b].ids, alone.ids, `row ${b}`);
    }
    const steps = async (edits: RowEdits[] | null): Promise<string[]> => {
      const marks: number[] = [];
      calls.length = 0;
      const onToken = (row: number): void => void (row === 0 && marks.push(calls.length));
      if (edits) await mixEdits(edits).generate(prompts, { ...options, onToken });
      else await model.generate(prompts, { ...options, onToken });
      return marks.slice(1).map((mark, i) => calls.slice(marks[i], mark).join());
    };
    const base = await steps(null);
    assert.ok(base[0].includes('matmul'), "base[0].includes('matmul')");
    assert.deepEqual(await steps([sets[0], sets[1], null, [sets[1], sets[2]], sets[2]]), base);
    assert.notDeepEqual(await steps([sets[3], sets[1], null, sets[2], sets[2]]), base);
  });

  test('scale and subspaces by row reach each set, in mixtures and compositions', async () => {
    const model = await tinyModel({ dtype: 'f64' });
    const [a, b] = [1, 2].map(seed =>
      getReftModel(model, { layers: [0, 2], positions: 'all', rank: 2, seed, scale: seed }),
    );
    const together = await compose([a, b], 'stack');
    const [scale, subspaces] = [
      [0.5, 2, -1],
      [[1], null, [0]],
    ];
    for (const options of [{ scale }, { scale, subspaces }, { subspaces }]) {
      const mixed = noGrad(() =>
        mixEdits([a, b, [a, b]]).forward(batchInputs(3), layout(3), undefined, options),
      ).logits;
      const stacked = noGrad(() => together.forward(batchInputs(3), layout(3), undefined, options)).logits;
      for (const [row, list] of [[a], [b], [a, b]].entries()) {
        const own = {
          ...('scale' in options ? { scale: [scale[row]] } : {}),
          ...('subspaces' in options ? { subspaces: [subspaces[row]] } : {}),
        };
        const alone = (sets: ReftModel[]): Tensor =>
          noGrad(() =>
            model.forward({ ...rowInputs(row), edits: sets.flatMap(set => set.edits(layout(1), undefined, own)) }),
          ).logits;
        assert.ok((await difference(mixed.slice(0, row, row + 1), alone(list))) < 1e-10, `row ${row} of a mixture`);
        assert.ok(
          (await difference(stacked.slice(0, row, row + 1), alone([a, b]))) < 1e-10,
          `row ${row} of a composition`,
        );
      }
    }
    const some = mixEdits([a, b, [a, b]]);
    const byIntervention = noGrad(() =>
      some.forward(batchInputs(3), layout(3), undefined, i => (a.interventions.includes(i) ? { scale } : {})),
    ).logits;
    const first = noGrad(() => a.forward(rowInputs(0), layout(1), undefined, { scale: [0.5] })).logits;
    assert.ok(
      (await difference(byIntervention.slice(0, 0, 1), first)) < 1e-10,
      'await difference(byIntervention.slice(0, 0, 1), first) < 1e-10',
    );
    assert.ok(
      (await difference(byIntervention.slice(0, 1, 2), noGrad(() => b.forward(rowInputs(1), layout(1))).logits)) <
        1e-10,
      'await difference(byIntervention.slice(0, 1, 2), noGrad(() => b.forw...',
    );
  });

  test('one kernel for many sets at a site', async () => {
    const model = await tinyModel();
    const sets = Array.from({ length: 40 }, (_, seed) =>
      getReftModel(model, { layers: [1], positions: 'l1', rank: 2, seed }),
    );
    const edits = mixEdits(sets).edits(layout(40));
    assert.equal(edits.length, 1);
    const together = noGrad(() => model.forward({ ...batchInputs(40), edits })).logits;
    const last = noGrad(() => sets[39].forward(rowInputs(39), layout(1))).logits;
    assert.ok(
      (await difference(together.slice(0, 39, 40), last)) < 2e-5,
      'await difference(together.slice(0, 39, 40), last) < 2e-5',
    );
  });

  test('what does not fit is refused', async () => {
    const [model, other] = [await tinyModel(), await tinyModel({ seed: 2 })];
    const [a, b] = [getReftModel(model, configs[0]), getReftModel(other, configs[0])];
    assert.throws(() => mixEdits([a, b]), /^RangeError: mixEdits: the sets belong to different models/);
    assert.throws(() => mixEdits([null]), /no row has edits; give the model/);
    assert.throws(() => mixEdits([a, null]).edits(layout(3)), /edits for 2 rows, a batch of 3/);
  });
});

function logged(backend: Backend, calls: string[]): Backend {
  for (const [name, kernel] of Object.entries(backend.kernels)) {
    Object.assign(backend.kernels, {
      [name]: (call: never) => {
        calls.push(name);
        (kernel as (call: never) => void)(call);
      },
    });
  }
  for (const [name, kernel] of backend.fused) backend.fused.set(name, call => kernel(call) && calls.push(name) > 0);
  return backend;
}

describe('composition', () => {
  /** Two rank-2 loreft sets whose R are rows 0-1 and `from`, `from` + 1 of one orthonormal frame. */
  async function pair(from: number): Promise<ReftModel[]> {
    const model = await tinyModel({ dtype: 'f64' });
    const sets = [0, 1].map(seed => getReftModel(model, { layers: [1], positions: 'all', rank: 2, seed }));
    const frame = await getReftModel(model, { layers: [1], rank: 6, seed: 9 })
      .interventions[0].parameters()
      .R.data();
    sets.forEach(({ interventions: [intervention] }, i) => {
      const at = i === 0 ? 0 : from;
      intervention.set(
        'R',
        create.from(Float64Array.from(frame.subarray(at * 16, (at + 2) * 16)), [2, 16], {
          dtype: 'f64',
          backend: model.backend,
        }),
      );
    });
    return sets;
  }
  const logits = (set: { forward: ReftModel['forward'] }): Tensor =>
    noGrad(() => set.forward(batchInputs(1), layout(1))).logits;

  test('parts of one R: added or stacked in any order is one and the same; the report says that nothing is shared', async () => {
    const [a, b] = await pair(2);
    const parts = await compose([a, b], 'partition');
    parts.overlaps.forEach(({ angles }) =>
      angles?.forEach(angle => assert.ok(Math.abs(angle - Math.PI / 2) < 1e-6, 'Math.abs(angle - Math.PI / 2) < 1e-6')),
    );
    assert.match(parts.report(), /^block_output\/1: sets 0 and 1: principal angles 90\.0°, 90\.0°$/);
    assert.ok(
      (await difference(logits(parts), logits(await compose([a, b], 'add')))) < 1e-12,
      "await difference(logits(parts), logits(await compose([a, b], 'add')...",
    );
    // W of one set reads what the other has written: stacking is the same only where they do not meet.
    assert.ok(
      (await difference(
        logits(await compose([a, b], 'stack')),
        noGrad(() => a.base.forward({ ...batchInputs(1), edits: [...a.edits(layout(1)), ...b.edits(layout(1))] }))
          .logits,
      )) === 0,
      "await difference(logits(await compose([a, b], 'stack')), noGrad(() ...",
    );
  });

  test('interpolation ends at the sets themselves and is linear in between at the site', async () => {
    const [a, b] = await pair(1);
    for (const [weights, set] of [
      [[1, 0], a],
      [[0, 1], b],
    ] as const)
      assert.ok(
        (await difference(logits(await compose([a, b], 'interpolate', { weights })), logits(set))) < 1e-9,
        "await difference(logits(await compose([a, b], 'interpolate', { weig...",
      );
    const site = { layer: 1, component: 'block_output' } as const;
    const at = async (set: { edits: ReftModel['edits'] }): Promise<Tensor> =>
      noGrad(() => a.base.forward({ ...batchInputs(1), edits: set.edits(layout(1)), collect: [site] })).collected.get(
        'block_output/1',
      ) as Tensor;
    const middle = await at(await compose([a, b], 'interpolate'));
    assert.ok(
      (await difference(middle, (await at(a)).add(await at(b)).mul(0.5))) < 1e-12,
      'await difference(middle, (await at(a)).add(await at(b)).mul(0.5)) <...',
    );
  });

  test('overlap is told, and what has no meaning is refused', async () => {
    const [a, b] = await pair(1);
    const {
      overlaps: [{ angles }],
    } = await compose([a, b], 'stack');
    assert.ok(
      angles && Math.abs(angles[0]) < 1e-6 && Math.abs(angles[1] - Math.PI / 2) < 1e-6,
      'angles && Math.abs(angles[0]) < 1e-6 && Math.abs(angles[1] - Math.P...',
    );
    await assert.rejects(
      compose([a, b], 'partition'),
      /^RangeError: compose: block_output\/1: sets 0 and 1 share directions \(smallest principal angle 0\.00°\), so they are not parts of one R/,
    );
    const noRotation = getReftModel(a.base, { kind: 'direft', layers: [1], rank: 2 });
    await assert.rejects(compose([a, noRotation], 'partition'), /block_output\/1: direft has no R/);
    await assert.rejects(compose([a, b], 'interpolate', { weights: [1, 1] }), /must add to 1, \[1, 1\] add to 2/);
    await assert.rejects(compose([a, b], 'stack', { weights: [1, 1] }), /weights have no meaning for 'stack'/);
    await assert.rejects(compose([a, a], 'add'), /a set is named twice/);
    await assert.rejects(compose([], 'add'), /no sets/);
    await assert.rejects(
      compose([a, getReftModel(await tinyModel({ seed: 5 }), configs[0])], 'add'),
      /different models/,
    );
  });

  test('principal angles are those of a rotated frame', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 1e-7, max: Math.PI / 2, noNaN: true }), { minLength: 1, maxLength: 4 }),
        fc.nat(1000),
        (angles, seed) => {
          const [r, d] = [angles.length, 2 * angles.length + 3];
          const random = new Random(seed);
          // Spans of e_i and of cos(angle) e_i + sin(angle) e_(r+i), each mixed by an invertible matrix and turned by a
          // Householder reflection.
          const v = Float64Array.from({ length: d }, () => random.normal());
          const vv = v.reduce((s, x) => s + x * x, 0);
          const turned = (rows: number[][]): Float64Array =>
            Float64Array.from(
              rows.flatMap(row => {
                const c = (2 * row.reduce((s, x, k) => s + x * v[k], 0)) / vv;
                return row.map((x, k) => x - c * v[k]);
              }),
            );
          const mix = Array.from({ length: r }, (_, i) =>
            Array.from({ length: r }, (__, j) => (i === j ? 2 : 0.3 * random.next())),
          );
          const mixed = (rows: number[][]): number[][] =>
            mix.map(m => rows[0].map((_, k) => m.reduce((s, c, j) => s + c * rows[j][k], 0)));
          const unit = (i: number, c: number, j: number, s: number): number[] =>
            Array.from({ length: d }, (_, k) => (k === i ? c : k === j ? s : 0));
          const found = principalAngles(
            turned(mixed(angles.map((_, i) => unit(i, 1, -1, 0)))),
            [r, d],
            turned(mixed(angles.map((angle, i) => unit(i, Math.cos(angle), r + i, Math.sin(angle))))),
            [r, d],
          );
          const expected = [...angles].sort((x, y) => x - y);
          found.forEach((angle, i) => assert.ok(Math.abs(angle - expected[i]) < 1e-7, `${angle} for ${expected[i]}`));
        },
      ),
    );
  });
});
