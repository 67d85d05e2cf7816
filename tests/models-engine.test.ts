// The engine: requests join and leave a running batch and get what they get alone; prompts that begin alike share
// pages up to the first edit; what is kept is counted and freed. Patches of a forward: products, keys and values.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { noGrad } from '../src/autograd/tape.js';
import { Engine, type RequestOptions } from '../src/models/index.js';
import { pageTokens } from '../src/models/generation/promptPages.js';
import type { ProjectionPatch } from '../src/models/patch.js';
import { getReftModel } from '../src/reft/index.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const prompt = (length: number, seed: number): number[] => [...tinyIds(length, seed)];
const numbers = (t: Tensor): number[] => Array.from(t.dataSync());

function near(actual: readonly number[], expected: readonly number[], what: string): void {
  assert.equal(actual.length, expected.length, what);
  actual.forEach((x, i) => {
    assert.ok(Math.abs(x - expected[i]) < 1e-9, `${what}: ${x}, expected ${expected[i]} at ${i}`);
  });
}

describe('a running batch', () => {
  test('requests that join at any step get their solo tokens; those that end leave', async () => {
    const model = await tinyModel();
    const wanted: RequestOptions[] = [
      { ids: prompt(5, 1), maxNewTokens: 9, stopTokenIds: [] },
      { ids: prompt(2, 2), maxNewTokens: 3, stopTokenIds: [] },
      { ids: prompt(9, 3), maxNewTokens: 6, stopTokenIds: [], sampling: { temperature: 0.8 }, seed: 4 },
      { ids: prompt(4, 5), maxNewTokens: 1, stopTokenIds: [] },
    ];
    const alone: number[][] = [];
    for (const [stream, options] of wanted.entries()) {
      const engine = new Engine(model);
      const request = engine.add({ ...options, stream });
      while (engine.busy) await engine.step();
      alone.push((await request.result).ids);
    }
    const engine = new Engine(model);
    const first = engine.add({ ...wanted[0], stream: 0 });
    const second = engine.add({ ...wanted[1], stream: 1 });
    await engine.step();
    await engine.step();
    assert.equal(engine.stats.running, 2);
    const third = engine.add({ ...wanted[2], stream: 2 });
    assert.equal(engine.stats.waiting, 1);
    await engine.step();
    assert.equal(engine.stats.running, 2, 'the second one has ended');
    const fourth = engine.add({ ...wanted[3], stream: 3 });
    while (engine.busy) await engine.step();
    for (const [i, request] of [first, second, third, fourth].entries()) {
      const { ids, finish } = await request.result;
      assert.deepEqual(ids, alone[i], `request ${i}`);
      assert.equal(finish, 'length');
    }
    assert.deepEqual(engine.stats, { waiting: 0, running: 0, pages: 0, pageBytes: 0 });
  });

  test('a limit of rows; cancelling; wrong requests are refused by name', async () => {
    const model = await tinyModel();
    const engine = new Engine(model, { maxBatch: 1 });
    const [a, b] = [1, 2].map(seed => engine.add({ ids: prompt(3, seed), maxNewTokens: 4, stopTokenIds: [] }));
    await engine.step();
    assert.deepEqual([engine.stats.running, engine.stats.waiting], [1, 1]);
    a.cancel();
    await engine.step();
    assert.equal((await a.result).finish, 'aborted');
    assert.equal((await a.result).ids.length, 1);
    while (engine.busy) await engine.step();
    assert.equal((await b.result).ids.length, 4);
    assert.throws(() => engine.add({ ids: [], name: 'mine' }), /^RangeError: generate: mine is empty/);
    assert.throws(
      () => engine.add({ ids: [1], maxNewTokens: 0 }),
      /^RangeError: maxNewTokens: expected a whole number/,
    );
    assert.throws(() => new Engine(model, { maxBatch: 0 }), /^RangeError: maxBatch: expected a number from 1, got 0/);
  });

  test('each row its own adapter; prompts share pages up to the first edit, counted and freed', async () => {
    const model = await tinyModel();
    const common = prompt(2 * pageTokens + 3, 7);
    const edit = (seed: number) => getReftModel(model, { layers: [1], positions: 'l1', rank: 2, seed });
    const [one, two] = [edit(1), edit(2)];
    const requests = [
      { ids: [...common, 3, 4], edits: one },
      { ids: [...common, 5], edits: two },
      { ids: [...common, 6, 7, 8] },
    ].map(options => ({ ...options, maxNewTokens: 5, stopTokenIds: [] }));
    const alone: number[][] = [];
    for (const options of requests) {
      const engine = new Engine(model);
      const request = engine.add(options);
      while (engine.busy) await engine.step();
      alone.push((await request.result).ids);
    }
    const engine = new Engine(model, { pageBytes: 2 ** 24 });
    const given: number[] = [];
    const forward = model.forward.bind(model);
    model.forward = options => {
      if (options.shape[1] > 1) given.push(options.shape[1]);
      return forward(options);
    };
    const results: number[][] = [];
    for (const options of requests) {
      const request = engine.add(options);
      while (engine.busy) await engine.step();
      results.push((await request.result).ids);
    }
    Reflect.deleteProperty(model, 'forward');
    assert.deepEqual(results, alone);
    // The first prompt is computed as a whole, the others from where their pages end.
    assert.deepEqual(given, [common.length + 2, 4, 6]);
    const { pages, pageBytes } = engine.stats;
    assert.equal(pages, 2);
    const { layers, kvHeads, headDim } = model.config;
    assert.equal(pageBytes, 2 * pages * layers * kvHeads * pageTokens * headDim * 4);
    engine.dispose();
    assert.deepEqual(engine.stats, { waiting: 0, running: 0, pages: 0, pageBytes: 0 });
  });

  test('pages beyond the bound are freed, the ends of prompts first', async () => {
    const model = await tinyModel();
    const { layers, kvHeads, headDim } = model.config;
    const page = 2 * layers * kvHeads * pageTokens * headDim * 4;
    const engine = new Engine(model, { pageBytes: 2 * page });
    for (const seed of [1, 2]) {
      engine.add({ ids: prompt(2 * pageTokens + 1, seed), maxNewTokens: 1, stopTokenIds: [] });
      while (engine.busy) await engine.step();
      assert.deepEqual([engine.stats.pages, engine.stats.pageBytes], [2, 2 * page]);
    }
    engine.dispose();
  });
});

describe('patches', () => {
  const batch = { inputIds: tinyIds(10, 3), shape: [2, 5] } as const;

  test('of a projection: what LoRA adds is what other weights would give, with the residual and in generation', async () => {
    const model = await tinyModel({ dtype: 'f64' });
    const { backend } = model;
    const like = { backend, dtype: 'f64' } as const;
    for (const [projection, role] of [
      ['self_attn.q_proj', 'q'],
      ['self_attn.o_proj', 'o'],
      ['mlp.up_proj', 'up'],
      ['mlp.down_proj', 'down'],
    ] as const) {
      const block = model.decoder.blocks[1] as unknown as { parts: Record<string, { weight: Tensor }> };
      const { weight } = block.parts[role];
      const [output, input] = weight.shape;
      const [A, B] = [
        create.normal([2, input], { ...like, seed: 1 }),
        create.normal([output, 2], { ...like, seed: 2 }),
      ];
      const patch: ProjectionPatch = { at: { layer: 1, projection }, apply: (y, x) => y.add(x.matmulT(A).matmulT(B)) };
      const patched = noGrad(() => numbers(model.forward({ ...batch, patches: [patch] }).logits));
      const before = weight.mul(1);
      const changed = weight.add(B.matmul(A));
      backend.kernels.copy({ input: changed.view('test'), output: weight.view('test') });
      const expected = noGrad(() => numbers(model.forward(batch).logits));
      backend.kernels.copy({ input: before.view('test'), output: weight.view('test') });
      near(patched, expected, projection);
    }
  });

  test('keys and values in front: those of tokens that are there give what the tokens give', async () => {
    const model = await tinyModel({ dtype: 'f64' });
    const options = { inputIds: tinyIds(5, 3), shape: [1, 5] } as const;
    const empty = (layer: number) => {
      const { kvHeads, headDim } = model.config;
      const zeros = create.zeros([1, kvHeads, 1, headDim], { backend: model.backend, dtype: 'f64' });
      return { prefix: { layer }, keys: zeros, values: zeros };
    };
    const plain = noGrad(() => numbers(model.forward(options).logits));
    const one = noGrad(() => numbers(model.forward({ ...options, patches: [empty(1)] }).logits));
    // A key of zeros has the score 0 and a value of zeros: the others' weights shrink.
    assert.ok(
      one.some((x, i) => Math.abs(x - plain[i]) > 1e-6),
      'a prefix is seen',
    );
    assert.throws(
      () => noGrad(() => model.forward({ ...options, patches: [empty(1), empty(1)] })),
      /^RangeError: layer 1 is given two prefixes/,
    );
  });
});
