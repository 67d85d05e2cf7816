// The two stacks of a model that reads and writes, from a checkpoint: embeddings that they share, blocks, norms, head.

import { FormatError } from '../io/errors.js';
import { Embedding } from '../nn/embedding.js';
import { Linear } from '../nn/linear.js';
import type { SideConfig, Seq2SeqConfig } from './configSeq2Seq.js';
import { Embeddings } from './embeddings.js';
import type { ModelNames } from './families/family.js';
import { loadBlocks, loadNorm, sizesOf } from './load.js';
import { moduleSites } from './moduleSites.js';
import type { Seq2SeqParts } from './seq2seqLM.js';
import { blockComponents, crossComponents, mixerComponents, type Component } from './sites.js';
import { Stack, type Block, type PositionBias } from './stack.js';
import type { WeightLoader } from './weights.js';

export interface Seq2SeqNames {
  readonly encoder: ModelNames;
  readonly decoder: ModelNames;
  /** Names of the table of words, the first one the family's own; a file may have several, all the same. */
  readonly words: readonly string[];
}

/** What the loader of weights is told: names of the decoder, and that the encoder's blocks are all to be read, too. */
export const namesOfBoth = ({ encoder, decoder }: Seq2SeqNames): ModelNames => ({
  ...decoder,
  otherBlocks: [encoder.blocks],
});

/** The components of a stack: what its norms and its place allow. */
function componentsFor(names: ModelNames, mixes: 'attention' | 'recurrence'): Component[] {
  const middle = blockComponents.indexOf('block_middle') + 1;
  return [
    'embeddings',
    ...(mixes === 'attention'
      ? blockComponents.slice(0, middle)
      : (['block_input', ...mixerComponents, 'block_middle'] as const)),
    ...(names.roles.crossQ === undefined ? [] : crossComponents),
    ...blockComponents.slice(middle),
    ...(names.norm === undefined ? [] : (['final_norm'] as const)),
  ];
}

export interface SideOptions {
  readonly positionBias?: PositionBias | null;
  /** How its blocks are loaded, where they are not what roles say alone. */
  readonly blocks?: (weights: WeightLoader, config: SideConfig, names: ModelNames) => Promise<Block[]>;
  readonly mixes?: 'attention' | 'recurrence';
}

/** One of the stacks. `word` is null where its rows are no tokens. */
export async function loadSide(
  weights: WeightLoader,
  config: SideConfig,
  names: ModelNames,
  stack: { readonly stack: string; readonly reads?: string },
  word: Embedding | null,
  { positionBias = null, blocks: load = loadBlocks, mixes = 'attention' }: SideOptions = {},
): Promise<Stack> {
  const { hiddenSize, learnedPositions, embeddingScale, sinusoids = false } = config;
  const { embeddings: paths, blocks, norm } = names;
  const position =
    word && learnedPositions && paths.position !== undefined
      ? new Embedding(await weights.load(`${paths.position}.weight`, [learnedPositions.rows, hiddenSize]))
      : null;
  const normed = word && paths.norm !== undefined ? await loadNorm(weights, paths.norm, hiddenSize, config) : null;
  const embeddings =
    word &&
    new Embeddings({ word, ...(position ? { position } : {}), ...(normed ? { norm: normed } : {}) }, paths, {
      scale: embeddingScale,
      positionOffset: learnedPositions?.offset ?? 0,
      sinusoids,
    });
  return new Stack({
    embeddings,
    blocks: await load(weights, config, names),
    norm: norm === undefined ? null : await loadNorm(weights, norm, hiddenSize, config),
    names: { blocks, ...(norm === undefined ? {} : { norm }) },
    sites: { ...sizesOf(config), ...stack, components: componentsFor(names, mixes), modules: moduleSites(names) },
    config,
    positionBias,
  });
}

/** The table of words, under whichever of its names the file has it, and the head where it is one of its own. */
export async function loadWords(
  weights: WeightLoader,
  { vocabSize, hiddenSize, tiedHead }: Seq2SeqConfig,
  { words, decoder: { head = 'lm_head' } }: Pick<Seq2SeqNames, 'words' | 'decoder'>,
): Promise<{ word: Embedding; lmHead: Linear | null }> {
  const tables = (tiedHead ? [...words, head] : words).map(name => `${name}.weight`);
  const [first = tables[0], ...others] = tables.filter(name => weights.has(name));
  for (const other of others) await weights.checkSame(first, other, 'both are the table of words');
  const word = new Embedding(await weights.load(first, [vocabSize, hiddenSize]));
  if (tiedHead) return { word, lmHead: null };
  if (!weights.has(`${head}.weight`))
    throw new FormatError(
      weights.file.name,
      `has no '${head}.weight', and its configuration does not tie the head to the embedding`,
    );
  return { word, lmHead: new Linear(await weights.load(`${head}.weight`, [vocabSize, hiddenSize])) };
}

/** Both stacks and the head of a family without more. `biases`: of positions, by stack. */
export async function loadEncoderDecoder(
  config: Seq2SeqConfig,
  names: Seq2SeqNames,
  weights: WeightLoader,
  biases: { readonly encoder: PositionBias | null; readonly decoder: PositionBias | null } = {
    encoder: null,
    decoder: null,
  },
): Promise<Seq2SeqParts> {
  const { word, lmHead } = await loadWords(weights, config, names);
  const encoder = await loadSide(weights, config.encoder, names.encoder, { stack: 'encoder' }, word, {
    positionBias: biases.encoder,
  });
  const sites = { stack: 'decoder', reads: 'encoder' };
  const decoder = await loadSide(weights, config, names.decoder, sites, word, { positionBias: biases.decoder });
  weights.checkAllRead();
  return { encoder, decoder, lmHead };
}
