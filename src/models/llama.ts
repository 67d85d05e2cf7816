// LLaMA and its relatives (LLaMA 1-3, SmolLM2, Qwen2, Mistral): RMSNorm, rotary embeddings, grouped-query attention,
// gated feed-forward. The differences between them are data in DecoderConfig. Field names give the checkpoint's
// parameter names.

import { attention } from '../nn/attention.js';
import { GatedMLP } from '../nn/mlp.js';
import { Embedding } from '../nn/embedding.js';
import { Linear, project } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import { RMSNorm } from '../nn/rmsNorm.js';
import { rope } from '../nn/rope.js';
import type { Tensor } from '../tensor/tensor.js';
import type { DecoderConfig } from './config.js';
import type { ForwardContext } from './context.js';
import type { WeightLoader } from './weights.js';

export interface Rotary {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

export class LlamaAttention extends Module {
  readonly qProj: Linear;
  readonly kProj: Linear;
  readonly vProj: Linear;
  readonly oProj: Linear;
  readonly #config: DecoderConfig;

  constructor(config: DecoderConfig, projections: { qProj: Linear; kProj: Linear; vProj: Linear; oProj: Linear }) {
    super();
    this.#config = config;
    this.qProj = projections.qProj;
    this.kProj = projections.kProj;
    this.vProj = projections.vProj;
    this.oProj = projections.oProj;
  }

  /**
   * x [B, T, hidden] to [B, T, hidden], or [1, N, hidden] where the context has real tokens alone, or `rows` of those;
   * with `residual` of that shape added.
   */
  forward(
    layer: number,
    x: Tensor,
    rotary: Rotary,
    context: ForwardContext,
    rows: Int32Array | null,
    residual?: Tensor,
  ): Tensor {
    const { heads, kvHeads, headDim, windows } = this.#config;
    const window = windows[layer];
    const [batch, length] = x.shape;
    const split = (y: Tensor, n: number): Tensor => y.reshape([batch, length, n, headDim]);
    const byHead = (y: Tensor): Tensor => context.rowsOf(y).permute([0, 2, 1, 3]);
    const [query, key, value] = project(x, [this.qProj, this.kProj, this.vProj]);
    const q = byHead(rope(split(context.site(layer, 'query_output', query), heads), rotary.cos, rotary.sin));
    let k = byHead(rope(split(context.site(layer, 'key_output', key), kvHeads), rotary.cos, rotary.sin));
    let v = byHead(split(context.site(layer, 'value_output', value), kvHeads));
    if (context.cache) ({ keys: k, values: v } = context.cache.extend(layer, k, v));
    const o = attention(q, k, v, {
      causal: true,
      causalOffset: context.past,
      ...(window === null ? {} : { window }),
      bounds: context.bounds,
    });
    const joined = context.site(
      layer,
      'attention_value_output',
      context.tokensOf(o.permute([0, 2, 1, 3])).reshape([batch, length, heads * headDim]),
    );
    return this.oProj.forward(tokensAt(joined, rows), residual ? { residual } : {});
  }
}

/** Tokens [1, n, width] of [B, T, width] by their numbers b * T + t; null: all of them. */
const tokensAt = (x: Tensor, rows: Int32Array | null): Tensor =>
  rows ? x.reshape([-1, x.shape[2]]).takeRows(rows).reshape([1, rows.length, x.shape[2]]) : x;

export class LlamaBlock extends Module {
  readonly inputLayernorm: RMSNorm;
  readonly selfAttn: LlamaAttention;
  readonly postAttentionLayernorm: RMSNorm;
  readonly mlp: GatedMLP;

  constructor(parts: {
    inputLayernorm: RMSNorm;
    selfAttn: LlamaAttention;
    postAttentionLayernorm: RMSNorm;
    mlp: GatedMLP;
  }) {
    super();
    this.inputLayernorm = parts.inputLayernorm;
    this.selfAttn = parts.selfAttn;
    this.postAttentionLayernorm = parts.postAttentionLayernorm;
    this.mlp = parts.mlp;
  }

  /**
   * With `rows`, only these tokens go on from attention: what the last block gives for the others is read by nobody.
   */
  forward(layer: number, x: Tensor, rotary: Rotary, context: ForwardContext, rows: Int32Array | null = null): Tensor {
    let h = context.site(layer, 'block_input', x);
    const a = context.site(layer, 'attention_input', this.inputLayernorm.forward(h));
    const kept = tokensAt(h, rows);
    // Where nothing happens at the site before a sum, the product adds.
    const [early, late] = (['attention_output', 'mlp_output'] as const).map(component =>
      context.passes(layer, component),
    );
    const attended = context.site(
      layer,
      'attention_output',
      this.selfAttn.forward(layer, a, rotary, context, rows, early ? kept : undefined),
    );
    h = context.site(layer, 'block_middle', early ? attended : kept.add(attended));
    const m = context.site(layer, 'mlp_input', this.postAttentionLayernorm.forward(h));
    const activation = context.site(layer, 'mlp_activation', this.mlp.activate(m));
    const output = context.site(
      layer,
      'mlp_output',
      this.mlp.downProj.forward(activation, late ? { residual: h } : {}),
    );
    return context.site(layer, 'block_output', late ? output : h.add(output));
  }
}

export class LlamaModel extends Module {
  readonly embedTokens: Embedding;
  readonly layers: LlamaBlock[];
  readonly norm: RMSNorm;

  constructor(embedTokens: Embedding, layers: LlamaBlock[], norm: RMSNorm) {
    super();
    this.embedTokens = embedTokens;
    this.layers = layers;
    this.norm = norm;
  }
}

/** Weights from a checkpoint; every name and shape is checked. */
export async function loadLlama(
  config: DecoderConfig,
  weights: WeightLoader,
): Promise<{ model: LlamaModel; lmHead: Linear | null }> {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim, vocabSize, normEps } = config;
  /** With its bias, whose rows are rotated as the weight's are. */
  const withBias = async (weight: Tensor, name: string, bias: boolean, rotated = 0): Promise<Linear> =>
    new Linear(weight, bias ? await weights.load(`${name}.bias`, [weight.shape[0]], rotated) : null);
  const linear = async (name: string, output: number, input: number, bias: boolean): Promise<Linear> =>
    withBias(await weights.load(`${name}.weight`, [output, input]), name, bias);
  const norm = async (name: string): Promise<RMSNorm> =>
    new RMSNorm(await weights.load(`${name}.weight`, [hiddenSize]), normEps);
  // A tied pair is stored under either name, or under both.
  const [embedding, head] = ['model.embed_tokens.weight', 'lm_head.weight'];
  const both = weights.has(embedding) && weights.has(head);
  if (config.tiedHead && both)
    await weights.checkSame(
      embedding,
      head,
      'the configuration ties them; tie_word_embeddings: false would take each as it is',
    );
  const embedTokens = new Embedding(
    await weights.load(config.tiedHead && !both && weights.has(head) ? head : embedding, [vocabSize, hiddenSize]),
  );
  const layers: LlamaBlock[] = [];
  for (let i = 0; i < config.layers; i++) {
    const at = `model.layers.${i}`;
    const attention = `${at}.self_attn`;
    const [q, k, v] = await weights.loadTogether(
      [
        { name: `${attention}.q_proj.weight`, rows: heads * headDim, heads },
        { name: `${attention}.k_proj.weight`, rows: kvHeads * headDim, heads: kvHeads },
        { name: `${attention}.v_proj.weight`, rows: kvHeads * headDim },
      ],
      hiddenSize,
    );
    const [gate, up] = await weights.loadTogether(
      ['gate', 'up'].map(name => ({ name: `${at}.mlp.${name}_proj.weight`, rows: intermediateSize })),
      hiddenSize,
    );
    layers.push(
      new LlamaBlock({
        inputLayernorm: await norm(`${at}.input_layernorm`),
        selfAttn: new LlamaAttention(config, {
          qProj: await withBias(q, `${attention}.q_proj`, config.qkvBias, heads),
          kProj: await withBias(k, `${attention}.k_proj`, config.qkvBias, kvHeads),
          vProj: await withBias(v, `${attention}.v_proj`, config.qkvBias),
          oProj: await linear(`${attention}.o_proj`, hiddenSize, heads * headDim, config.outputBias),
        }),
        postAttentionLayernorm: await norm(`${at}.post_attention_layernorm`),
        mlp: new GatedMLP({
          gateProj: await withBias(gate, `${at}.mlp.gate_proj`, config.mlpBias),
          upProj: await withBias(up, `${at}.mlp.up_proj`, config.mlpBias),
          downProj: await linear(`${at}.mlp.down_proj`, hiddenSize, intermediateSize, config.mlpBias),
          activation: config.activation,
        }),
      }),
    );
  }
  const final = await norm('model.norm');
  const lmHead = config.tiedHead ? null : await linear('lm_head', vocabSize, hiddenSize, false);
  weights.checkAllRead();
  return { model: new LlamaModel(embedTokens, layers, final), lmHead };
}
