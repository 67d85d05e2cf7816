// Every family of decoders on a tiny random model in f64: an edit at each site changes what comes after it and nothing
// before, gradients at each site equal differences, padding on either side changes nothing, cached generation is
// uncached generation; names of tensors and sites; what is refused.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { noGrad } from '../src/autograd/tape.js';
import { scope } from '../src/autograd/scope.js';
import type { CausalLM } from '../src/models/causalLM.js';
import { configFromHF } from '../src/models/families/index.js';
import { siteName } from '../src/models/sites.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { tinyDecoder, tinyDecoders, type Asked } from './helpers/tinyDecoders.js';

const inputIds = Int32Array.of(3, 5, 9, 2, 4, 7, 11, 1);
const batch = { inputIds, shape: [2, 4] } as const;
const labels = Int32Array.of(-1, 5, -1, 2, -1, -1, 11, 1);
const numbers = (t: Tensor): number[] => Array.from(t.dataSync());
const largest = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);
const lossOf = (model: CausalLM, edits: Parameters<CausalLM['forward']>[0]['edits'] = []): number =>
  noGrad(() => scope(() => model.loss({ ...batch, edits }, labels).loss)).dataSync()[0];

for (const [name, json] of Object.entries(tinyDecoders)) {
  describe(name, () => {
    test('an edit at every site changes it and later ones, and nothing before', async () => {
      const model = await tinyDecoder(json);
      const sites = model.sites();
      const run = (edited?: (typeof sites)[number]): Map<string, number[]> => {
        const edits = edited ? [{ site: edited, apply: (h: Tensor) => h.add(slope(h)) }] : [];
        const { collected } = noGrad(() => model.forward({ ...batch, edits, collect: sites }));
        return new Map([...collected].map(([site, t]) => [site, numbers(t)]));
      };
      const base = run();
      assert.deepEqual([...base.keys()], sites.map(siteName), 'sites in the order they are passed');
      for (const [i, site] of sites.entries()) {
        const after = run(site);
        sites.forEach((other, k) => {
          const difference = largest(after.get(siteName(other)) ?? [], base.get(siteName(other)) ?? []);
          if (k < i) assert.equal(difference, 0, `${siteName(site)} changed ${siteName(other)} before it`);
          if (k === i) assert.ok(Math.abs(difference - 0.3) < 1e-9, `${siteName(site)} itself: ${difference}`);
        });
        const last = siteName(sites[sites.length - 1]);
        const reached = largest(after.get(last) ?? [], base.get(last) ?? []);
        // What is added to all keys moves all scores of a query alike, but for rotations.
        if (site.component !== 'key_output') assert.ok(reached > 1e-9, `${siteName(site)} reaches ${last}: ${reached}`);
      }
    });

    test('gradients at every site equal differences', async () => {
      const model = await tinyDecoder(json);
      const sites = model.sites();
      const { gradients } = model.gradients(batch, labels, sites);
      for (const site of sites) {
        const gradient = numbers(gradients.get(siteName(site)) as Tensor);
        // Along one direction of the whole state.
        const direction = gradient.map((_, i) => Math.sin(1 + 2 * i));
        const step = 1e-5;
        const [up, down] = [step, -step].map(size =>
          lossOf(model, [
            {
              site,
              apply: (h, rows) => {
                const moved = direction.map(x => x * size);
                const [tokens, width] = [rows.count, h.shape[1]];
                assert.equal(moved.length, tokens * width, siteName(site));
                return h.add(h.mul(0).add(tensorLike(h, moved)));
              },
            },
          ]),
        );
        const expected = (up - down) / (2 * step);
        const actual = gradient.reduce((sum, g, i) => sum + g * direction[i], 0);
        assert.ok(
          Math.abs(actual - expected) < 1e-6 * Math.max(1, Math.abs(expected)),
          `${siteName(site)}: ${actual}, ${expected}`,
        );
      }
    });

    test('padding on either side changes nothing; cached generation is uncached', async () => {
      const model = await tinyDecoder(json);
      const plain = noGrad(() => numbers(model.forward({ inputIds: inputIds.subarray(0, 4), shape: [1, 4] }).logits));
      for (const [front, behind] of [
        [2, 0],
        [0, 2],
        [1, 1],
      ]) {
        const ids = Int32Array.of(
          ...new Array<number>(front).fill(0),
          3,
          5,
          9,
          2,
          ...new Array<number>(behind).fill(0),
        );
        const attentionMask = Int32Array.from(ids, (_, t) => Number(t >= front && t < front + 4));
        const { logits } = noGrad(() => model.forward({ inputIds: ids, shape: [1, 6], attentionMask }));
        const real = numbers(logits).slice(front * 12, (front + 4) * 12);
        assert.ok(largest(real, plain) < 1e-9, `${front} in front, ${behind} behind`);
      }
      const prompts = [[3, 5, 9], [2], [4, 7, 11, 1, 8]];
      const options = { maxNewTokens: 6, stopTokenIds: [] };
      const cached = await model.generate(prompts, options);
      const uncached = await model.generate(prompts, { ...options, useCache: false });
      assert.deepEqual(
        cached.map(({ ids }) => ids),
        uncached.map(({ ids }) => ids),
      );
    });

    test('parameters have the checkpoint’s names; every block has sites by module paths', async () => {
      const asked: Asked = new Map();
      const model = await tinyDecoder(json, asked);
      const named = new Map([...model.namedParameters()].map(([path, t]) => [path, t.shape.join()]));
      for (const [path, shape] of asked) assert.equal(named.get(path), shape.join(), path);
      const { blocks } = model.decoder.names;
      assert.equal(siteName(model.site(`${blocks}.2.output`)), 'block_output/2');
      assert.equal(siteName(model.site(`${blocks}[1].input`)), 'block_input/1');
    });
  });
}

/** Another number for each column, 0.3 at most: a norm would take a constant off. */
const slope = (h: Tensor): Tensor => {
  const [, width] = h.shape;
  const columns = Array.from({ length: width }, (_, i) => (0.3 * (i + 1)) / width);
  return tensorLike(h, Array.from({ length: h.shape[0] }, () => columns).flat());
};

const tensorLike = (h: Tensor, values: readonly number[]): Tensor => {
  const made = h.detach().mul(0);
  const offsets = Float64Array.from(values);
  made.backend.write(made.storage.allocation, 0, offsets);
  return made;
};

test('settings that are not supported are refused with the key, what was expected and what came', () => {
  const refused = (family: string, change: Record<string, unknown>, message: RegExp): void => {
    assert.throws(() => configFromHF({ ...tinyDecoders[family], ...change }, 'config.json'), message);
  };
  refused('opt', { do_layer_norm_before: false }, /do_layer_norm_before: expected true/);
  refused('opt', { word_embed_proj_dim: 4 }, /word_embed_proj_dim: expected hidden_size, 8, got 4/);
  refused('smollm3', { no_rope_layers: [1, 0] }, /no_rope_layers: has 2 entries for 3 layers/);
  refused('gpt2', { scale_attn_by_inverse_layer_idx: true }, /scale_attn_by_inverse_layer_idx/);
  refused('granite', { num_local_experts: 8 }, /num_local_experts/);
  refused('qwen3', { num_experts: 4 }, /num_experts/);
  refused('llama', { model_type: 'deepseek_v3' }, /architecture 'deepseek_v3' is not known; known: llama/);
});

test('per-layer settings are honoured', () => {
  const of = (family: string, change: Record<string, unknown> = {}) =>
    configFromHF({ ...tinyDecoders[family], ...change }, 'config.json');
  assert.deepEqual(of('gemma2').windows, [3, null, 3]);
  assert.deepEqual(of('gemma3').windows, [3, null, 3]);
  assert.deepEqual(
    of('gemma3').ropes.map(rope => rope?.theta),
    [10000, 1e6, 10000],
  );
  assert.deepEqual(
    of('smollm3').ropes.map(rope => rope !== null),
    [true, false, true],
  );
  assert.deepEqual(of('smollm3', { no_rope_layers: null, no_rope_layer_interval: 3 }).ropes.map(Boolean), [
    true,
    true,
    false,
  ]);
  const layer_types = ['full_attention', 'sliding_attention', 'full_attention'];
  assert.deepEqual(of('qwen3', { layer_types, sliding_window: 5 }).windows, [null, 5, null]);
  assert.equal(of('gptNeoX').ropes[0]?.fraction, 0.5);
  assert.equal(of('granite').logitsScale, 0.5);
  const parameters = { full_attention: { rope_theta: 5 }, sliding_attention: { rope_theta: 7 } };
  const byType = of('gemma3', { layer_types, rope_parameters: parameters, sliding_window_pattern: null });
  assert.deepEqual(
    byType.ropes.map(rope => rope?.theta),
    [5, 7, 5],
  );
});
