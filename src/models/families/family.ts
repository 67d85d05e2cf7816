// What a family of models is: how its configurations are read, what its checkpoints call their tensors, and which tasks
// it has models for. A family is one file here and one line in index.ts.

import type { TensorFile } from '../../io/tensorFile.js';
import type { Role, RoleNames } from '../block.js';
import { CausalLM } from '../causalLM.js';
import type { DecoderConfig, ModelConfig } from '../config.js';
import type { EmbeddingNames } from '../embeddings.js';
import type { GenerationConfig } from '../generationConfig.js';
import { loadDecoder } from '../load.js';
import type { Model } from '../model.js';
import type { Component } from '../sites.js';
import type { WeightLoader } from '../weights.js';

/** Names of a checkpoint as its first release has them. */
export interface ModelNames {
  /** What stands in front of most of them, and may be missing or another one in a file: `model.`. */
  readonly prefix: string;
  readonly embeddings: EmbeddingNames;
  /** In front of the number of a block: `model.layers`. */
  readonly blocks: string;
  /** In front of the numbers of blocks of other stacks: `model.encoder.layers`. */
  readonly otherBlocks?: readonly string[];
  /** The layers of a block, behind its number. */
  readonly roles: RoleNames;
  readonly norm?: string;
  readonly head?: string;
  /** Matrices are stored [in, out], as GPT-2's Conv1D has them. */
  readonly transposed?: boolean;
  /** Layers that the first block does not have. */
  readonly notInFirst?: readonly Role[];
  /** Endings of names that old checkpoints have in place of today's: `LayerNorm.gamma` for `LayerNorm.weight`. */
  readonly oldEndings?: Readonly<Record<string, string>>;
  /** Sites by module paths behind the number of a block, beside those that follow from the roles. */
  readonly modules?: Readonly<Record<string, Component>>;
  /** What else stands before the number of a block in module paths: transformers moves modules, not tensors. */
  readonly moduleBlocks?: readonly string[];
  /** Tensors of blocks that are no weights: masks and tables that follow from the configuration. */
  readonly ignored?: RegExp;
  /** The file's name of a tensor, in formats with names of their own but GGUF. */
  readonly storedAs?: (name: string) => string;
  /** Names of GGUF behind `blk.<n>.` where they are not those of gguf-py's table (tensorNames.ts). */
  readonly gguf?: RoleNames;
}

/** What a model is asked to do, and what `AutoModel...` is called. */
export const tasks = {
  base: 'AutoModel',
  causalLM: 'AutoModelForCausalLM',
  maskedLM: 'AutoModelForMaskedLM',
  sequenceClassification: 'AutoModelForSequenceClassification',
  seq2seqLM: 'AutoModelForSeq2SeqLM',
  imageClassification: 'AutoModelForImageClassification',
  imageTextToText: 'AutoModelForImageTextToText',
  speechSeq2Seq: 'AutoModelForSpeechSeq2Seq',
} as const;
export type Task = keyof typeof tasks;

/** What a model is made from. */
export interface Loading<Config extends ModelConfig = ModelConfig> {
  readonly config: Config;
  readonly weights: WeightLoader;
  /** A hub id, or the name of the file or folder. */
  readonly name: string;
  readonly generation?: GenerationConfig | undefined;
}

export interface Family<Config extends ModelConfig = ModelConfig> {
  readonly name: string;
  /** `model_type` of config.json. */
  readonly modelTypes: readonly string[];
  readonly names: ModelNames;
  /** From the content of a config.json. @throws FormatError naming the key, what was expected and what came */
  fromHF(json: unknown, source: string): Config;
  /** `general.architecture` of a GGUF. */
  readonly architectures?: readonly string[];
  fromGGUF?(file: GgufFile): Promise<Config>;
  /** From a binary model of marian. */
  fromMarian?(file: MarianFile): Config;
  /** How the model of each task is loaded. */
  readonly tasks: Readonly<Partial<Record<Task, (loading: Loading<Config>) => Promise<Model>>>>;
}

export type MarianFile = Pick<TensorFile, 'name' | 'metadata'>;

export type GgufFile = Pick<TensorFile, 'name' | 'metadata' | 'tensors' | 'readFloat32'>;

/** A family as the list of families has it: its tasks are given configurations that it has read itself. */
export const defineFamily = <Config extends ModelConfig>(family: Family<Config>): Family => family as unknown as Family;

/** A family of decoders with a language-model head. */
export function decoderFamily(family: Omit<Family<DecoderConfig>, 'tasks'>): Family {
  return defineFamily<DecoderConfig>({
    ...family,
    tasks: {
      causalLM: async ({ config, weights, name, generation }) =>
        new CausalLM(config, await loadDecoder(config, family.names, weights), name, generation),
    },
  });
}
