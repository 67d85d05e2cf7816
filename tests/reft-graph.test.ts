// The graph of a forward: what it lists, a golden drawing, and that it runs as it is drawn after every change.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { noGrad } from '../src/autograd/tape.js';
import { onBatch } from '../src/models/patch.js';
import { getReftModel, layoutOf, trace, type EditNode, type ReftModel } from '../src/reft/index.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const inputs = { inputIds: tinyIds(6, 1), shape: [1, 6], promptLengths: [4] } as const;
const reftOf = async (): Promise<ReftModel> =>
  getReftModel(await tinyModel(), [
    { layers: [0, 2], positions: 'f1+l1', rank: 2, scale: 2 },
    { kind: 'direft', component: 'attention_value_output', heads: [1], layers: [2], positions: 'all', rank: 1 },
  ]);
const same = async (a: Tensor, b: Tensor): Promise<boolean> => {
  const [x, y] = [await a.data(), await b.data()];
  return x.every((v, i) => v === y[i]);
};
const layout = layoutOf(new Int32Array(6).fill(1), [1, 6], [4], inputs.inputIds);

describe('a graph', () => {
  test('is the golden one, as JSON, Mermaid and SVG', async () => {
    const graph = trace(await reftOf(), inputs).disable('block_output/2#1');
    graph.insert({ id: 'probe <1>', site: 'blocks.0.hook_mlp_out', kind: 'probe', apply: h => h });
    const made = {
      'graph.json': `${JSON.stringify(graph.toJSON(), null, 1)}\n`,
      'graph.mmd': graph.toMermaid(),
      'graph.svg': graph.toSVG(),
    };
    for (const [name, text] of Object.entries(made)) {
      const file = new URL(`fixtures/graph/${name}`, import.meta.url);
      if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(file, text);
      assert.equal(text, readFileSync(file, 'utf8'), name);
    }
  });

  test('lists sites in order with edits before the site they change', async () => {
    const reft = await reftOf();
    const { nodes, edges } = trace(reft, inputs).toJSON();
    assert.deepEqual(
      nodes.filter(n => n.type === 'site').map(n => n.id),
      reft.base.sites().map(s => `${s.component}/${s.layer}`),
    );
    const edits = nodes.filter((n): n is EditNode => n.type === 'edit');
    assert.deepEqual(
      edits.map(e => [e.id, e.site, e.kind, e.rank, e.positions, e.scale, e.rows]),
      [
        ['block_output/0', 'block_output/0', 'loreft', 2, 'f1+l1', 2, [0]],
        ['block_output/0#1', 'block_output/0', 'loreft', 2, 'f1+l1', 2, [3]],
        ['attention_value_output/2:1', 'attention_value_output/2:1', 'direft', 1, 'all', 1, [0, 1, 2, 3, 4, 5]],
        ['block_output/2', 'block_output/2', 'loreft', 2, 'f1+l1', 2, [0]],
        ['block_output/2#1', 'block_output/2', 'loreft', 2, 'f1+l1', 2, [3]],
      ],
    );
    assert.deepEqual(edits[0].parameters, { R: [2, 16], W: [2, 16], b: [2] });
    assert.equal(edges.length, nodes.length - 1);
    assert.equal(nodes[nodes.findIndex(n => n.id === 'block_output/0#1') + 1].id, 'block_output/0');
  });

  test('runs forward and backward as the adapter does', async () => {
    const reft = await reftOf();
    const graph = trace(reft, inputs);
    const { promptLengths: _, ...batch } = inputs;
    assert.ok(
      await same(noGrad(() => graph.forward(inputs)).logits, noGrad(() => reft.forward(batch, layout)).logits),
      'await same(noGrad(() => graph.forward(inputs)).logits, noGrad(() =>...',
    );
    const labels = Int32Array.from(inputs.inputIds, (id, t) => (t < 4 ? -100 : id));
    const gradients = async (run: () => { loss: Tensor }): Promise<Float32Array[]> => {
      for (const { tensor } of reft.trained()) tensor.grad = null;
      run().loss.backward();
      return Promise.all(
        reft.trained().map(async ({ tensor }) => (await (tensor.grad as Tensor).data()) as Float32Array),
      );
    };
    assert.deepEqual(
      await gradients(() => graph.loss(inputs, labels)),
      await gradients(() => reft.loss(batch, labels, layout)),
    );
  });

  test('changes: disabled, removed, replaced and inserted edits; the adapter stays as it was', async () => {
    const reft = await reftOf();
    const { promptLengths: _, ...batch } = inputs;
    const logits = (graph: ReturnType<typeof trace>): Tensor => noGrad(() => graph.forward(inputs)).logits;
    const before = noGrad(() => reft.forward(batch, layout)).logits;
    const base = noGrad(() => reft.base.forward(batch)).logits;

    const ids = trace(reft, inputs).edits.map(e => e.id);
    const off = trace(reft, inputs);
    for (const id of ids) off.disable(id);
    assert.ok(await same(logits(off), base), 'all off is the base, bit for bit');
    for (const id of ids) off.enable(id);
    assert.ok(await same(logits(off), before), 'await same(logits(off), before)');

    const one = trace(reft, inputs).disable(ids[0]);
    const removed = trace(reft, inputs).remove(ids[0]);
    reft.interventions[0].enabled = false;
    assert.ok(await same(logits(one), logits(removed)), 'await same(logits(one), logits(removed))');
    assert.ok(
      await same(logits(one), noGrad(() => reft.forward(batch, layout)).logits),
      'await same(logits(one), noGrad(() => reft.forward(batch, layout)).l...',
    );
    reft.interventions[0].enabled = true;

    const doubled = (h: Tensor): Tensor => h.mul(2);
    const replaced = trace(reft, inputs);
    for (const id of ids.slice(1)) replaced.remove(id);
    replaced.replace(ids[0], { apply: doubled });
    const inserted = trace(reft.base, inputs).insert({ id: 'double', site: 'model.layers[0].output', apply: doubled });
    assert.ok(await same(logits(replaced), logits(inserted)), 'await same(logits(replaced), logits(inserted))');
    assert.ok(!(await same(logits(inserted), base)), '!(await same(logits(inserted), base))');

    const add = (h: Tensor): Tensor => h.add(1);
    const ordered = (place: { before?: string; after?: string }) =>
      logits(
        trace(reft.base, inputs)
          .insert({ id: 'double', site: 'block_output/1', apply: doubled })
          .insert({ id: 'add', site: 'block_output/1', apply: add }, place),
      );
    const first = noGrad(() =>
      reft.base.forward({
        ...batch,
        edits: [{ site: { layer: 1, component: 'block_output' }, apply: h => doubled(add(h)) }],
      }),
    ).logits;
    assert.ok(await same(ordered({ before: 'double' }), first), "await same(ordered({ before: 'double' }), first)");
    assert.ok(!(await same(ordered({ after: 'double' }), first)), "!(await same(ordered({ after: 'double' }), first))");
    assert.ok(await same(noGrad(() => reft.forward(batch, layout)).logits, before), 'the adapter is unchanged');
  });

  test('a gradient at any site is the one by differences', async () => {
    const model = await tinyModel({ dtype: 'f64' });
    const reft = getReftModel(model, { layers: [1], positions: 'l1', rank: 2 });
    const { promptLengths: _, ...batch } = inputs;
    const labels = Int32Array.from(inputs.inputIds, (id, t) => (t < 4 ? -100 : id));
    const sites = [...model.sites(), { layer: 1, component: 'query_output', head: 2 } as const];
    const { gradients } = reft.gradients(batch, labels, layout, sites);
    assert.equal(gradients.size, sites.length);
    for (const name of [
      'embeddings/0',
      'blocks.0.hook_resid_mid',
      'block_output/1',
      'attention_value_output/2',
      'final_norm',
      'query_output/1:2',
    ]) {
      const site = model.site(name);
      const given = gradients.get(
        `${site.component}/${site.layer}${site.head === undefined ? '' : `:${site.head}`}`,
      ) as Tensor;
      const gradient = await given.data();
      const at = 3 * given.shape[2] + 1;
      const lossWith = async (by: number): Promise<number> => {
        const nudge = (h: Tensor): Tensor => h.add(one.mul(by));
        const one = given.mul(0).add(await basis(given, at));
        return noGrad(() =>
          model.loss({ ...batch, edits: [...reft.edits(layout), { site, apply: onBatch(nudge) }] }, labels),
        ).loss.item();
      };
      const step = 1e-5;
      const expected = ((await lossWith(step)) - (await lossWith(-step))) / (2 * step);
      assert.ok(
        Math.abs(gradient[at] - expected) <= 1e-6 * Math.max(1, Math.abs(expected)),
        `${name}: ${gradient[at]}, by differences ${expected}`,
      );
    }
  });

  test('what does not fit is refused by name', async () => {
    const graph = trace(await reftOf(), inputs);
    assert.throws(
      () => graph.disable('nothing'),
      /^RangeError: graph: has no edit 'nothing'; it has block_output\/0, /,
    );
    assert.throws(
      () => graph.insert({ id: 'block_output/0', site: 'block_input/0', apply: h => h }),
      /there is an edit 'block_output\/0' already/,
    );
    assert.throws(() => graph.insert({ id: 'x', site: 'nowhere', apply: h => h }), /site 'nowhere' is not known/);
    assert.throws(
      () => graph.insert({ id: 'x', site: 'block_input/0', apply: h => h }, { after: 'block_output/0' }),
      /stands at block_output\/0, not at block_input\/0/,
    );
  });
});

async function basis(like: Tensor, at: number): Promise<Tensor> {
  const { create } = await import('../src/tensor/create.js');
  const data = new Float64Array(like.size);
  data[at] = 1;
  return create.from(data, like.shape, { dtype: 'f64', backend: like.backend });
}
