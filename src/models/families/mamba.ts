// Mamba: blocks without attention. A causal convolution and a selective scan mix the tokens, and what is kept of a
// sequence is a state, not keys and values. Source: transformers, configuration_mamba.py and modeling_mamba.py.

import { z } from 'zod';
import { causalConv1d } from '../../nn/conv.js';
import { Embedding } from '../../nn/embedding.js';
import { Linear } from '../../nn/linear.js';
import { Module } from '../../nn/module.js';
import { RMSNorm } from '../../nn/rmsNorm.js';
import { selectiveScan } from '../../nn/selectiveScan.js';
import { softplus } from '../../autograd/elementwise.js';
import type { Tensor } from '../../tensor/tensor.js';
import { CausalLM } from '../causalLM.js';
import { readDecoderHF } from '../configHF.js';
import type { DecoderConfig } from '../config.js';
import { Embeddings } from '../embeddings.js';
import { sizesOf } from '../load.js';
import type { BlockRun } from '../run.js';
import { mixerComponents, type StackSites } from '../sites.js';
import { Stack } from '../stack.js';
import type { WeightLoader } from '../weights.js';
import type { Family, ModelNames } from './family.js';

export interface MambaConfig extends DecoderConfig {
  /** n: numbers in the state of each channel. */
  readonly stateSize: number;
  readonly convKernel: number;
  /** Width between the two products that make time steps. */
  readonly timeStepRank: number;
  readonly convBias: boolean;
}

const names: ModelNames = {
  prefix: 'backbone.',
  embeddings: { word: 'backbone.embeddings' },
  blocks: 'backbone.layers',
  roles: { attentionNorm: 'norm' },
  norm: 'backbone.norm_f',
  head: 'lm_head',
};

const modules: StackSites['modules'] = {
  blocks: names.blocks,
  inBlock: {
    input: 'block_input',
    output: 'block_output',
    'norm.output': 'mixer_input',
    'mixer.input': 'mixer_input',
    'mixer.out_proj.input': 'mixer_activation',
    'mixer.out_proj.output': 'mixer_output',
    'mixer.output': 'mixer_output',
  },
  outside: {
    'backbone.embeddings.output': 'embeddings',
    'backbone.norm_f.output': 'final_norm',
    'lm_head.input': 'final_norm',
  },
};

/** The layers of one block, by the checkpoint's names. */
class MambaMixer extends Module {
  readonly inProj: Linear;
  readonly conv1d: Linear;
  readonly xProj: Linear;
  readonly dtProj: Linear;
  readonly ALog: Tensor;
  readonly D: Tensor;
  readonly outProj: Linear;

  constructor(parts: {
    inProj: Linear;
    conv1d: Linear;
    xProj: Linear;
    dtProj: Linear;
    ALog: Tensor;
    D: Tensor;
    outProj: Linear;
  }) {
    super();
    this.inProj = parts.inProj;
    this.conv1d = parts.conv1d;
    this.xProj = parts.xProj;
    this.dtProj = parts.dtProj;
    this.ALog = parts.ALog;
    this.D = parts.D;
    this.outProj = parts.outProj;
  }

  protected override parameterName(field: string): string {
    return field === 'ALog' ? 'A_log' : field === 'D' ? 'D' : super.parameterName(field);
  }
}

class MambaBlock extends Module {
  readonly norm: RMSNorm;
  readonly mixer: MambaMixer;
  readonly #config: MambaConfig;

  constructor(config: MambaConfig, norm: RMSNorm, mixer: MambaMixer) {
    super();
    this.#config = config;
    this.norm = norm;
    this.mixer = mixer;
  }

  /** x [N, hidden] to [N, hidden], or to the rows that are still wanted of the last block. */
  forward(x: Tensor, run: BlockRun): Tensor {
    const h = run.site('block_input', x);
    const input = run.site('mixer_input', this.norm.forward(h));
    const [scanned, residual] = run.keep(this.scan(input, run), h);
    const activation = run.site('mixer_activation', scanned);
    const output = run.site('mixer_output', run.linear('mixer.out_proj', this.mixer.outProj, activation));
    return run.site('block_output', residual.add(output));
  }

  /** The gated result of convolution and scan, [N, intermediate]. */
  private scan(input: Tensor, run: BlockRun): Tensor {
    const { intermediateSize: width, timeStepRank: rank, stateSize, activation } = this.#config;
    const { inProj, conv1d, xProj, dtProj, ALog, D } = this.mixer;
    const { starts } = run.tokens;
    const [convState = null, scanState = null] = run.states ?? [];
    const [u, gate] = run.linear('mixer.in_proj', inProj, input).split([width, width], -1);
    const conv = causalConv1d(u, conv1d.weight, conv1d.bias, starts, { state: convState, activation });
    const [step, B, C] = run.linear('mixer.x_proj', xProj, conv.output).split([rank, stateSize, stateSize], -1);
    const dt = softplus(run.linear('mixer.dt_proj', dtProj, step));
    const scan = selectiveScan({ x: conv.output, dt, A: ALog.exp().neg(), B, C, D }, starts, scanState);
    run.keepStates([conv.state, scan.state]);
    return scan.output.mul(gate.silu());
  }
}

async function load(config: MambaConfig, weights: WeightLoader): Promise<{ decoder: Stack; lmHead: Linear | null }> {
  const {
    hiddenSize,
    intermediateSize: width,
    vocabSize,
    layers,
    normEps,
    stateSize,
    convKernel,
    timeStepRank,
  } = config;
  const { qkvBias: bias, convBias, tiedHead } = config;
  const linear = async (name: string, output: number, input: number, hasBias: boolean): Promise<Linear> =>
    new Linear(
      await weights.load(`${name}.weight`, [output, input]),
      hasBias ? await weights.load(`${name}.bias`, [output]) : null,
    );
  const norm = async (name: string): Promise<RMSNorm> =>
    new RMSNorm(await weights.load(`${name}.weight`, [hiddenSize]), normEps);
  const word = new Embedding(await weights.load('backbone.embeddings.weight', [vocabSize, hiddenSize]));
  const blocks: MambaBlock[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const path = `backbone.layers.${layer}`;
    const mixer = `${path}.mixer`;
    blocks.push(
      new MambaBlock(
        config,
        await norm(`${path}.norm`),
        new MambaMixer({
          inProj: await linear(`${mixer}.in_proj`, 2 * width, hiddenSize, bias),
          conv1d: new Linear(
            await weights.load(`${mixer}.conv1d.weight`, [width, 1, convKernel]),
            convBias ? await weights.load(`${mixer}.conv1d.bias`, [width]) : null,
          ),
          xProj: await linear(`${mixer}.x_proj`, timeStepRank + 2 * stateSize, width, false),
          dtProj: await linear(`${mixer}.dt_proj`, width, timeStepRank, true),
          ALog: await weights.load(`${mixer}.A_log`, [width, stateSize]),
          D: await weights.load(`${mixer}.D`, [width]),
          outProj: await linear(`${mixer}.out_proj`, hiddenSize, width, bias),
        }),
      ),
    );
  }
  const decoder = new Stack({
    embeddings: new Embeddings({ word }, names.embeddings),
    blocks,
    norm: await norm('backbone.norm_f'),
    names: { blocks: names.blocks, norm: 'backbone.norm_f' },
    sites: {
      ...sizesOf(config),
      components: ['embeddings', 'block_input', ...mixerComponents, 'block_output', 'final_norm'],
      widths: { mixer_activation: width },
      modules,
    },
    config,
    recurrent: true,
  });
  const lmHead = tiedHead ? null : await linear('lm_head', vocabSize, hiddenSize, false);
  weights.checkAllRead();
  return { decoder, lmHead };
}

const whole = z.number().int().positive();

export const mamba: Family<MambaConfig> = {
  name: 'mamba',
  modelTypes: ['mamba'],
  names,
  fromHF(json, source) {
    const c = json as Record<string, unknown>;
    const config = readDecoderHF(json, source, {
      renamed: { layer_norm_epsilon: 'rms_norm_eps' },
      keys: {
        state_size: whole.default(16),
        conv_kernel: whole.default(4),
        expand: whole.default(2),
        time_step_rank: z.union([whole, z.literal('auto')]).default('auto'),
        use_bias: z.boolean().default(false),
        use_conv_bias: z.boolean().default(true),
      },
      prepare(given) {
        // The schema of decoders asks for heads; there are none.
        given['num_attention_heads'] = 1;
        given['intermediate_size'] ??= Number(given['expand'] ?? 2) * Number(given['hidden_size']);
      },
      defaults: {
        // A state holds any number of tokens.
        max_position_embeddings: 2 ** 20,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
      },
      switches: (read, { layers }) => ({
        ropes: new Array<null>(layers).fill(null),
        qkvBias: read['use_bias'] as boolean,
      }),
    });
    const { time_step_rank: rank = 'auto' } = c;
    return {
      ...config,
      stateSize: (c['state_size'] as number | undefined) ?? 16,
      convKernel: (c['conv_kernel'] as number | undefined) ?? 4,
      timeStepRank: typeof rank === 'number' ? rank : Math.ceil(config.hiddenSize / 16),
      convBias: (c['use_conv_bias'] as boolean | undefined) ?? true,
    };
  },
  tasks: {
    causalLM: async ({ config, weights, name, generation }) =>
      new CausalLM(config, await load(config, weights), name, generation),
  },
};
