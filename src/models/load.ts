// A model's layers from a checkpoint: which a block has follows from the names its family gives, their shapes and
// biases from the configuration. Every name and shape is checked, and no weight of the file is left over.

import { keep } from '../autograd/scope.js';
import { create } from '../tensor/create.js';
import { FormatError } from '../io/errors.js';
import { Embedding } from '../nn/embedding.js';
import { LayerNorm } from '../nn/layerNorm.js';
import { Linear } from '../nn/linear.js';
import { RMSNorm } from '../nn/rmsNorm.js';
import type { Tensor } from '../tensor/tensor.js';
import { TransformerBlock, type BlockParts, type Norm, type Role } from './block.js';
import type { DecoderConfig, StackConfig } from './config.js';
import { Embeddings } from './embeddings.js';
import type { ModelNames } from './families/family.js';
import { moduleSites } from './moduleSites.js';
import { decoderComponents } from './sites.js';
import { Stack } from './stack.js';
import type { WeightLoader } from './weights.js';

/** A norm of the model's kind over `size` numbers. */
export async function loadNorm(
  weights: WeightLoader,
  name: string,
  size: number,
  { norm, normEps, normBias }: Pick<StackConfig, 'norm' | 'normEps' | 'normBias'>,
): Promise<Norm> {
  const weight = await weights.load(`${name}.weight`, [size]);
  if (norm === 'layer')
    return new LayerNorm(
      weight,
      normBias ? await weights.load(`${name}.bias`, [size]) : keep(create.zeros([size], weight)),
      normEps,
    );
  // GGUF stores Gemma's weights with the 1 added.
  const stored = norm === 'rmsPlusOne' && weights.file.format !== 'gguf' ? keep(weight.add(1)) : weight;
  return new RMSNorm(stored, normEps);
}

/** Biases that a layer has, by the configuration. */
function hasBias(role: Role, config: BlockConfig): boolean {
  const { qkvBias, outputBias, mlpBias, unbiased = [] } = config;
  if (unbiased.includes(role)) return false;
  if (['q', 'k', 'v', 'qkv', 'crossQ', 'crossK', 'crossV'].includes(role)) return qkvBias;
  return role === 'o' || role === 'crossO' ? outputBias : mlpBias;
}

export type BlockConfig = StackConfig & {
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
};

/** One block, its layers by the names its family has for their roles. */
export async function loadBlock(
  weights: WeightLoader,
  layer: number,
  config: BlockConfig,
  names: Pick<ModelNames, 'blocks' | 'roles' | 'notInFirst'>,
): Promise<TransformerBlock> {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim, qkNorm } = config;
  const width = heads * headDim;
  const kvWidth = kvHeads * headDim;
  const path = (role: Role): string | undefined => {
    const name = layer === 0 && names.notInFirst?.includes(role) ? undefined : names.roles[role];
    return name === undefined ? undefined : `${names.blocks}.${layer}.${name}`;
  };
  /** [output, input]; a number marks rows of so many heads, which interleaved files store in another order. */
  const sizes: Partial<Record<Role, readonly [output: number, input: number, heads?: number]>> = {
    q: [width, hiddenSize, heads],
    k: [kvWidth, hiddenSize, kvHeads],
    v: [kvWidth, hiddenSize],
    qkv: [width + 2 * kvWidth, hiddenSize],
    o: [hiddenSize, width],
    crossQ: [width, hiddenSize],
    crossK: [width, hiddenSize],
    crossV: [width, hiddenSize],
    crossO: [hiddenSize, width],
    gate: [intermediateSize, hiddenSize],
    up: [intermediateSize, hiddenSize],
    gateUp: [2 * intermediateSize, hiddenSize],
    down: [hiddenSize, intermediateSize],
  };
  const normSizes: Partial<Record<Role, number>> = {
    qNorm: qkNorm === 'full' ? width : headDim,
    kNorm: qkNorm === 'full' ? kvWidth : headDim,
  };
  const parts: Partial<Record<Role, Linear | Norm>> = {};
  const linear = async (role: Role, weight?: Tensor): Promise<void> => {
    const name = path(role);
    const size = sizes[role];
    if (name === undefined || !size) return;
    const [output, input, rotated = 0] = size;
    const matrix =
      weight ??
      (await (weights.transposed
        ? weights.loadTransposed(`${name}.weight`, [output, input])
        : weights.load(`${name}.weight`, [output, input], rotated)));
    const bias = hasBias(role, config) ? await weights.load(`${name}.bias`, [output], rotated) : null;
    parts[role] = new Linear(matrix, bias);
  };
  /** Layers that read the same states: neighbours in memory where the file allows it. */
  const neighbours = async (...roles: Role[]): Promise<void> => {
    const present = roles.filter(role => path(role) !== undefined);
    if (present.length < 2 || weights.transposed) {
      for (const role of present) await linear(role);
      return;
    }
    const matrices = await weights.loadTogether(
      present.map(role => {
        const [rows, , rotated] = sizes[role] as readonly [number, number, number?];
        return { name: `${path(role)}.weight`, rows, ...(rotated === undefined ? {} : { heads: rotated }) };
      }),
      hiddenSize,
    );
    for (const [i, role] of present.entries()) await linear(role, matrices[i]);
  };
  const norm = async (role: Role): Promise<void> => {
    const name = path(role);
    if (name !== undefined) parts[role] = await loadNorm(weights, name, normSizes[role] ?? hiddenSize, config);
  };
  await norm('attentionNorm');
  await neighbours('q', 'k', 'v');
  await linear('qkv');
  for (const role of ['qNorm', 'kNorm'] as const) await norm(role);
  await linear('o');
  for (const role of ['attentionPostNorm', 'attentionSumNorm', 'crossNorm'] as const) await norm(role);
  for (const role of ['crossQ', 'crossK', 'crossV', 'crossO'] as const) await linear(role);
  for (const role of ['crossSumNorm', 'mlpNorm'] as const) await norm(role);
  await neighbours('gate', 'up');
  await linear('gateUp');
  await linear('down');
  for (const role of ['mlpPostNorm', 'mlpSumNorm'] as const) await norm(role);
  return new TransformerBlock(config, parts as unknown as BlockParts, names.roles);
}

/** All blocks of a stack. */
export async function loadBlocks(
  weights: WeightLoader,
  config: BlockConfig,
  names: Pick<ModelNames, 'blocks' | 'roles' | 'notInFirst'>,
): Promise<TransformerBlock[]> {
  const blocks: TransformerBlock[] = [];
  for (let layer = 0; layer < config.layers; layer++) blocks.push(await loadBlock(weights, layer, config, names));
  return blocks;
}

/** A decoder's embeddings, blocks, norm and head. */
export async function loadDecoder(
  config: DecoderConfig,
  names: ModelNames,
  weights: WeightLoader,
): Promise<{ decoder: Stack; lmHead: Linear | null }> {
  const { hiddenSize, vocabSize, learnedPositions, embeddingScale, tiedHead } = config;
  const { embeddings: paths, blocks, norm, head: headPath = 'lm_head' } = names;
  if (!tiedHead && !weights.has(`${headPath}.weight`)) {
    throw new FormatError(
      weights.file.name,
      `has no '${headPath}.weight', and its configuration does not tie the head to the embedding`,
    );
  }
  // A tied pair is stored under either name, or under both.
  const [embedding, head] = [`${paths.word}.weight`, `${headPath}.weight`];
  const both = weights.has(embedding) && weights.has(head);
  if (tiedHead && both)
    await weights.checkSame(
      embedding,
      head,
      'the configuration ties them; tie_word_embeddings: false would take each as it is',
    );
  const stored = tiedHead && !both && weights.has(head) ? head : embedding;
  const word = new Embedding(await weights.load(stored, [vocabSize, hiddenSize]));
  const position =
    learnedPositions && paths.position !== undefined
      ? new Embedding(await weights.load(`${paths.position}.weight`, [learnedPositions.rows, hiddenSize]))
      : null;
  const embeddings = new Embeddings({ word, ...(position ? { position } : {}) }, paths, {
    scale: embeddingScale,
    positionOffset: learnedPositions?.offset ?? 0,
  });
  const decoder = new Stack({
    embeddings,
    blocks: await loadBlocks(weights, config, names),
    norm: norm === undefined ? null : await loadNorm(weights, norm, hiddenSize, config),
    names: { blocks, head: headPath, ...(norm === undefined ? {} : { norm }) },
    // In parallel there is nothing between attention and feed-forward.
    sites: {
      ...sizesOf(config),
      components: decoderComponents.filter(component => component !== 'block_middle' || !config.parallel),
      modules: moduleSites(names, config.parallel),
    },
    config,
  });
  const lmHead = tiedHead ? null : new Linear(await weights.load(head, [vocabSize, hiddenSize]));
  weights.checkAllRead();
  return { decoder, lmHead };
}

export const sizesOf = ({ layers, hiddenSize, intermediateSize, heads, kvHeads, headDim }: StackConfig) => ({
  layers,
  hiddenSize,
  intermediateSize,
  heads,
  kvHeads,
  headDim,
});
