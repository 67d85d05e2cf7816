// Encoders of text and images: what every site is followed by, gradients at each, padding, heads and what they
// minimise, names, and what is refused.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { runConformance } from '../scripts/conformance/run.js';
import { memorySource } from '../src/io/byteSource.js';
import { writeSafetensors, type SafetensorsEntry } from '../src/io/safetensors.js';
import type { TextEncoder } from '../src/models/baseEncoder.js';
import { newClassifier, type SequenceClassifier } from '../src/models/classifier.js';
import type { ClipModel } from '../src/models/clip.js';
import { loadModel, openCheckpoint } from '../src/models/auto.js';
import { configFromHF } from '../src/models/families/index.js';
import type { Task } from '../src/models/families/family.js';
import type { MaskedLM } from '../src/models/maskedLM.js';
import type { Labels, Model, ModelOutput, PassOptions } from '../src/models/model.js';
import { onBatch, type SiteEdit } from '../src/models/patch.js';
import { siteName } from '../src/models/sites.js';
import { getReftModel } from '../src/reft/reftModel.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { ggufBytes } from './helpers/ggufBytes.js';
import { bertShapes, loadTiny, numbersOf, tinyEncoders, type TinyName } from './helpers/tinyEncoders.js';

test('golden values of transformers: RoBERTa, ModernBERT, CLIP', async () => {
  let out = '';
  const say = (text: string): void => {
    out += text;
  };
  const code = await runConformance([join(import.meta.dirname, 'fixtures', 'families')], { out: say, error: say });
  assert.equal(code, 0, out);
  assert.match(out, /5 passed, 0 failed, 0 unsupported/);
});

interface Shape {
  readonly name: TinyName;
  readonly task: Task;
  readonly labels: Labels;
}
const cases: readonly Shape[] = [
  { name: 'bert', task: 'sequenceClassification', labels: Int32Array.of(0, 1) },
  { name: 'bert', task: 'maskedLM', labels: Int32Array.of(3, -1, 5, -1, -1, 7, 2, -1) },
  { name: 'roberta', task: 'sequenceClassification', labels: Int32Array.of(2, 1) },
  { name: 'distilbert', task: 'sequenceClassification', labels: Int32Array.of(0, 1) },
  { name: 'modernbert', task: 'sequenceClassification', labels: Int32Array.of(1, 0) },
  { name: 'vit', task: 'imageClassification', labels: Int32Array.of(1, 0) },
  { name: 'clip', task: 'base', labels: Int32Array.of(1, 0) },
];

const ids = Int32Array.of(3, 5, 9, 2, 4, 7, 11, 0);
const attentionMask = Int32Array.of(1, 1, 1, 1, 1, 1, 1, 0);
const text = { inputIds: ids, shape: [2, 4], attentionMask };
const pixels = (model: Model): Tensor =>
  create.from(
    Float64Array.from({ length: 64 }, (_, i) => Math.sin(3 * i)),
    [2, 2, 4, 4],
    { dtype: model.dtype, backend: model.backend },
  );
function inputsOf(name: TinyName, model: Model): PassOptions {
  if (name === 'vit') return { pixelValues: pixels(model) } as PassOptions;
  return name === 'clip' ? ({ ...text, pixelValues: pixels(model) } as PassOptions) : (text as PassOptions);
}

const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
function mainOf(output: ModelOutput): Tensor {
  const { logits, logitsPerImage } = output as ModelOutput & { logits?: Tensor; logitsPerImage?: Tensor };
  return (logits ?? logitsPerImage) as Tensor;
}

for (const { name, task, labels } of cases) {
  test(`${name}, ${task}: an edit at a site changes what comes after it and nothing before`, async () => {
    const model = await loadTiny(tinyEncoders[name], task);
    const inputs = inputsOf(name, model);
    const collect = model.sites();
    const statesOf = async (edits: SiteEdit[]): Promise<Map<string, number[]>> => {
      const output = model.forward({ ...inputs, collect, edits });
      const states = new Map<string, number[]>([['output', await numbers(mainOf(output))]]);
      for (const [site, state] of output.collected) states.set(site, await numbers(state));
      return states;
    };
    const plain = await statesOf([]);
    for (const [i, site] of collect.entries()) {
      const edited = await statesOf([{ site, apply: h => h.mul(1.3).add(h.sin()) }]);
      const same = (other: string): boolean => String(plain.get(other)) === String(edited.get(other));
      const own = collect.filter(s => s.stack === site.stack);
      const before = [...collect.filter(s => s.stack !== site.stack), ...own.slice(0, own.indexOf(site))];
      for (const earlier of before)
        assert.equal(same(siteName(earlier)), true, `${siteName(site)} changes ${siteName(earlier)}`);
      const after = own.slice(own.indexOf(site)).filter(s => s === site || s.component === 'block_output');
      for (const later of after)
        assert.equal(same(siteName(later)), false, `${siteName(site)} does not reach ${siteName(later)}`);
      assert.equal(same('output'), false, `${siteName(site)} (${i}) does not reach the output`);
    }
  });

  test(`${name}, ${task}: gradients at every site agree with differences, recomputed or not`, async () => {
    const model = await loadTiny(tinyEncoders[name], task);
    const inputs = inputsOf(name, model);
    const sites = model.sites({ heads: true });
    const { gradients } = model.gradients(inputs, labels, sites);
    const again = model.gradients({ ...inputs, recompute: true }, labels, [sites[0], sites[sites.length - 1]]);
    const step = 1e-5;
    for (const site of sites) {
      const gradient = gradients.get(siteName(site)) as Tensor;
      const direction = create.from(
        Float64Array.from({ length: gradient.size }, (_, i) => Math.cos(i)),
        gradient.shape,
        { dtype: 'f64', backend: model.backend },
      );
      const at = async (distance: number): Promise<number> => {
        const edits = [{ site, apply: onBatch(h => h.add(direction.mul(distance))) }];
        return model.loss({ ...inputs, edits }, labels).loss.item();
      };
      const slope = ((await at(step)) - (await at(-step))) / (2 * step);
      const expected = await gradient.mul(direction).sum().item();
      assert.equal(
        Math.abs(slope - expected) < 1e-8 + 1e-6 * Math.abs(expected),
        true,
        `${siteName(site)}: ${slope}, expected ${expected}`,
      );
    }
    // Where nobody looks at the last block, it computes other rows alone.
    for (const [site, gradient] of again.gradients) {
      const expected = await numbers(gradients.get(site) as Tensor);
      const errors = (await numbers(gradient)).map((x, k) => Math.abs(x - expected[k]));
      assert.equal(Math.max(...errors) < 1e-12, true, `${site}, recomputed: ${Math.max(...errors)}`);
    }
  });
}

test('padding on either side changes nothing, and nothing is computed for it', async () => {
  for (const { name, task } of cases) {
    if (name === 'vit' || name === 'clip') continue;
    const model = await loadTiny(tinyEncoders[name], task);
    const counts: number[] = [];
    const site = { layer: 0, component: 'mlp_output' } as const;
    const spy: SiteEdit = {
      site,
      apply: (h, rows) => {
        counts.push(rows.count);
        return h;
      },
    };
    const of = async (inputIds: number[], mask: number[]): Promise<number[]> => {
      const options = {
        inputIds: Int32Array.from(inputIds),
        shape: [1, mask.length],
        attentionMask: Int32Array.from(mask),
      };
      const values = await numbers(mainOf(model.forward({ ...options, edits: [spy] } as PassOptions)));
      const perToken = values.length / mask.length;
      return task === 'maskedLM' ? values.filter((_, i) => mask[Math.floor(i / perToken)] === 1) : values;
    };
    const alone = await of([4, 7, 11], [1, 1, 1]);
    assert.deepEqual(await of([4, 7, 11, 1, 1], [1, 1, 1, 0, 0]), alone, `${name}: on the right`);
    assert.deepEqual(await of([1, 1, 4, 7, 11], [0, 0, 1, 1, 1]), alone, `${name}: on the left`);
    assert.deepEqual(counts, [3, 3, 3], name);
  }
});

test("RoBERTa's positions skip the padding id even where it is attended to", async () => {
  const model = (await loadTiny(tinyEncoders.roberta, 'sequenceClassification')) as SequenceClassifier;
  const inputIds = Int32Array.of(4, 1, 7);
  const of = (positions?: Int32Array): Promise<number[]> =>
    numbers(model.forward({ inputIds, shape: [1, 3], ...(positions ? { positions } : {}) }).logits);
  assert.deepEqual(await of(), await of(Int32Array.of(0, -1, 1)));
});

test('what heads minimise', async () => {
  const { config, shapes } = tinyEncoders.bert;
  const of = async (more: object): Promise<SequenceClassifier> =>
    (await loadTiny({ config: { ...config, ...more }, shapes }, 'sequenceClassification')) as SequenceClassifier;
  const options = { ...text, tokenTypeIds: Int32Array.of(0, 0, 1, 1, 0, 1, 1, 0) };
  const plain = await of({});
  const logits = await numbers(plain.forward(options).logits);
  assert.notDeepEqual(logits, await numbers(plain.forward(text).logits), 'token types count');
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  const near = (actual: number, expected: number, what: string): void =>
    assert.equal(Math.abs(actual - expected) < 1e-12, true, `${what}: ${actual}, expected ${expected}`);
  const [a, b, c, d] = logits;
  const nll = (own: number, other: number): number => Math.log1p(Math.exp(other - own));
  const single = plain.loss(options, Int32Array.of(1, 0));
  near(await single.loss.item(), mean([nll(b, a), nll(c, d)]), 'classes');
  assert.equal(single.labelled, 2);
  const one = plain.loss(options, Int32Array.of(-100, 0));
  near(await one.loss.item(), nll(c, d), 'a class that is not given');
  assert.equal(one.labelled, 1);
  const targets = Float64Array.of(1, 0, 0, 1);
  const bce = mean(logits.map((x, i) => Math.log1p(Math.exp(x)) - x * targets[i]));
  near(await plain.loss(options, targets).loss.item(), bce, 'several classes, by the type of labels');
  const several = await of({ problem_type: 'multi_label_classification' });
  near(await several.loss(options, Int32Array.of(1, 0, 0, 1)).loss.item(), bce, 'several classes, by problem_type');
  const squares = mean(logits.map((x, i) => (x - targets[i]) ** 2));
  const regression = await of({ problem_type: 'regression' });
  near(await regression.loss(options, targets).loss.item(), squares, 'numbers');
  assert.throws(() => plain.loss(options, Int32Array.of(1)), /labels: expected 2 for logits \[2,2\], got 1/);
  assert.throws(() => regression.loss(options, Float64Array.of(1, 2, NaN, 4)), /expected finite numbers, got NaN at 2/);
  const strict = await of({ problem_type: 'single_label_classification' });
  assert.throws(() => strict.loss(options, targets), /labels: expected 2 for logits \[2,2\], got 4/);

  const masked = (await loadTiny(tinyEncoders.bert, 'maskedLM')) as MaskedLM;
  const all = masked.forward(text);
  const chosen = masked.forward({ ...text, logitsAt: Int32Array.of(5, 1) });
  const rows = await numbers(all.logits.reshape([8, 20]).takeRows([5, 1]));
  (await numbers(chosen.logits)).forEach((x, i) => near(x, rows[i], `logit ${i}`));
  const tokens = new Int32Array(8).fill(-1);
  tokens[5] = 3;
  const logSum = Math.log(rows.slice(0, 20).reduce((sum, x) => sum + Math.exp(x), 0));
  near(await masked.loss(text, tokens).loss.item(), logSum - rows[3], 'a masked token');
  assert.throws(() => masked.loss(text, new Int32Array(8).fill(-1)), /labels: no token has a label/);
});

test('sentence embeddings: means of real tokens, or first tokens, of length 1', async () => {
  const model = (await loadTiny(tinyEncoders.bert, 'base')) as TextEncoder;
  const texts = [
    [3, 5, 9, 2],
    [4, 7, 11],
  ];
  const output = model.forward(text);
  const states = await numbers(output.lastHiddenState);
  const mean = Array.from({ length: 2 }, (_, b) =>
    Array.from({ length: 12 }, (__, j) => {
      const n = texts[b].length;
      return Array.from({ length: n }, (___, t) => states[(b * 4 + t) * 12 + j]).reduce((x, y) => x + y, 0) / n;
    }),
  );
  const close = (actual: readonly number[], expected: readonly number[]): void =>
    actual.forEach((x, i) => assert.equal(Math.abs(x - expected[i]) < 1e-12, true, `${i}: ${x}, ${expected[i]}`));
  close(await numbers(model.embed(texts, { normalize: false })), mean.flat());
  close(
    await numbers(model.embed(texts)),
    mean.flatMap(row => row.map(x => x / Math.hypot(...row))),
  );
  const first = [0, 4].flatMap(token => states.slice(token * 12, (token + 1) * 12));
  close(await numbers(model.embed(texts, { normalize: false, pooling: 'first' })), first);
  assert.equal(output.poolerOutput?.shape.join(), '2,12');
  assert.throws(() => model.loss(text, Int32Array.of(1)), /tiny: a base model has no loss/);
});

test('a new head over a base is trained, and so are edits of it', async () => {
  const base = (await loadTiny(tinyEncoders.bert, 'base')) as TextEncoder;
  const classifier = newClassifier(base, { labels: 3, pooling: 'mean', seed: 4 });
  const reft = getReftModel(classifier, { layers: [0], positions: 'f1+l1', rank: 2, tied: true });
  const layout = { batch: 2, width: 4, starts: [0, 0], promptLengths: [4, 3], lengths: [4, 3] };
  const { loss } = reft.loss(text, Int32Array.of(2, 0), layout);
  loss.backward();
  const trained = [...classifier.namedParameters()].filter(([, t]) => t.requiresGrad);
  assert.deepEqual(
    trained.map(([name]) => name),
    ['classifier.weight', 'classifier.bias'],
  );
  for (const { name, tensor } of [...trained.map(([n, tensor]) => ({ name: n, tensor })), ...reft.trained()])
    assert.equal(
      (await numbers(tensor.grad as Tensor)).some(x => x !== 0),
      true,
      `${name} has a gradient`,
    );
  assert.deepEqual(reft.forward(text, layout).logits.shape, [2, 3]);
  assert.throws(() => newClassifier(base, { labels: 0 }), /labels: expected a whole number from 1, got 0/);
  assert.throws(() => reft.generate([[1]]), /tiny: only a language model generates/);
});

test('names of sites in every dialect', async () => {
  const names: Partial<Record<TinyName, readonly (readonly [string, string])[]>> = {
    bert: [
      ['bert.encoder.layer[1].output', 'block_output/1'],
      ['encoder.layer.1.output.dense.output', 'mlp_output/1'],
      ['encoder.layer.1.output.LayerNorm.output', 'block_output/1'],
      ['bert.encoder.layer.0.attention.self.query.output', 'query_output/0'],
      ['bert.encoder.layer.0.attention.self.output', 'attention_value_output/0'],
      ['bert.encoder.layer.0.attention.output.dense.output', 'attention_output/0'],
      ['bert.encoder.layer.0.attention.output', 'block_middle/0'],
      ['bert.encoder.layer.0.intermediate.output', 'mlp_activation/0'],
      ['bert.embeddings.LayerNorm.output', 'embeddings/0'],
      ['blocks.1.hook_resid_mid', 'block_middle/1'],
      ['head_query_output/1:1', 'query_output/1:1'],
    ],
    distilbert: [['distilbert.transformer.layer.1.ffn.lin2.output', 'mlp_output/1']],
    modernbert: [
      ['model.layers.1.mlp.Wi.input', 'mlp_input/1'],
      ['model.final_norm.output', 'final_norm/1'],
      ['model.layers.1.attn.output', 'attention_output/1'],
    ],
    vit: [
      ['vit.layers[1].output', 'block_output/1'],
      ['vit.encoder.layer[1].output', 'block_output/1'],
      ['vit.layernorm.output', 'final_norm/1'],
    ],
    clip: [
      ['vision_model.encoder.layers.1.output', 'vision/block_output/1'],
      ['text_model.encoder.layers.1.mlp.output', 'text/mlp_output/1'],
      ['text.1.attn.hook_z[1]', 'text/attention_value_output/1:1'],
      ['vision/embeddings', 'vision/embeddings/0'],
    ],
  };
  for (const [name, pairs] of Object.entries(names)) {
    const task = name === 'clip' || name === 'bert' ? 'base' : name === 'vit' ? 'imageClassification' : 'maskedLM';
    const model = await loadTiny(tinyEncoders[name as TinyName], task);
    for (const [theirs, ours] of pairs) assert.equal(siteName(model.site(theirs)), ours, theirs);
  }
  const bert = await loadTiny(tinyEncoders.bert, 'base');
  assert.throws(() => bert.site('final_norm/1'), /the components are embeddings, block_input/);
});

test('base checkpoints without prefix, and old names of norms', async () => {
  const plain = (await loadTiny(tinyEncoders.bert, 'base')) as TextEncoder;
  const expected = await numbers(plain.forward(text).lastHiddenState);
  const { config } = tinyEncoders.bert;
  const renamed = (rename: (name: string) => string): Promise<Model> => {
    const entries = Object.entries(bertShapes('bert.')).map(([name, shape]) => ({
      name: rename(name),
      dtype: 'F32' as const,
      shape,
      data: numbersOf(name, shape),
    }));
    return loadFrom(entries, config);
  };
  const bare = await renamed(name => name.slice('bert.'.length));
  assert.deepEqual(await numbers((bare as TextEncoder).forward(text).lastHiddenState), expected);
  const old = await renamed(name =>
    name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta'),
  );
  assert.deepEqual(await numbers((old as TextEncoder).forward(text).lastHiddenState), expected);
});

async function loadFrom(entries: readonly SafetensorsEntry[], config: object): Promise<Model> {
  const checkpoint = await openCheckpoint(memorySource(writeSafetensors(entries), 'tiny'), config);
  return loadModel(checkpoint, 'base', { dtype: 'f64', device: 'cpu' });
}

test('a BERT in a GGUF is the same base model', async () => {
  const plain = (await loadTiny(tinyEncoders.bert, 'base')) as TextEncoder;
  const stored: readonly (readonly [RegExp, string])[] = [
    [/^bert\.embeddings\.word_embeddings/, 'token_embd'],
    [/^bert\.embeddings\.position_embeddings/, 'position_embd'],
    [/^bert\.embeddings\.token_type_embeddings/, 'token_types'],
    [/^bert\.embeddings\.LayerNorm/, 'token_embd_norm'],
    [/^bert\.encoder\.layer\.(\d)\.attention\.self\.(.).*(?=\.(weight|bias)$)/, 'blk.$1.attn_$2'],
    [/^bert\.encoder\.layer\.(\d)\.attention\.output\.dense/, 'blk.$1.attn_output'],
    [/^bert\.encoder\.layer\.(\d)\.attention\.output\.LayerNorm/, 'blk.$1.attn_output_norm'],
    [/^bert\.encoder\.layer\.(\d)\.intermediate\.dense/, 'blk.$1.ffn_up'],
    [/^bert\.encoder\.layer\.(\d)\.output\.dense/, 'blk.$1.ffn_down'],
    [/^bert\.encoder\.layer\.(\d)\.output\.LayerNorm/, 'blk.$1.layer_output_norm'],
  ];
  const u32 = (value: number) => ({ type: 'u32', value }) as const;
  const spec = (causal: boolean) => ({
    metadata: [
      ['general.architecture', { type: 'string', value: 'bert' }],
      ['bert.vocab_size', u32(20)],
      ['bert.context_length', u32(16)],
      ['bert.embedding_length', u32(12)],
      ['bert.feed_forward_length', u32(16)],
      ['bert.block_count', u32(2)],
      ['bert.attention.head_count', u32(2)],
      ['bert.attention.layer_norm_epsilon', { type: 'f32', value: 1e-12 }],
      ['bert.attention.causal', { type: 'bool', value: causal }],
      ['bert.pooling_type', u32(1)],
    ] as const,
    tensors: Object.entries(bertShapes('bert.')).map(([name, shape]) => {
      const [pattern, to] = stored.find(([from]) => from.test(name)) as readonly [RegExp, string];
      const data = new Uint8Array(numbersOf(name, shape).buffer);
      return { name: name.replace(pattern, to), sides: [...shape].reverse(), type: 0, data };
    }),
  });
  const open = async (causal: boolean): Promise<Model> =>
    loadModel(await openCheckpoint(memorySource(ggufBytes(spec(causal)), 'tiny.gguf')), 'base', {
      dtype: 'f64',
      device: 'cpu',
    });
  const model = (await open(false)) as TextEncoder;
  const close = (a: readonly number[], b: readonly number[]): void =>
    a.forEach((x, i) => assert.equal(Math.abs(x - b[i]) < 1e-12, true, `${i}: ${x}, expected ${b[i]}`));
  close(await numbers(model.forward(text).lastHiddenState), await numbers(plain.forward(text).lastHiddenState));
  await assert.rejects(open(true), /bert.attention.causal: true: not understood/);
});

test("CLIP's loss pairs texts with images, and its towers run alone", async () => {
  const model = (await loadTiny(tinyEncoders.clip, 'base')) as ClipModel;
  const options = { ...text, pixelValues: pixels(model) };
  const output = model.forward({ ...options, hiddenStates: true });
  assert.equal(output.textHiddenStates.length, 3);
  assert.equal(output.visionHiddenStates.length, 3);
  const [a, b, c, d] = await numbers(output.logitsPerText);
  const nll = (own: number, other: number): number => Math.log1p(Math.exp(other - own));
  const expected = (nll(a, b) + nll(d, c) + nll(a, c) + nll(d, b)) / 4;
  const { loss, labelled } = model.loss(options, Int32Array.of(0, 1));
  assert.equal(Math.abs((await loss.item()) - expected) < 1e-12, true, 'in one order');
  assert.equal(labelled, 2);
  assert.throws(() => model.loss(options, Int32Array.of(1, 1)), /each image from 0 to 1 once, got 1 for text 1/);
  assert.deepEqual(await numbers(model.embedTexts(text)), await numbers(output.textEmbeds));
  assert.deepEqual(
    await numbers(model.embedImages({ pixelValues: options.pixelValues })),
    await numbers(output.imageEmbeds),
  );
  const { config, shapes } = tinyEncoders.clip;
  const ended = { ...config, text_config: { ...config.text_config, eos_token_id: 5 } };
  const newer = (await loadTiny({ config: ended, shapes }, 'base')) as ClipModel;
  assert.throws(() => newer.embedTexts(text), /inputIds: row 1 has no end token 5/);
});

test('inputs that do not fit are refused by name', async () => {
  const bert = (await loadTiny(tinyEncoders.bert, 'base')) as TextEncoder;
  const refused = (more: object, message: RegExp, model: Model = bert): void => {
    assert.throws(() => model.forward({ ...text, ...more } as PassOptions), message);
  };
  refused({ tokenTypeIds: new Int32Array(8).fill(2) }, /tokenTypeIds: expected whole numbers from 0 to 1, got 2/);
  refused({ tokenTypeIds: new Int32Array(3) }, /tokenTypeIds: expected 8 entries, got 3/);
  refused({ tokenTypeIds: [0] }, /tokenTypeIds: expected an Int32Array/);
  refused({ logitsAt: Int32Array.of(0) }, /logitsAt: an encoder does not take it/);
  refused({ attentionMask: Int32Array.of(1, 1, 1, 1, 0, 0, 0, 0) }, /attentionMask: row 1 has no tokens/);
  refused({ positions: new Int32Array(8).fill(16) }, /position 16 is out of range: the model has 16 positions/);
  const distilbert = await loadTiny(tinyEncoders.distilbert, 'base');
  refused({ tokenTypeIds: new Int32Array(8) }, /tokenTypeIds: a distilbert has no token types/, distilbert);
  const vit = await loadTiny(tinyEncoders.vit, 'imageClassification');
  const { backend } = vit;
  const image = (shape: readonly number[], dtype: 'f32' | 'f64' = 'f64'): object => ({
    pixelValues: create.zeros(shape, { dtype, backend }),
  });
  refused(image([1, 2, 4, 6]), /pixelValues: expected \[images, 2, 4, 4\], got \[1,2,4,6\]/, vit);
  refused(image([1, 2, 4, 4], 'f32'), /pixelValues: expected f64, got f32/, vit);
  refused({ pixelValues: 3 }, /pixelValues: expected a tensor/, vit);
  const clip = await loadTiny(tinyEncoders.clip, 'base');
  refused({ tokenTypeIds: ids }, /tokenTypeIds: a clip does not take it/, clip);
});

test('checkpoints and configurations of other models are refused by family, field and value', async () => {
  const refused = async (
    name: TinyName,
    task: Task,
    change: (shapes: Record<string, readonly number[]>) => void,
    message: RegExp,
  ): Promise<void> => {
    const shapes = { ...tinyEncoders[name].shapes } as Record<string, readonly number[]>;
    change(shapes);
    await assert.rejects(loadTiny({ config: tinyEncoders[name].config, shapes }, task), message);
  };
  const without = (name: string) => (shapes: Record<string, readonly number[]>) => {
    Reflect.deleteProperty(shapes, name);
  };
  const shaped = (name: string, shape: readonly number[]) => (shapes: Record<string, readonly number[]>) => {
    shapes[name] = shape;
  };
  await refused(
    'bert',
    'sequenceClassification',
    without('classifier.weight'),
    /has no 'classifier.weight': the checkpoint is of a model without this head/,
  );
  await refused(
    'bert',
    'base',
    without('bert.encoder.layer.1.output.dense.bias'),
    /bert.encoder.layer.1.output.dense.bias/,
  );
  await refused(
    'bert',
    'base',
    shaped('bert.encoder.layer.1.output.dense.weight', [12, 12]),
    /output.dense.weight has shape \[12,12\], the configuration says \[12,16\]/,
  );
  await refused(
    'roberta',
    'sequenceClassification',
    shaped('classifier.out_proj.weight', [2, 12]),
    /classifier.out_proj.weight has shape \[2,12\], the configuration says \[3,12\]/,
  );
  await refused(
    'modernbert',
    'base',
    shaped('model.layers.0.attn_norm.weight', [12]),
    /'model.layers.0.attn_norm.weight' that its configuration has no place for/,
  );
  await refused(
    'clip',
    'base',
    shaped('vision_model.encoder.layers.1.extra.weight', [12]),
    /'vision_model.encoder.layers.1.extra.weight' that its configuration has no place for/,
  );
  await refused(
    'vit',
    'maskedLM',
    () => undefined,
    /a vit is no model for AutoModelForMaskedLM; it is one for AutoModel, AutoModelForImageClassification/,
  );

  const config = (name: TinyName, more: object, message: RegExp): void => {
    assert.throws(() => configFromHF({ ...tinyEncoders[name].config, ...more }, 'config.json'), message);
  };
  config('bert', { is_decoder: true }, /config.json: is_decoder: .*expected false; it is true/);
  config(
    'bert',
    { position_embedding_type: 'relative_key' },
    /position_embedding_type: .*"absolute"; it is "relative_key"/,
  );
  config('bert', { rope_theta: 10000 }, /"rope_theta": 10000: not understood/);
  config('bert', { hidden_act: 'mish' }, /hidden_act: 'mish' is not known/);
  config('bert', { hidden_size: null }, /hidden_size: .*; it is nothing/);
  config('bert', { num_attention_heads: 5 }, /the hidden size 12 is not a multiple of 5 attention heads/);
  config('bert', { problem_type: 'ranking' }, /problem_type: .*; it is "ranking"/);
  config('roberta', { pad_token_id: 99 }, /pad_token_id: expected an id of the vocabulary, got 99/);
  config('roberta', { max_position_embeddings: 2 }, /max_position_embeddings: expected more than 2 rows, got 2/);
  config('modernbert', { layer_types: ['full_attention'] }, /layer_types: has 1 entries for 2 layers/);
  config(
    'modernbert',
    { rope_parameters: { rope_theta: 3 } },
    /rope_parameters.rope_theta: expected settings of full_attention and sliding_attention alone/,
  );
  config(
    'modernbert',
    { rope_parameters: { full_attention: 3 } },
    /rope_parameters.full_attention: expected an object, got 3/,
  );
  config('vit', { patch_size: 3 }, /image_size: 4 x 4 is not made of whole patches of 3 x 3/);
  config('clip', { vision_config: null }, /vision_config: expected an object, got nothing/);
  config('clip', { text_config: { layers: 3 } }, /config.json, text_config: "layers": 3: not understood/);
});

test("both spellings of ModernBERT's rotary embeddings", () => {
  const { config } = tinyEncoders.modernbert;
  const {
    global_rope_theta: _global,
    local_rope_theta: _local,
    torch_dtype: _dtype,
    global_attn_every_n_layers: _every,
    ...rest
  } = config;
  const old = configFromHF({ ...config, global_rope_theta: 5000, local_rope_theta: 300 }, 'old');
  const now = configFromHF(
    {
      ...rest,
      dtype: 'float32',
      layer_types: ['full_attention', 'sliding_attention'],
      rope_parameters: {
        full_attention: { rope_theta: 5000, rope_type: 'default' },
        sliding_attention: { rope_theta: 300 },
      },
    },
    'now',
  );
  assert.deepEqual(now, old);
  assert.deepEqual(
    old.ropes.map(rope => rope?.theta),
    [5000, 300],
  );
  assert.deepEqual(old.windows, [null, 1]);
});
