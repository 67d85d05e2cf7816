// Encoders of text and their models from a checkpoint, by what a family's file says of them.

import { Embedding } from '../nn/embedding.js';
import type { Norm } from './block.js';
import { TextEncoder } from './baseEncoder.js';
import { SequenceClassifier, type Pooling } from './classifier.js';
import type { EncoderConfig } from './configEncoder.js';
import type { EmbeddingParts } from './embeddings.js';
import { Embeddings } from './embeddings.js';
import { Encoder, TextInput, type TextOptions } from './encoder.js';
import { defineFamily, type Family, type Loading, type ModelNames } from './families/family.js';
import { loadHead, loadPooler, type HeadForm } from './heads.js';
import { loadBlocks, loadNorm, sizesOf } from './load.js';
import { MaskedLM } from './maskedLM.js';
import { moduleSites } from './moduleSites.js';
import { Stack } from './stack.js';
import type { WeightLoader } from './weights.js';

/** Embeddings, blocks and the final norm where there is one; `stackName`: what sites call it in a model of several. */
export async function loadEncoder(
  config: EncoderConfig,
  names: ModelNames,
  weights: WeightLoader,
  stackName?: string,
): Promise<Encoder<TextOptions>> {
  const { hiddenSize, vocabSize, tokenTypes, learnedPositions, embeddingScale, components } = config;
  const { embeddings: paths, blocks, norm } = names;
  const table = async (path: string | undefined, rows: number): Promise<Embedding | null> =>
    path === undefined || rows === 0 ? null : new Embedding(await weights.load(`${path}.weight`, [rows, hiddenSize]));
  const [word, position, type] = [
    (await table(paths.word, vocabSize)) as Embedding,
    await table(paths.position, learnedPositions?.rows ?? 0),
    await table(paths.type, tokenTypes),
  ];
  const embeddingNorm: Norm | null =
    paths.norm === undefined ? null : await loadNorm(weights, paths.norm, hiddenSize, config);
  const parts: EmbeddingParts = {
    word,
    ...(position ? { position } : {}),
    ...(type ? { type } : {}),
    ...(embeddingNorm ? { norm: embeddingNorm } : {}),
  };
  const embeddings = new Embeddings(parts, paths, {
    scale: embeddingScale,
    positionOffset: learnedPositions?.offset ?? 0,
  });
  const stack = new Stack({
    embeddings: null,
    blocks: await loadBlocks(weights, config, names),
    norm: norm === undefined ? null : await loadNorm(weights, norm, hiddenSize, config),
    names: { blocks, ...(norm === undefined ? {} : { norm }) },
    sites: {
      ...(stackName === undefined ? {} : { stack: stackName }),
      ...sizesOf(config),
      components,
      modules: moduleSites(names),
    },
    config,
  });
  weights.checkAllRead();
  return new Encoder(new TextInput(embeddings, config), stack);
}

/** The heads of a family of encoders. */
export interface EncoderHeads<Config extends EncoderConfig> {
  readonly pooler?: string;
  readonly maskedLM: (config: Config) => HeadForm;
  readonly classification: (config: Config) => HeadForm & { readonly pooling?: Pooling };
}

/** A family of encoders of text: base models, masked language models, classifiers. */
export function encoderFamily<Config extends EncoderConfig>(
  family: Omit<Family<Config>, 'tasks'>,
  { pooler, maskedLM, classification }: EncoderHeads<Config>,
): Family {
  const { names } = family;
  const encoderOf = ({ config, weights }: Loading<Config>): Promise<Encoder<TextOptions>> =>
    loadEncoder(config, names, weights);
  return defineFamily<Config>({
    ...family,
    tasks: {
      base: async loading => {
        const { config, weights, name } = loading;
        const encoder = await encoderOf(loading);
        const pooled = pooler === undefined ? null : await loadPooler(weights, pooler, config.hiddenSize);
        return new TextEncoder(encoder, pooled, config, name);
      },
      maskedLM: async loading => {
        const { config, weights, name } = loading;
        const encoder = await encoderOf(loading);
        const tied = config.tiedHead ? encoder.input.weight : null;
        const head = await loadHead(weights, maskedLM(config), config, config.vocabSize, tied);
        return new MaskedLM(encoder, head, config, name);
      },
      sequenceClassification: async loading => {
        const { config, weights, name } = loading;
        const form = classification(config);
        const encoder = await encoderOf(loading);
        const head = await loadHead(weights, form, config, config.labels);
        return new SequenceClassifier(encoder, head, config, name, form);
      },
    },
  });
}
