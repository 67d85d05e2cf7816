// Edits of one's own (defineEdit): trained, saved, loaded and listed like the built-in ones; and weights of the base
// trained beside edits.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { gradcheck } from '../src/autograd/gradcheck.js';
import { noGrad } from '../src/autograd/tape.js';
import {
  adapterFromFiles,
  adapterToFiles,
  checkEdit,
  defineEdit,
  getReftModel,
  kindNames,
  ReftTrainer,
  trainBaseParameters,
  type starts,
  type ReftModel,
} from '../src/reft/index.js';
import { orthonormalityError } from '../src/nn/hostMatrices.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel } from './helpers/tinyModel.js';
import { onWholeBatch, parameterOf } from './helpers/packed.js';

/** The ten lines of the documentation: two orthonormal matrices, an option, a bias that may be left out. */
const turn = defineEdit({
  name: 'turn',
  formula: "h' = h + strength S^T (R h + b)",
  options: { strength: 0.5 },
  parameters: ({ width, rank }, { orthogonal, linear }) => ({
    R: orthogonal([rank, width]),
    S: orthogonal([rank, width]),
    b: linear([rank], { bias: 'inner' }),
  }),
  apply: (h, { R, S, b }, { options, subspace }) =>
    h.add(subspace(h.matmulT(R).add(b)).matmul(S).mul(options.strength)),
});

/** Definitions below that are wrong on purpose. */
const wrong = ['tall', 'taken', 'shrinks', 'mixing', 'cut', 'moved'];

async function trained(reft: ReftModel, steps = 30): Promise<number[]> {
  const losses: number[] = [];
  const trainer = new ReftTrainer(reft, { examples: tinyExamples(4), steps, learningRate: 1e-2 });
  for await (const step of trainer.steps()) losses.push(step.loss);
  return losses;
}

async function answers(reft: ReftModel): Promise<number[][]> {
  return (
    await reft.generate(
      [
        [3, 5, 9],
        [1, 2],
      ],
      { maxNewTokens: 6, stopTokenIds: [] },
    )
  ).map(g => [...g.ids]);
}

describe("an edit of one's own", () => {
  test('trains, keeps its matrices orthonormal, and is saved and loaded', async () => {
    const base = await tinyModel();
    const reft = getReftModel(base, {
      kind: turn,
      layers: [0, 1],
      rank: 2,
      positions: 'f1+l1',
      kindOptions: { strength: 2 },
    });
    const losses = await trained(reft);
    assert.ok(losses[29] < 0.9 * losses[0], `${losses[0]} to ${losses[29]}`);
    for (const intervention of reft.interventions) {
      const { R, S } = noGrad(() => intervention.parameters());
      for (const [name, t] of Object.entries({ R, S })) {
        const { error } = orthonormalityError(t.dataSync(), t.shape);
        assert.ok(error < 2e-6, `${name} is ${error} from orthonormal`);
      }
    }
    assert.equal(reft.parameterCount, 4 * (2 * 2 * 16 + 2));
    assert.match(reft.summary(), /^turn at block_output of layers 0, 1, positions f1\+l1, rank 2\n/);
    const files = await adapterToFiles(reft);
    assert.match(
      new TextDecoder().decode(files.get('README.md')),
      /\| turn \| `h' = h \+ strength S\^T \(R h \+ b\)` \|/,
    );
    const again = await adapterFromFiles(base, files);
    assert.deepEqual(again.configs, reft.configs);
    assert.deepEqual(await answers(again), await answers(reft));
    assert.ok((await trained(again, 3)).every(Number.isFinite), '(await trained(again, 3)).every(Number.isFinite)');
  });

  test("has right gradients through the model's own path", async () => {
    const base = await tinyModel({ dtype: 'f64' });
    const reft = getReftModel(base, { kind: turn, layers: [1], rank: 2, positions: 'all', bias: false, scale: 0.7 });
    const layout = { batch: 1, width: 3, starts: [0], promptLengths: [3], lengths: [3] };
    await gradcheck(
      h => onWholeBatch(reft.edits(layout, undefined, { subspaces: [1] })[0])(h),
      [create.normal([1, 3, 16], { seed: 1, dtype: 'f64' })],
    );
  });

  test('a resumed run is the same run', async () => {
    const make = async () => getReftModel(await tinyModel(), { kind: 'turn', layers: [1], rank: 2, positions: 'l1' });
    const options = { examples: tinyExamples(4), steps: 8, learningRate: 1e-2 };
    const [whole, first, second] = await Promise.all([make(), make(), make()]);
    for await (const step of new ReftTrainer(whole, options).steps())
      assert.ok(Number.isFinite(step.loss), 'Number.isFinite(step.loss)');
    const half = new ReftTrainer(first, options);
    for await (const step of half.steps()) if (step.index === 4) break;
    const rest = new ReftTrainer(second, { ...options, resume: await half.checkpointFiles() });
    for await (const step of rest.steps()) assert.ok(step.index > 4, 'step.index > 4');
    const [a, b] = [whole, second].map(reft => reft.trained().map(t => t.tensor.dataSync()));
    assert.deepEqual(b, a);
  });

  test('a file with a kind that is not defined is refused, by its name', async () => {
    const base = await tinyModel();
    const files = await adapterToFiles(getReftModel(base, { kind: turn, layers: [0] }));
    const text = new TextDecoder().decode(files.get('adapter_config.json')).replace('"turn"', '"twist"');
    const other = new Map(files).set('adapter_config.json', new TextEncoder().encode(text));
    await assert.rejects(adapterFromFiles(base, other), {
      name: 'FormatError',
      message:
        /configs\[0\]: intervention 'twist' is not known; known: loreft, .*turn.* must be defined \(defineEdit\) before it is used or loaded$/,
    });
  });

  test('a wrong definition is refused with what is wrong', async () => {
    const base = await tinyModel();
    const apply = (h: Tensor): Tensor => h;
    const nothing = () => ({});
    assert.throws(() => defineEdit({ name: 'loreft', parameters: nothing, apply }), {
      message: "edit 'loreft': the name is taken by a built-in kind",
    });
    assert.throws(() => defineEdit({ name: 'my edit', parameters: nothing, apply }), {
      message: /^edit 'my edit': a name is letters/,
    });
    assert.throws(() => defineEdit({ name: 'a', activation: 'elu' as 'gelu', parameters: nothing, apply }), {
      message: /activation 'elu' is not known; known: linear, gelu/,
    });
    const use = (kind: ReturnType<typeof defineEdit>) => () => getReftModel(base, { kind, layers: [0], rank: 2 });
    const tall = defineEdit({
      name: 'tall',
      parameters: ({ width }, { orthogonal }) => ({ R: orthogonal([width + 1, width]) }),
      apply,
    });
    assert.throws(use(tall), {
      message: "edit 'tall', parameter 'R': orthonormal rows need a shape [k, n] with k at most n, got [17,16]",
    });
    const taken = defineEdit({ name: 'taken', parameters: (_, { zeros }) => ({ scale: zeros([1]) }), apply });
    assert.throws(use(taken), { message: "edit 'taken', parameter 'scale': the name is taken by the trained scale" });
    const shrinks = defineEdit({ name: 'shrinks', parameters: nothing, apply: h => h.slice(1, 0, 3) });
    const layout = { batch: 1, width: 2, starts: [0], promptLengths: [2], lengths: [2] };
    const h = create.ones([1, 2, 16]);
    assert.throws(() => onWholeBatch(use(shrinks)().edits(layout)[0])(h), {
      message: /^edit: the edited rows have shape \[1,3\], expected \[1,16\]$/,
    });
    const ignores = defineEdit({ name: 'ignores', parameters: nothing, apply });
    assert.throws(() => onWholeBatch(use(ignores)().edits(layout, undefined, { subspaces: [0] })[0])(h), {
      message: 'subspaces: ignores does not apply them (context.subspace)',
    });
    assert.ok(kindNames().includes('shrinks'), "kindNames().includes('shrinks')");
  });
});

test('tied edits are one set of weights at two places, not one after the other (fault 15)', async () => {
  const base = await tinyModel({ dtype: 'f64' });
  for (const kind of ['loreft', 'gated'] as const) {
    const tied = getReftModel(base, { kind, layers: [1], rank: 2, positions: 'f1+l1', tied: true });
    const alone = getReftModel(base, { kind, layers: [1], rank: 2, positions: 'all' });
    const h = create.normal([1, 4, 16], { seed: 2, dtype: 'f64' });
    const layout = { batch: 1, width: 4, starts: [0], promptLengths: [4], lengths: [4] };
    const [both, every] = [tied, alone].map(reft => noGrad(() => onWholeBatch(reft.edits(layout)[0])(h)).dataSync());
    const before = h.dataSync();
    assert.equal(tied.interventions.length, 1);
    for (let i = 0; i < 64; i++) {
      const edited = i < 16 || i >= 48;
      assert.ok(Math.abs(both[i] - (edited ? every[i] : before[i])) < 1e-14, `${kind}: entry ${i}`);
    }
  }
});

describe('checkEdit', () => {
  test('passes for every kind', async () => {
    for (const kind of kindNames().filter(name => !wrong.includes(name)))
      await checkEdit(kind, kind === 'adaptive' ? { kindOptions: { experts: 2 } } : {});
    await checkEdit(turn, { kindOptions: { strength: -3 }, width: 5, rank: 1, seed: 7 });
  });

  test('says what does not hold', async () => {
    const parameters = ({ width }: { width: number }, { zeros }: typeof starts) => ({ v: zeros([width]) });
    const mixing = defineEdit({
      name: 'mixing',
      parameters,
      apply: (h, { v }) => h.add(h.mean(0, { keepDims: true })).add(v),
    });
    await assert.rejects(checkEdit(mixing), { message: /^edit 'mixing': row 0 depends on the other rows: / });
    const cut = defineEdit({ name: 'cut', parameters, apply: (h, { v }) => h.add(v.square().detach().mul(v)) });
    await assert.rejects(checkEdit(cut), {
      message:
        /^edit 'cut': its gradient is not that of its values \(input 0 is h, input 1 is v\): gradcheck: input 1 /,
    });
    const moved = defineEdit({
      name: 'moved',
      parameters,
      apply: (h, { v }) => h.add(v).add(1),
      identity: () => ({ v: 'zeros' }),
    });
    await assert.rejects(checkEdit(moved), { message: /^edit 'moved': its identity start changes entry 0 from / });
  });
});

describe('weights of the base trained along', () => {
  test('are named, trained, saved with the adapter and put back', async () => {
    const base = await tinyModel();
    assert.deepEqual(trainBaseParameters(base, ['model.norm', 'model.layers.2.mlp.down_proj.weight']), [
      'model.layers.2.mlp.down_proj.weight',
      'model.norm.weight',
    ]);
    const reft = getReftModel(base, { layers: [1], rank: 2, positions: 'l1' });
    const before = parameterOf(base, 'model.norm.weight').dataSync();
    await trained(reft, 5);
    assert.notDeepEqual(parameterOf(base, 'model.norm.weight').dataSync(), before);
    const files = await adapterToFiles(reft);
    const fresh = await tinyModel();
    const warnings: string[] = [];
    const again = await adapterFromFiles(fresh, files, { onWarning: w => warnings.push(w) });
    assert.deepEqual(warnings, [], 'the fingerprint is that of the weights that were not trained');
    assert.deepEqual(
      parameterOf(fresh, 'model.norm.weight').dataSync(),
      parameterOf(base, 'model.norm.weight').dataSync(),
    );
    assert.deepEqual(await answers(again), await answers(reft));
    assert.deepEqual(await adapterToFiles(again), files);
  });

  test('unknown names are refused, in a file too', async () => {
    const base = await tinyModel();
    assert.throws(() => trainBaseParameters(base, ['model.norms.weight']), {
      message: "trained weights: the base has no 'model.norms.weight'; did you mean model.norm.weight?",
    });
    trainBaseParameters(base, ['model.norm']);
    const files = await adapterToFiles(getReftModel(base, { layers: [1] }));
    const text = new TextDecoder()
      .decode(files.get('adapter_config.json'))
      .replace('"model.norm.weight"', '"model.gone"');
    await assert.rejects(
      adapterFromFiles(base, new Map(files).set('adapter_config.json', new TextEncoder().encode(text))),
      { message: /base_parameters: .* has no weights 'model.gone'$/ },
    );
  });
});
