// Sites: every name a place goes by, what edits there do, single heads, the order in which they are passed.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { noGrad } from '../src/autograd/tape.js';
import { blockComponents, componentsOf, headComponents, parseSite, siteName, type Site } from '../src/models/sites.js';
import { getReftModel, layoutOf, ReftTrainer, type ReftConfig } from '../src/reft/index.js';
import { sameShape } from '../src/tensor/shape.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const sizes = { layers: 4, hiddenSize: 16, intermediateSize: 32, heads: 4, kvHeads: 2, headDim: 4 };
const maxDifference = async (a: Tensor, b: Tensor): Promise<number> => {
  const [x, y] = [await a.data(), await b.data()];
  return Float64Array.from(x).reduce((most, v, i) => Math.max(most, Math.abs(v - y[i])), 0);
};

describe('names of sites', () => {
  test('ours, pyvene, TransformerLens and module paths name the same places', () => {
    const same: [string, ...string[]][] = [
      ['block_input/3', 'blocks.3.hook_resid_pre', 'model.layers[3].input', 'layers.3.input'],
      ['block_output/3', 'blocks.3.hook_resid_post', 'model.layers[3].output', 'model.layers.3.output'],
      ['block_middle/0', 'blocks.0.hook_resid_mid', 'model.layers[0].post_attention_layernorm.input'],
      ['attention_input/1', 'model.layers[1].input_layernorm.output'],
      ['attention_output/1', 'blocks.1.hook_attn_out', 'model.layers[1].self_attn.output'],
      ['attention_value_output/2', 'blocks.2.attn.hook_z', 'model.layers[2].self_attn.o_proj.input'],
      ['query_output/2:3', 'head_query_output/2:3', 'blocks.2.attn.hook_q[3]'],
      ['key_output/2:1', 'blocks.2.attn.hook_k[1]'],
      ['value_output/0', 'blocks.0.attn.hook_v'],
      ['mlp_input/3', 'model.layers[3].mlp.input'],
      ['mlp_activation/3', 'blocks.3.mlp.hook_post', 'model.layers[3].mlp.down_proj.input'],
      ['mlp_output/3', 'blocks.3.hook_mlp_out', 'model.layers[3].mlp.output'],
      ['embeddings/0', 'embeddings', 'hook_embed', 'model.embed_tokens.output'],
      ['final_norm/3', 'final_norm', 'ln_final.hook_normalized', 'model.norm.output', 'lm_head.input'],
    ];
    for (const [own, ...others] of same)
      for (const name of [own, ...others]) assert.equal(siteName(parseSite(name, sizes)), own, name);
  });

  test('what is not there is refused by name', () => {
    for (const [name, message] of [
      ['block_output/4', /^RangeError: site block_output\/4: the model has layers 0\.\.3$/],
      ['key_output/0:2', /key_output has heads 0\.\.1$/],
      ['mlp_output/0:0', /only query_output, .* have heads$/],
      ['hook_resid_post', /^RangeError: site 'hook_resid_post' is not known: expected/],
      ['blocks.1.hook_pattern', /is not known.*hook_resid_post/],
      ['model.layers[1].nonsense', /is not known/],
      ['constructor/1', /is not known/],
      ['embeddings/1', /embeddings are before layer 0/],
      ['', /is not known/],
    ] as const)
      assert.throws(() => parseSite(name, sizes), message, name);
  });
});

describe('sites of a model', () => {
  test('are all passed, in order, with the width that is told', async () => {
    const model = await tinyModel();
    const passed: Site[] = [];
    noGrad(() =>
      model.forward({
        inputIds: tinyIds(5, 1),
        shape: [1, 5],
        onSite: (site, h, edits) => {
          assert.ok(sameShape(h.shape, [1, 5, model.widthAt(site.component)]), siteName(site));
          assert.equal(edits.length, 0);
          passed.push(site);
        },
      }),
    );
    assert.deepEqual(passed.map(siteName), model.sites().map(siteName));
    assert.equal(model.sites().length, 2 + 3 * blockComponents.length);
    assert.equal(model.sites({ heads: true }).length, model.sites().length + 3 * (4 + 2 + 2 + 4));
    assert.deepEqual(model.site('blocks.2.hook_resid_post'), { layer: 2, component: 'block_output' });
  });

  test('adding to a collected site changes what comes later and nothing before', async () => {
    const model = await tinyModel();
    const inputs = { inputIds: tinyIds(6, 2), shape: [1, 6] } as const;
    const base = noGrad(() => model.forward({ ...inputs, collect: model.sites() }));
    const order = model.sites().map(siteName);
    for (const site of model
      .sites()
      .filter(s => s.layer === 1 || s.component === 'embeddings' || s.component === 'final_norm')) {
      const name = siteName(site);
      const edited = noGrad(() =>
        model.forward({ ...inputs, collect: model.sites(), edits: [{ site, apply: h => h.add(0.25) }] }),
      );
      for (const other of order.slice(0, order.indexOf(name))) {
        assert.equal(
          await maxDifference(base.collected.get(other) as Tensor, edited.collected.get(other) as Tensor),
          0,
          `${name} changed ${other}`,
        );
      }
      assert.ok(
        Math.abs(
          (await maxDifference(base.collected.get(name) as Tensor, edited.collected.get(name) as Tensor)) - 0.25,
        ) < 1e-6,
        name,
      );
      assert.ok((await maxDifference(base.logits, edited.logits)) > 1e-4, `${name} reaches the logits`);
    }
  });

  test("states that are collected are each row's own, at every position (fault 11)", async () => {
    const model = await tinyModel();
    const rows = [tinyIds(5, 7), tinyIds(5, 8), tinyIds(5, 9)];
    const collect = model.sites();
    const together = noGrad(() =>
      model.forward({ inputIds: Int32Array.from(rows.flatMap(row => [...row])), shape: [3, 5], collect }),
    ).collected;
    for (const [b, row] of rows.entries()) {
      const alone = noGrad(() => model.forward({ inputIds: row, shape: [1, 5], collect })).collected;
      for (const [name, states] of alone)
        assert.ok(
          (await maxDifference((together.get(name) as Tensor).slice(0, b, b + 1), states)) < 1e-5,
          `${name}, row ${b}`,
        );
    }
  });

  test('an edit of one head changes its columns alone; all heads together are the whole', async () => {
    const model = await tinyModel();
    const inputs = { inputIds: tinyIds(6, 3), shape: [1, 6] } as const;
    for (const component of headComponents.filter(c => componentsOf(model.decoder.sites).includes(c))) {
      const site = { layer: 1, component };
      const heads = model.widthAt(component) / model.widthAt(component, 0);
      const collect = [site, { ...site, head: 1 }];
      const run = (edits: { site: Site; apply: (h: Tensor) => Tensor }[]) =>
        noGrad(() => model.forward({ ...inputs, edits, collect }));
      const [base, one, all, whole] = [
        run([]),
        run([{ site: { ...site, head: 1 }, apply: h => h.mul(2) }]),
        run(Array.from({ length: heads }, (_, head) => ({ site: { ...site, head }, apply: (h: Tensor) => h.mul(2) }))),
        run([{ site, apply: h => h.mul(2) }]),
      ];
      const of = ({ collected }: typeof base, head?: number): Tensor =>
        collected.get(siteName({ ...site, ...(head === undefined ? {} : { head }) })) as Tensor;
      const width = model.widthAt(component, 0);
      assert.equal(await maxDifference(of(one, 1), of(base, 1).mul(2)), 0, component);
      assert.equal(await maxDifference(of(one).slice(-1, 0, width), of(base).slice(-1, 0, width)), 0, component);
      assert.equal(await maxDifference(all.logits, whole.logits), 0, component);
    }
  });

  test('every component can be trained, with reuse and without, to the same losses', async () => {
    const examples = [
      [5, 9, 3, 7, 11, 4],
      [8, 2, 6, 1, 3, 12, 10],
    ].map((ids, i) => ({
      ids: Int32Array.from(ids),
      promptLength: 3,
      labels: Int32Array.from(ids, (id, t) => (t < 3 ? -100 : id)),
      truncated: 0,
      where: `row ${i}`,
    }));
    const losses = async (config: ReftConfig, reuse: boolean): Promise<number[]> => {
      const trainer = new ReftTrainer(getReftModel(await tinyModel(), config), {
        examples,
        steps: 4,
        learningRate: 0.05,
        schedule: 'constant',
        reuse,
      });
      const all: number[] = [];
      for await (const step of trainer.steps()) all.push(step.loss);
      return all;
    };
    for (const component of componentsOf((await tinyModel()).decoder.sites)) {
      const config: ReftConfig = {
        component,
        rank: 2,
        positions: 'f1+l1',
        ...(component === 'embeddings' || component === 'final_norm' ? {} : { layers: [1] }),
      };
      const [kept, full] = [await losses(config, true), await losses(config, false)];
      kept.forEach((loss, i) =>
        assert.ok(
          Math.abs(loss - full[i]) < 1e-5,
          `${component}, step ${i + 1}: ${loss} with reuse, ${full[i]} without`,
        ),
      );
      // A last-layer site at a prompt's first token reaches no label.
      assert.notEqual(kept[0], kept[3], component);
    }
    const heads = await losses({ component: 'attention_value_output', heads: [0, 2], layers: [0, 1], rank: 2 }, true);
    assert.notEqual(heads[0], heads[3]);
  });

  test('configurations that name no place are refused', async () => {
    const model = await tinyModel();
    const refused = (config: ReftConfig, message: RegExp): void =>
      assert.throws(() => getReftModel(model, config), message);
    refused({}, /^RangeError: layers: block_output is in every layer; say in which$/);
    refused({ component: 'embeddings', layers: [1] }, /embeddings are before layer 0/);
    refused({ component: 'mlp_output', layers: [0], heads: [0] }, /have heads/);
    refused({ component: 'key_output', layers: [0], heads: [2] }, /key_output has heads 0\.\.1/);
    refused({ component: 'key_output', layers: [0], heads: [1, 1] }, /names a head twice/);
    refused({ component: 'key_output', layers: [0], heads: [1], rank: 5 }, /rank: 5 is more than the 4/);
    const reft = getReftModel(model, {
      component: 'key_output',
      layers: [0, 2],
      heads: [0, 1],
      rank: 2,
      positions: 'all',
    });
    assert.deepEqual(
      reft.interventions.map(i => i.id),
      ['key_output/0:0', 'key_output/0:1', 'key_output/2:0', 'key_output/2:1'],
    );
    const layout = layoutOf(new Int32Array(4).fill(1), [1, 4], [4]);
    assert.equal(noGrad(() => reft.forward({ inputIds: tinyIds(4, 4), shape: [1, 4] }, layout)).logits.shape[1], 4);
  });
});
