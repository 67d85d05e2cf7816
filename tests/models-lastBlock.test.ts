// The last block computes only the tokens whose logits are wanted, unless somebody sees the others or an edit there
// needs them: the same logits, losses and gradients, of a padded batch and of its rows alone, cached or not, edited or
// not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gradientsOf, noGrad, zeroGrad } from '../src/autograd/tape.js';
import { scope } from '../src/autograd/scope.js';
import { KVCache } from '../src/models/cache.js';
import type { ForwardOptions } from '../src/models/causalLM.js';
import type { Site } from '../src/models/sites.js';
import type { TypedArray } from '../src/tensor/dtype.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { collate } from '../src/data/collate.js';
import { getReftModel, kindNames, layoutOf, mixEdits, type EditedModel } from '../src/reft/index.js';
import { oracle } from './helpers/machines.js';
import { partsOf } from './helpers/packed.js';
import { measuredAlone } from './helpers/rowsAlone.js';
import { tinyExample } from './helpers/tinyExamples.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const model = await tinyModel({ device: oracle.backend, dtype: 'f64' });
const last = model.config.layers - 1;
const [batch, length] = [2, 7];
const inputIds = tinyIds(batch * length, 3, model.config.vocabSize);
const padded = Int32Array.from({ length: batch * length }, (_, i) => Number(i < length || i % length < 4));

/** Tokens that the last block's feed-forward layer is given. */
function tokensComputed(body: () => void): number {
  const { up } = partsOf(model, last);
  if (!up) assert.fail('the block has no feed-forward');
  const { forward } = up;
  let count = -1;
  up.forward = function (x, epilogue) {
    [count] = x.shape;
    return forward.call(this, x, epilogue);
  };
  try {
    body();
  } finally {
    up.forward = forward;
  }
  return count;
}

/**
 * Logits with nobody looking, and with the last block's output collected; how many tokens the last block computed each
 * time.
 */
function both(options: Partial<ForwardOptions>): { logits: TypedArray[]; tokens: number[] } {
  const logits: TypedArray[] = [];
  const tokens = [[], [{ layer: last, component: 'block_output' } satisfies Site]].map(collect =>
    tokensComputed(() => {
      logits.push(
        noGrad(() =>
          scope(() => model.forward({ inputIds, shape: [batch, length], ...options, collect }).logits),
        ).dataSync(),
      );
    }),
  );
  return { logits, tokens };
}

function near(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  assert.equal(actual.length, expected.length);
  const largest = Math.max(...Array.from(expected, Math.abs), 1e-30);
  for (let i = 0; i < actual.length; i++)
    assert.ok(
      Math.abs(actual[i] - expected[i]) <= 1e-12 * largest,
      `entry ${i}: ${actual[i]}, expected ${expected[i]}`,
    );
}

/** The logits of each token b * T + t, from its row alone without padding; zeros at padding. */
function logitsAlone(attentionMask: Int32Array | undefined): number[][] {
  const { vocabSize } = model.config;
  return Array.from({ length: batch }, (_, b) => {
    const row = inputIds.slice(b * length, (b + 1) * length);
    const ids = row.filter((_id, t) => attentionMask?.[b * length + t] !== 0);
    const values = noGrad(() =>
      scope(() => model.forward({ inputIds: ids, shape: [1, ids.length] }).logits),
    ).dataSync();
    return Array.from(row, (_id, t) =>
      t < ids.length ? [...values.slice(t * vocabSize, (t + 1) * vocabSize)] : new Array<number>(vocabSize).fill(0),
    );
  }).flat();
}

for (const [name, options] of Object.entries<Partial<ForwardOptions>>({
  plain: {},
  padded: { attentionMask: padded },
})) {
  const real = options.attentionMask ? 11 : 14;
  const alone = logitsAlone(options.attentionMask);
  test(`${name}: logits at some tokens`, () => {
    for (const rows of [[6], [2, 9], [10, 0, 3], []]) {
      const { logits, tokens } = both({ ...options, logitsAt: Int32Array.from(rows) });
      for (const some of logits)
        near(
          some,
          rows.flatMap(row => alone[row]),
        );
      assert.deepEqual(tokens, [rows.length, real]);
    }
    const all = both(options);
    for (const some of all.logits) near(some, alone.flat());
    assert.equal(all.tokens[0], real, 'all logits');
    const nearlyAll = { ...options, logitsAt: Int32Array.from({ length: 11 }, (_, i) => i) };
    assert.equal(both(nearlyAll).tokens[0], real, 'nearly all');
  });
}

test('what stands after attention in the last block keeps all tokens there, unless it can do without some of them', () => {
  const logitsAt = Int32Array.of(6);
  const twice = (layer: number, component: Site['component']) =>
    tokensComputed(
      () =>
        void noGrad(() =>
          scope(() =>
            model.forward({
              inputIds,
              shape: [batch, length],
              logitsAt,
              edits: [{ site: { layer, component }, apply: h => h.mul(2) }],
            }),
          ),
        ),
    );
  for (const component of ['block_middle', 'mlp_activation', 'block_output', 'final_norm'] as const)
    assert.equal(twice(last, component), 14, component);
  for (const component of ['block_input', 'query_output', 'attention_value_output'] as const)
    assert.equal(twice(last, component), 1, component);
  assert.equal(twice(last - 1, 'block_output'), 1);
  const separable = (component: Site['component'], rows: readonly number[], wanted = logitsAt): number =>
    tokensComputed(
      () =>
        void noGrad(() =>
          scope(() =>
            model.forward({
              inputIds,
              shape: [batch, length],
              logitsAt: wanted,
              edits: [
                {
                  site: { layer: last, component },
                  rows: Int32Array.from(rows),
                  apply: (h, present) => {
                    assert.deepEqual([...present.tokens], [...wanted]);
                    assert.deepEqual(
                      [h.shape[0], ...present.placesOf(Int32Array.from(rows))],
                      [wanted.length, ...rows.map(row => wanted.indexOf(row))],
                    );
                    return h;
                  },
                },
              ],
            }),
          ),
        ),
    );
  for (const component of ['attention_output', 'mlp_activation', 'block_output'] as const)
    assert.equal(separable(component, [3, 6]), 1, component);
  assert.equal(separable('block_output', [8, 9, 3], Int32Array.of(9, 2, 8)), 3);
  const seen = (options: Partial<ForwardOptions>) =>
    tokensComputed(
      () => void noGrad(() => scope(() => model.forward({ inputIds, shape: [batch, length], logitsAt, ...options }))),
    );
  assert.equal(seen({ onSite: () => undefined }), 14);
  assert.equal(seen({ hiddenStates: true }), 14);
});

test('losses and gradients are the same; a cache holds every token', () => {
  const labels = Int32Array.from(inputIds, (id, i) => (i % 3 === 0 ? id : -100));
  const run = (collect: readonly Site[]) =>
    scope(() => {
      const leaf = model.forward({
        inputIds,
        shape: [batch, length],
        logitsAt: new Int32Array(0),
        collect: [{ layer: last, component: 'block_input' }],
      });
      const h = [...leaf.collected.values()][0].detach().requireGrad();
      const { loss } = model.loss(
        { inputIds, shape: [batch, length], from: { layer: last, hiddenStates: h }, collect },
        labels,
      );
      return [loss.item(), gradientsOf(loss, [h])[0]?.data()];
    });
  return Promise.all(
    [run([]), run([{ layer: last, component: 'block_output' }])].map(values => Promise.all(values)),
  ).then(([narrow, whole]) => {
    near([narrow[0] as number], [whole[0] as number]);
    near(narrow[1] as TypedArray, whole[1] as TypedArray);
    const caches = [[], [{ layer: last, component: 'block_output' } satisfies Site]].map(collect => {
      const cache = new KVCache();
      noGrad(() =>
        scope(() =>
          model.forward({ inputIds, shape: [batch, length], cache, logitsAt: Int32Array.of(6, 13), collect }),
        ),
      );
      assert.equal(cache.length, length);
      const step = noGrad(() =>
        scope(() => model.forward({ inputIds: Int32Array.of(1, 2), shape: [batch, 1], cache }).logits),
      ).dataSync();
      cache.dispose();
      return step;
    });
    near(caches[0], caches[1]);
  });
});

const examples = [tinyExample(9, 4, 1), tinyExample(3, 2, 2), tinyExample(5, 3, 3)];
const padding = collate(examples, { padTokenId: 0, side: 'right' });
const layout = layoutOf(padding.attentionMask, padding.shape, padding.promptLengths, padding.inputIds);

/** Loss, then gradients of what is trained; and how many tokens the last block computed. */
function measured(
  edited: EditedModel,
  trained: readonly Tensor[],
  collect: readonly Site[],
  dropout = false,
): { numbers: number[][]; tokens: number } {
  const { inputIds: ids, shape, attentionMask, labels } = padding;
  zeroGrad(trained);
  const numbers: number[][] = [];
  const tokens = tokensComputed(() => {
    const { loss } = edited.loss(
      { inputIds: ids, shape, attentionMask, collect },
      labels,
      layout,
      dropout ? { seed: 5, step: 2 } : undefined,
    );
    loss.backward();
    numbers.push([...loss.dataSync()], ...trained.map(t => [...(t.grad as Tensor).dataSync()]));
  });
  return { numbers, tokens };
}

const everyToken: readonly Site[] = [{ layer: last, component: 'block_output' }];
const wantedTokens = 4 + 2 + 3;
const realTokens = 13 + 5 + 8;
for (const kind of kindNames()) {
  test(`${kind} in every layer: the last one edits the tokens that are left, with the same loss and gradients`, () => {
    for (const component of ['block_output', 'mlp_activation', 'attention_output'] as const) {
      const reft = getReftModel(model, { kind, layers: 'all', component, positions: 'f2+l2', tied: true, rank: 2 });
      const trained = reft.trained().map(t => t.tensor);
      const alone = measuredAlone(() => reft, trained, examples);
      for (const edited of [reft, mixEdits([reft, reft, reft])]) {
        const [narrow, whole] = [[], everyToken].map(collect => measured(edited, trained, collect));
        for (const { numbers } of [narrow, whole]) {
          assert.equal(numbers.length, alone.length);
          numbers.forEach((list, i) => {
            near(list, alone[i]);
          });
        }
        assert.deepEqual([narrow.tokens, whole.tokens], [wantedTokens, realTokens], component);
      }
    }
  });
}

test('all tokens are there for dropout, and where an edit would lose all of its own', () => {
  const tokens = (positions: string, dropout: number): number => {
    const reft = getReftModel(model, { layers: [last], positions, rank: 2, ...(dropout > 0 ? { dropout } : {}) });
    return measured(
      reft,
      reft.trained().map(t => t.tensor),
      [],
      dropout > 0,
    ).tokens;
  };
  assert.deepEqual([tokens('f1', 0), tokens('l1', 0.5), tokens('l1', 0)], [realTokens, realTokens, wantedTokens]);
});
