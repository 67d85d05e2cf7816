// Models of two stacks: what edits of both do, gradients at every site, padding, generation from a cache, names of
// sites, what is refused. Tiny random models; values were pinned when all goldens of transformers agreed.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { noGrad } from '../src/autograd/tape.js';
import { FormatError } from '../src/io/errors.js';
import type { TransformerBlock } from '../src/models/block.js';
import { configFromHF, siteName, type Site } from '../src/models/index.js';
import type { SiteEdit } from '../src/models/patch.js';
import type { Seq2SeqLM, Seq2SeqOptions } from '../src/models/seq2seqLM.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { Random } from '../src/tensor/threefry.js';
import {
  entriesOf,
  kinds,
  settingsOf,
  tinyFrames,
  tinyMels,
  tinySeq2Seq,
  tinyVocabulary,
  type Kind,
} from './helpers/tinySeq2Seq.js';

const drawn = (length: number, seed: number): Int32Array => {
  const random = new Random(seed);
  return Int32Array.from({ length }, () => 3 + random.integer(tinyVocabulary - 3));
};

function featuresFor(model: Seq2SeqLM, batch: number, seed = 4): Tensor {
  const random = new Random(seed);
  const data = Float32Array.from({ length: batch * tinyMels * 2 * tinyFrames }, () => random.normal());
  const { backend, dtype } = model;
  return create.from(dtype === 'f64' ? Float64Array.from(data) : data, [batch, tinyMels, 2 * tinyFrames], {
    backend,
    dtype,
  });
}

const width = 5;
const length = 4;
/** Two rows, the first one's last encoder token padding where there are ids. */
function inputsOf(kind: Kind, model: Seq2SeqLM): Seq2SeqOptions & { labels: Int32Array } {
  const labels = drawn(2 * length, 9).map((id, i) => (i === 3 ? -100 : id));
  const encoder =
    kind === 'whisper'
      ? { inputFeatures: featuresFor(model, 2) }
      : {
          inputIds: drawn(2 * width, 8),
          shape: [2, width],
          attentionMask: Int32Array.from([1, 1, 1, 1, 0, 1, 1, 1, 1, 1]),
        };
  return { ...encoder, decoderShape: [2, length], labels };
}

/** The options of a forward, the decoder's input made of labels. */
function forwardOf(kind: Kind, model: Seq2SeqLM): Seq2SeqOptions {
  const { labels, ...options } = inputsOf(kind, model);
  return { ...options, ...model.decoderInputs(labels, [2, length]) };
}

function lossOf(kind: Kind, model: Seq2SeqLM, edits: readonly SiteEdit[] = []): number {
  const { labels, ...options } = inputsOf(kind, model);
  return Number(noGrad(() => model.loss({ ...options, edits }, labels).loss).dataSync()[0]);
}

const furthest = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  assert.equal(a.length, b.length);
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
};
const models = new Map<string, Promise<Seq2SeqLM>>();
const modelOf = (kind: Kind): Promise<Seq2SeqLM> => {
  const made = models.get(kind) ?? tinySeq2Seq(kind, { dtype: 'f64' });
  models.set(kind, made);
  return made;
};
const collectedOf = (model: Seq2SeqLM, options: Seq2SeqOptions): Map<string, ArrayLike<number>> =>
  new Map(
    [...noGrad(() => model.forward({ ...options, collect: model.sites() })).collected].map(([name, state]) => [
      name,
      state.dataSync(),
    ]),
  );

const pinned: Readonly<Record<Kind, { parameters: number; loss: number; logits: readonly number[] }>> = {
  t5: {
    parameters: 2200,
    loss: 3.082129108605748,
    logits: [1.7875787524654623, -0.7055000593686327, 0.2808091269620637, -0.051760592946555356],
  },
  't5-gated': {
    parameters: 2736,
    loss: 3.1627299050494537,
    logits: [0.6308113408621357, 0.6002175750562002, -1.2312464041326037, -0.12372784444819125],
  },
  bart: {
    parameters: 3355,
    loss: 5.173117151943757,
    logits: [2.004970217180842, -0.4091922297043358, 0.8760834588044015, -3.5601942702655105],
  },
  whisper: {
    parameters: 3360,
    loss: 6.829662581700936,
    logits: [-2.880599542857771, -0.4113321487631804, 2.9557117085534843, -1.1054743509289424],
  },
  marian: {
    parameters: 2603,
    loss: 5.8010292105718335,
    logits: [-3.5449890086053886, -1.5670034828397252, -3.5619489781229827, 4.466460473273484],
  },
};

for (const kind of kinds) {
  describe(kind, () => {
    test('logits and loss are those of the formulas', async () => {
      const model = await modelOf(kind);
      const { loss, logits, parameters } = pinned[kind];
      const output = noGrad(() => model.forward(forwardOf(kind, model)));
      assert.deepEqual(output.logits.shape, [2, length, tinyVocabulary]);
      const some = [0, 40, 90, 151].map(i => Number(output.logits.dataSync()[i]));
      assert.ok(furthest(some, logits) < 1e-9, `logits ${some.join(', ')}`);
      assert.ok(Math.abs(lossOf(kind, model) - loss) < 1e-9, `loss ${lossOf(kind, model)}`);
      assert.equal(model.parameterCount, parameters);
    });

    test('an edit at every site changes what comes after it and nothing before, in both stacks', async () => {
      const model = await modelOf(kind);
      const options = forwardOf(kind, model);
      const base = collectedOf(model, options);
      const order = model.sites().map(siteName);
      assert.deepEqual([...base.keys()], order);
      const logits = noGrad(() => model.forward(options).logits).dataSync();
      for (const site of model.sites()) {
        const name = siteName(site);
        const edits = [{ site, apply: (h: Tensor) => h.mul(1.5).add(0.25) }];
        const edited = collectedOf(model, { ...options, edits });
        for (const other of order) {
          const change = furthest(edited.get(other) as number[], base.get(other) as number[]);
          if (order.indexOf(other) < order.indexOf(name)) assert.equal(change, 0, `${name} changed ${other}`);
          if (other === name) assert.ok(change > 0.01, `${name} is edited`);
        }
        const after = noGrad(() => model.forward({ ...options, edits }).logits).dataSync();
        assert.ok(furthest(after, logits) > 1e-6, `${name} reaches the logits`);
      }
    });

    test('gradients at every site are those of differences', async () => {
      const model = await modelOf(kind);
      const { labels, ...options } = inputsOf(kind, model);
      const { gradients } = model.gradients(options, labels, model.sites());
      for (const site of model.sites()) {
        const gradient = gradients.get(siteName(site)) as Tensor;
        const random = new Random(3);
        const direction = gradient.dataSync().map(() => random.normal());
        const along = create.from(Float64Array.from(direction), gradient.shape, model);
        const at = (step: number): number =>
          lossOf(kind, model, [{ site, apply: (h, rows) => h.add(rows.gather(along).mul(step)) }]);
        const wanted = (at(1e-5) - at(-1e-5)) / 2e-5;
        const got = Array.from(gradient.dataSync()).reduce((sum, g, i) => sum + g * direction[i], 0);
        assert.ok(Math.abs(got - wanted) < 1e-6 * (1 + Math.abs(wanted)), `${siteName(site)}: ${got}, not ${wanted}`);
      }
    });

    test('recomputed blocks give the same gradients to a trained edit of either stack', async () => {
      const model = await modelOf(kind);
      const { labels, ...options } = inputsOf(kind, model);
      for (const site of ['encoder/block_output/0', 'decoder/cross_value_output/1'].map(name => model.site(name))) {
        const shift = create.zeros([model.widthAt(site.component, undefined, site.stack)], model).requireGrad();
        const edits = [{ site, apply: (h: Tensor) => h.add(shift) }];
        const [plain, again] = [false, true].map(recompute => {
          shift.grad = null;
          model.loss({ ...options, edits, recompute }, labels).loss.backward();
          return (shift.grad as unknown as Tensor).dataSync();
        });
        // A decoder's blocks add up what they read of the encoder in another order.
        assert.ok(furthest(again, plain) < 1e-15 * plain.length, siteName(site));
        assert.ok(furthest(plain, new Float64Array(plain.length)) > 1e-6, 'there is a gradient');
      }
    });

    test('tokens of the decoder see none behind them', async () => {
      const model = await modelOf(kind);
      const options = forwardOf(kind, model);
      const ids = Int32Array.from(options.decoderInputIds as Int32Array);
      ids[length - 1] = 7;
      const [before, after] = [options, { ...options, decoderInputIds: ids }].map(given =>
        noGrad(() => model.forward(given).logits).dataSync(),
      );
      const row = (length - 1) * tinyVocabulary;
      assert.equal(furthest(before.slice(0, row), after.slice(0, row)), 0);
      assert.ok(furthest(before.slice(row), after.slice(row)) > 1e-3, 'its own logits change');
    });

    test('generation from a cache is that without, with edits of both stacks', async () => {
      const model = await tinySeq2Seq(kind);
      const prompts =
        kind === 'whisper'
          ? featuresFor(model, 2)
          : [
              [5, 6, 7],
              [8, 9, 10, 11, 4],
            ];
      const shift = (site: string, by: number, stack: string) => ({
        site: model.site(site),
        apply: (h: Tensor) => h.mul(1 + by),
        stack,
      });
      const sites = [
        shift('encoder/block_output/0', 1, 'encoder'),
        shift('decoder/cross_value_output/1', 2, 'encoder'),
        shift('decoder/block_output/1', -2, 'decoder'),
      ];
      const steps: string[] = [];
      const edits = {
        editsFor: (layouts: object) => {
          steps.push(Object.keys(layouts).join());
          return sites.filter(({ stack }) => stack in layouts);
        },
      };
      const options = { maxNewTokens: 6, stopTokenIds: [], seed: 5 };
      const run = async (more: object): Promise<number[][]> =>
        (await model.generate(prompts, { ...options, ...more })).map(({ ids }) => ids);
      for (const sampling of [{}, { temperature: 1.3, topK: 9 }]) {
        const [plain, edited] = [await run(sampling), await run({ ...sampling, edits })];
        assert.deepEqual(await run({ ...sampling, useCache: false }), plain);
        assert.deepEqual(await run({ ...sampling, edits, useCache: false }), edited);
        assert.notDeepEqual(edited, plain);
      }
      assert.deepEqual(steps.slice(0, 6), ['encoder,decoder', ...new Array<string>(5).fill('decoder')]);
      const start = model.config.decoderStartTokenId;
      assert.deepEqual(await run({ decoderPrompt: [start] }), await run({}));
      const [first] = await run({});
      const one = kind === 'whisper' ? prompts : (prompts as number[][]).slice(0, 1);
      const rest = await model.generate(one, {
        ...options,
        maxNewTokens: 4,
        decoderPrompt: [start, first[0], first[1]],
      });
      assert.deepEqual(rest[0].ids, first.slice(2));
      const [stopped] = await model.generate(one, { ...options, stopTokenIds: [first[1]] });
      assert.deepEqual([stopped.ids, stopped.finish], [first.slice(0, first.indexOf(first[1]) + 1), 'stop']);
    });
  });
}

test('padding on either side of either stack changes nothing', async () => {
  for (const kind of ['t5', 'bart'] as const) {
    const model = await modelOf(kind);
    const [source, target] = [drawn(3, 1), drawn(3, 2)];
    const alone = noGrad(() =>
      model.forward({ inputIds: source, shape: [1, 3], decoderInputIds: target, decoderShape: [1, 3] }),
    ).logits.dataSync();
    for (const left of [0, 2]) {
      const padded = (ids: Int32Array): { ids: Int32Array; mask: Int32Array } => {
        const [all, mask] = [new Int32Array(5).fill(4), new Int32Array(5)];
        all.set(ids, left);
        mask.fill(1, left, left + 3);
        return { ids: all, mask };
      };
      const [encoder, decoder] = [padded(source), padded(target)];
      const options = {
        inputIds: encoder.ids,
        shape: [1, 5],
        attentionMask: encoder.mask,
        decoderInputIds: decoder.ids,
        decoderShape: [1, 5],
        decoderAttentionMask: decoder.mask,
      };
      const { logits } = noGrad(() => model.forward(options));
      const real = logits.dataSync().slice(left * tinyVocabulary, (left + 3) * tinyVocabulary);
      assert.ok(furthest(real, alone) < 1e-12, `${kind}, ${left} on the left`);
    }
  }
});

test('an encoder that ran is not run again', async () => {
  const model = await modelOf('t5');
  const options = forwardOf('t5', model);
  const encoded = noGrad(() => model.encode(options));
  const seen: string[] = [];
  const onSite = (site: Site): void => void seen.push(site.stack as string);
  const { logits } = noGrad(() => model.forward({ ...options, encoded, onSite }));
  assert.deepEqual([...new Set(seen)], ['decoder']);
  assert.deepEqual(logits.dataSync(), noGrad(() => model.forward(options).logits).dataSync());
});

test('an edit of the keys of an encoder that a last block reads leaves it to compute only some logits', async () => {
  const model = await modelOf('bart');
  const options = forwardOf('bart', model);
  const site = model.site('decoder/cross_value_output/1');
  // Its rows are the encoder's: token 9 is none of the decoder's eight.
  const seen: number[] = [];
  const edit: SiteEdit = {
    site,
    rows: Int32Array.of(9),
    apply: (h, rows) => {
      seen.push(rows.count);
      return h.mul(3);
    },
  };
  const logitsAt = Int32Array.of(2, 7);
  const part = noGrad(() => model.forward({ ...options, logitsAt, edits: [edit] }).logits).dataSync();
  const all = noGrad(() => model.forward({ ...options, edits: [edit] }).logits).dataSync();
  const wanted = [2, 7].flatMap(row => [...all.slice(row * tinyVocabulary, (row + 1) * tinyVocabulary)]);
  assert.ok(furthest(part, wanted) < 1e-12, 'the same logits');
  assert.deepEqual(seen, [9, 9]);
  assert.equal(tokensOfLastBlock(model, { ...options, logitsAt, edits: [edit] }), 2);
  assert.equal(tokensOfLastBlock(model, { ...options, edits: [edit] }), 8);
});

/** Rows that the feed-forward of the decoder's last block is given. */
function tokensOfLastBlock(model: Seq2SeqLM, options: Seq2SeqOptions): number {
  const { up } = (model.parts.decoder.blocks[1] as TransformerBlock).parts;
  assert.ok(up, 'the first layer of the feed-forward');
  const { forward } = up;
  let rows = -1;
  up.forward = function (x, epilogue) {
    [rows] = x.shape;
    return forward.call(this, x, epilogue);
  };
  try {
    noGrad(() => model.forward(options));
  } finally {
    up.forward = forward;
  }
  return rows;
}

test('labels: shifted right behind the start token, padding below 0', async () => {
  const model = await modelOf('bart');
  const labels = Int32Array.from([4, 5, -100, 6, -100, -100]);
  const { decoderInputIds } = model.decoderInputs(labels, [2, 3]);
  assert.deepEqual([...decoderInputIds], [2, 4, 5, 2, 6, 0]);
  const { labels: _, ...options } = inputsOf('bart', model);
  assert.throws(
    () => model.loss({ ...options, decoderShape: [2, 4] }, labels),
    /labels: expected 8 for \[2,4\], got 6/,
  );
  assert.throws(() => model.loss({ ...options, decoderShape: [2, 3] }, new Int32Array(6).fill(-1)), /no position/);
});

test('names of sites: ours, TransformerLens and module paths, in both stacks', async () => {
  const same: Readonly<Record<Kind, readonly (readonly [string, ...string[]])[]>> = {
    t5: [
      ['encoder/block_output/1', 'encoder.1.hook_resid_post', 'encoder.block.1.output', 'encoder.block[1].output'],
      [
        'decoder/cross_attention_output/0',
        'decoder.0.hook_cross_attn_out',
        'decoder.block.0.layer.1.EncDecAttention.output',
      ],
      ['decoder/cross_key_output/1:0', 'decoder.1.cross_attn.hook_k[0]'],
      ['decoder/mlp_activation/1', 'decoder.1.mlp.hook_post', 'decoder.block.1.layer.2.DenseReluDense.wo.input'],
      ['decoder/cross_block_middle/0', 'decoder.block.0.layer.2.layer_norm.input'],
      ['decoder/block_middle/0', 'decoder.block.0.layer.1.layer_norm.input'],
      ['encoder/block_middle/0', 'encoder.block.0.layer.1.layer_norm.input'],
      ['encoder/query_output/0:1', 'encoder.0.attn.hook_q[1]'],
      ['encoder/final_norm/1', 'encoder/final_norm', 'encoder.final_layer_norm.output'],
      ['decoder/final_norm/1', 'lm_head.input'],
    ],
    't5-gated': [['encoder/mlp_input/0', 'encoder.block.0.layer.1.DenseReluDense.input']],
    bart: [
      [
        'encoder/block_output/1',
        'encoder.1.hook_resid_post',
        'model.encoder.layers[1].output',
        'encoder.layers.1.output',
      ],
      ['encoder/block_middle/0', 'model.encoder.layers.0.self_attn_layer_norm.output'],
      [
        'decoder/cross_block_middle/0',
        'decoder.0.hook_resid_mid_cross',
        'model.decoder.layers.0.encoder_attn_layer_norm.output',
      ],
      ['decoder/embeddings/0', 'model.decoder.layernorm_embedding.output'],
    ],
    whisper: [
      ['decoder/cross_query_output/1', 'model.decoder.layers.1.encoder_attn.q_proj.output'],
      ['encoder/mlp_activation/1', 'model.encoder.layers.1.fc2.input'],
    ],
    marian: [
      ['encoder/query_output/0', 'model.encoder.layers.0.self_attn.q_proj.output'],
      ['decoder/block_middle/1', 'model.decoder.layers.1.rnn_layer_norm.output'],
      ['decoder/mixer_output/1', 'decoder/mixer_output/1'],
    ],
  };
  for (const kind of kinds) {
    const model = await modelOf(kind);
    for (const [ours, ...others] of same[kind])
      for (const name of [ours, ...others])
        assert.equal(siteName(model.site(name)), ours.includes('/', 8) ? ours : siteName(model.site(ours)), name);
  }
  const model = await modelOf('t5');
  for (const [name, message] of [
    ['block_output/1', /site 'block_output\/1' is not known: expected encoder or decoder\//],
    ['encoder/cross_key_output/0', /site encoder\/cross_key_output\/0: the components are/],
    ['decoder/block_output/2', /the model has layers 0\.\.1/],
    ['middle/block_output/1', /is not known/],
  ] as const)
    assert.throws(() => model.site(name), message, name);
  assert.throws(
    () =>
      noGrad(() => model.forward({ ...forwardOf('t5', model), collect: [{ layer: 0, component: 'block_output' }] })),
    /expected a stack of the model \('encoder', 'decoder'\)/,
  );
});

test('inputs that do not fit are refused by name', async () => {
  const [model, hearing] = [await modelOf('t5'), await modelOf('whisper')];
  const options = forwardOf('t5', model);
  const refused = (given: object, message: RegExp, of = model): void => {
    assert.throws(() => noGrad(() => of.forward({ ...options, ...given })), message);
  };
  refused({ decoderInputIds: undefined }, /^TypeError: decoderInputIds and decoderShape: expected ids/);
  refused({ decoderShape: [3, 3], decoderInputIds: drawn(9, 1) }, /decoderShape: \[3,3\], but the encoder has 2 rows/);
  refused({ decoderInputIds: new Int32Array(8).fill(19) }, /decoderInputIds: token 19 at 0 is outside/);
  refused({ from: { layer: 0 } }, /from: a model of two stacks/);
  refused({ inputFeatures: featuresFor(model, 2) }, /inputFeatures: model|inputFeatures: .* reads inputIds/);
  refused({}, /inputIds: .* reads inputFeatures/, hearing);
  const mels = create.zeros([2, tinyMels, 7], hearing);
  refused(
    { inputIds: undefined, inputFeatures: mels },
    /inputFeatures: expected a tensor \[B,3,12\], got \[2,3,7\]/,
    hearing,
  );
  refused({ inputIds: undefined }, /inputFeatures: expected a tensor \[B,3,12\], got none/, hearing);
  const generated = (of: Seq2SeqLM, ...given: Parameters<Seq2SeqLM['generate']>): Promise<unknown> =>
    of.generate(...given);
  for (const [of, given, message] of [
    [hearing, [[[1, 2]]], /reads features \[B, mels, T\], a tensor/],
    [model, [featuresFor(model, 1)], /reads prompts of ids/],
    [model, [[[]]], /prompt 0 is empty/],
    [model, [[[1]], { decoderPrompt: [] }], /decoderPrompt: expected at least one token/],
    [model, [[[1]], { decoderPrompt: [19] }], /decoderPrompt: token 19 at 0/],
    [model, [[[1]], { maxNewTokens: 0 }], /maxNewTokens: expected a whole number above 0, got 0/],
    [model, [[[1]], { numBeams: 2 }], /numBeams/],
    [hearing, [featuresFor(hearing, 1), { maxNewTokens: 20 }], /1 tokens and 20 new ones; the decoder's context is 20/],
  ] as unknown as [Seq2SeqLM, Parameters<Seq2SeqLM['generate']>, RegExp][])
    await assert.rejects(async () => generated(of, ...given), message);
  const bart = await modelOf('bart');
  await assert.rejects(bart.generate([drawn(25, 1)]), /prompt 0 has 25 tokens; the encoder's context is 24/);
});

test('configurations: what is not understood is an error that names it', () => {
  const refused = (kind: Kind, settings: object, message: RegExp): void => {
    assert.throws(
      () => configFromHF({ ...settingsOf[kind], ...settings }, 'config.json'),
      (error: Error) => {
        assert.ok(error instanceof FormatError, `a FormatError, not ${error.message}`);
        assert.match(error.message, message);
        return true;
      },
    );
  };
  refused('t5', { nonsense: 1 }, /"nonsense": 1: not understood/);
  refused('t5', { d_model: 'x' }, /d_model/);
  refused('t5', { d_kv: undefined }, /d_kv/);
  refused('t5', { is_encoder_decoder: false }, /is_encoder_decoder/);
  refused('t5', { feed_forward_proj: 'gated-swoosh' }, /hidden_act: 'swoosh' is not known/);
  refused('t5', { relative_attention_num_buckets: 6 }, /relative_attention_num_buckets: 6/);
  refused('t5', { relative_attention_max_distance: 4 }, /relative_attention_num_buckets: 8 for distances up to 4/);
  refused('t5', { decoder_start_token_id: 19 }, /decoder_start_token_id: 19, expected an id of the vocabulary of 19/);
  refused('bart', { pad_token_id: -1 }, /pad_token_id: -1/);
  refused('bart', { normalize_before: true }, /normalize_before/);
  refused('bart', { num_hidden_layers: 3 }, /num_hidden_layers: 3, but encoder_layers is 2/);
  refused('bart', { decoder_attention_heads: 3 }, /hidden size 8 is not a multiple of 3 attention heads/);
  refused('bart', { encoder_attention_heads: 3 }, /hidden size 8 is not a multiple of 3 attention heads/);
  refused('whisper', { use_weighted_layer_sum: true }, /use_weighted_layer_sum/);
  refused('whisper', { quantization_config: { quant_method: 'awq' } }, /awq/);
});

test('configurations: what a T5 is follows from its keys', async () => {
  const read = (settings: object) =>
    configFromHF({ ...settingsOf.t5, ...settings }, 'config.json') as unknown as Seq2SeqLM['config'];
  assert.equal(read({}).logitsScale, 8 ** -0.5);
  assert.equal(read({ scale_decoder_outputs: false }).logitsScale, 1);
  assert.equal(read({ tie_word_embeddings: false }).logitsScale, 1);
  assert.equal(read({ model_type: 'mt5' }).activation, 'gelu_new');
  assert.equal(read({}).activation, 'relu');
  assert.equal(read({ dense_act_fn: 'silu' }).activation, 'silu');
  assert.equal(read({ num_decoder_layers: undefined, num_layers: 3 }).layers, 3);
  assert.equal(read({ decoder_start_token_id: undefined, pad_token_id: 5 }).decoderStartTokenId, 5);
  const bart = (await modelOf('bart')).config;
  assert.deepEqual([bart.encoder.heads, bart.heads, bart.encoder.embeddingScale], [2, 4, Math.sqrt(8)]);
});

test('tensors: missing, misshapen and left over ones are errors that name them', async () => {
  const without = (kind: Kind, name: string) => entriesOf(kind).filter(entry => entry.name !== name);
  const load = (kind: Kind, entries: ReturnType<typeof entriesOf>) => tinySeq2Seq(kind, { entries });
  for (const [kind, name] of [
    ['t5', 'encoder.block.1.layer.1.DenseReluDense.wo.weight'],
    ['t5', 'decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight'],
    ['t5-gated', 'lm_head.weight'],
    ['bart', 'model.decoder.layers.1.encoder_attn_layer_norm.bias'],
    ['whisper', 'model.encoder.conv2.bias'],
  ] as const)
    await assert.rejects(load(kind, without(kind, name)), new RegExp(name.replaceAll('.', '\\.')));
  const [first] = entriesOf('t5');
  const more = (name: string, shape: number[]) => ({
    ...first,
    name,
    shape,
    data: new Float32Array(shape.reduce((a, b) => a * b)),
  });
  const changed = entriesOf('bart').map(e => (e.name === 'model.encoder.layers.0.fc1.bias' ? more(e.name, [5]) : e));
  await assert.rejects(load('bart', changed), /fc1\.bias has shape \[5\], the configuration says \[12\]/);
  for (const [kind, name] of [
    ['t5', 'encoder.block.2.layer.0.layer_norm.weight'],
    ['bart', 'model.decoder.layers.0.fc3.weight'],
  ] as const)
    await assert.rejects(load(kind, [...entriesOf(kind), more(name, [8])]), /has weights '.*' that its configuration/);
  // A second table of words must be the same; an old file's bias of cross attention is nobody's.
  const words = entriesOf('t5').find(e => e.name === 'shared.weight');
  assert.ok(words, 'the table of words');
  const old = 'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight';
  const same = [...entriesOf('t5'), { ...words, name: 'encoder.embed_tokens.weight' }, more(old, [8, 2])];
  assert.equal((await load('t5', same)).parameterCount, 2200);
  await assert.rejects(
    load('t5', [...entriesOf('t5'), more('decoder.embed_tokens.weight', words.shape as number[])]),
    /'shared\.weight' is not the same as 'decoder\.embed_tokens\.weight': both are the table of words/,
  );
});

test('marian: settings that are not those of such a model, and matrices as they are stored', async () => {
  const load = (changed: object): Promise<Seq2SeqLM> =>
    tinySeq2Seq('marian', { changed: changed as Record<string, unknown> });
  for (const [changed, message] of [
    [{ 'dec-cell': 'gru' }, /dec-cell: expected "ssru", got "gru"/],
    [{ 'transformer-preprocess': 'n' }, /transformer-preprocess: expected "", got "n"/],
    [{ 'transformer-nonsense': 3 }, /transformer-nonsense: expected no such setting: it is not understood, got 3/],
    [{ 'dim-emb': 0 }, /dim-emb: expected a positive whole number, got 0/],
    [{ 'dim-vocabs': [19, 20] }, /dim-vocabs: expected the same size twice, got \[19,20\]/],
    [{ 'transformer-heads': 3 }, /hidden size 8 is not a multiple of 3/],
    [{ 'transformer-ffn-activation': 'swoosh' }, /'swoosh' is not known/],
    [{ 'enc-depth': 1 }, /has weights 'encoder_l2_\w+' that its configuration has no place for/],
    [{ 'enc-depth': 3 }, /encoder_l3_self_Wq/],
  ] as const)
    await assert.rejects(load(changed), message);
  assert.throws(() => configFromHF({ model_type: 'marian' }, 'config.json'), /is read from Marian's own files/);
  // Matrices of f32 lie as [inputs, outputs].
  const entry = entriesOf('marian').find(({ name }) => name === 'encoder_l1_ffn_W1');
  assert.ok(entry, 'the first matrix of the feed-forward');
  const model = await modelOf('marian');
  const weight = [...model.namedParameters()].find(([name]) => name === 'model.encoder.layers.0.fc1.weight');
  assert.ok(weight, 'by its name in transformers');
  assert.deepEqual(weight[1].shape, [12, 8]);
  assert.equal(weight[1].dataSync()[3], (entry.data as Float32Array)[3 * 12]);
  assert.deepEqual([...model.decoderInputs(Int32Array.from([4, -100, 5]), [1, 3]).decoderInputIds], [-1, 4, 0]);
});
