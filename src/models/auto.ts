// `AutoModelForCausalLM.fromPretrained(name)`: from a path, an alias or a hub id to a model on a device. Finding files
// is io/resolve.ts, formats are io/*.ts, architectures are here beside.

import type { Backend } from '../backends/backend.js';
import { fileSource, type ByteSource } from '../io/byteSource.js';
import { FormatError } from '../io/errors.js';
import { openGguf, openGgufFile } from '../io/gguf.js';
import { openLlama2c, type Llama2cConfig } from '../io/llama2c.js';
import { aliasOfFile, resolveModel, type DownloadProgress, type ResolvedModel } from '../io/resolve.js';
import { isMarian, openMarian } from '../io/marian.js';
import { openSafetensors, type OpenSibling } from '../io/safetensors.js';
import type { TensorFile } from '../io/tensorFile.js';
import { openDevice, type DeviceName } from '../devices.js';
import type { TextEncoder } from './baseEncoder.js';
import type { CausalLM } from './causalLM.js';
import type { ImageClassifier, SequenceClassifier } from './classifier.js';
import { configFromLlama2c, type ModelConfig } from './config.js';
import { tasks, type Task } from './families/family.js';
import { configFromGGUF, configFromHF, configFromMarian, familyOf } from './families/index.js';
import { generationConfigFromGGUF, generationConfigFromHF, type GenerationConfig } from './generationConfig.js';
import type { ImageTextLM } from './imageTextLM.js';
import type { MaskedLM } from './maskedLM.js';
import type { Model } from './model.js';
import type { Seq2SeqLM } from './seq2seqLM.js';
import { WeightLoader, type LoadProgress, type WeightDType, type WeightForm } from './weights.js';
import { checkOptionKeys, type OptionKeys } from '../optionKeys.js';

export interface FromPretrainedOptions {
  /** 'auto' (default) takes the best device there is; or an opened backend. */
  device?: DeviceName | Backend;
  /** Threads of a CPU opened by name; all cores unless given. Results do not depend on it. */
  threads?: number;
  /** Type of weights and hidden states; f64 runs on the reference kernels. Default f32. */
  dtype?: WeightDType;
  /**
   * What matrices are in memory: 'stored' (default in f32) keeps f16, bf16, Q8_0, Q4_0 and Q4_1 as the file has them,
   * frozen; 'f32' decodes them, as training base weights needs. Values are the same, so results differ by the order of
   * sums only.
   */
  weights?: WeightForm;
  progressCallback?: (progress: LoadProgress | DownloadProgress) => void;
  signal?: AbortSignal;
  cacheDir?: string;
  revision?: string;
}

const loadKeys: OptionKeys<FromPretrainedOptions> = {
  device: true,
  threads: true,
  dtype: true,
  weights: true,
  progressCallback: true,
  signal: true,
  cacheDir: true,
  revision: true,
};

/** A checkpoint that is open: what it says about itself, its tensors. */
export interface OpenCheckpoint {
  /** A hub id, or the name of the file or folder. */
  readonly name: string;
  readonly config: ModelConfig;
  readonly file: TensorFile;
  readonly generation?: GenerationConfig;
}

/**
 * From bytes: a GGUF, a safetensors file with its config.json's content (and generation_config.json's), or a llama2.c
 * file. Works in a browser on dropped files. `openSibling` opens further parts of a split GGUF by their file names.
 */
export async function openCheckpoint(
  source: ByteSource,
  config?: unknown,
  generationConfig?: unknown,
  openSibling?: OpenSibling,
): Promise<OpenCheckpoint> {
  if (config !== undefined) {
    const file = await openSafetensors(source);
    return opened(file, source.name, () => ({
      config: configFromHF(config, `${source.name} config`),
      ...(generationConfig === undefined
        ? {}
        : { generation: generationConfigFromHF(generationConfig, `${source.name} generation config`) }),
    }));
  }
  const magic = source.size >= 4 ? new TextDecoder().decode(await source.read(0, 4)) : '';
  if (magic === 'GGUF') {
    return openedGguf(await openGguf(source, openSibling));
  }
  if (await isMarian(source)) return openedMarian(source);
  const file = await openLlama2c(source);
  return opened(file, source.name, () => ({
    config: configFromLlama2c(file.metadata as unknown as Llama2cConfig, source.name),
  }));
}

async function openedMarian(source: ByteSource): Promise<OpenCheckpoint> {
  const file = await openMarian(source);
  return opened(file, source.name, () => ({ config: configFromMarian(file) }));
}

function openedGguf(file: TensorFile): Promise<OpenCheckpoint> {
  return opened(file, file.name, async () => {
    const config = await configFromGGUF(file);
    return { config, generation: generationConfigFromGGUF(file.metadata, config.vocabSize) };
  });
}

/** An open file with what it says about itself; it is closed where that cannot be read. */
async function opened(
  file: TensorFile,
  path: string,
  read: () => Omit<OpenCheckpoint, 'name' | 'file'> | Promise<Omit<OpenCheckpoint, 'name' | 'file'>>,
): Promise<OpenCheckpoint> {
  try {
    return { name: modelName(path), file, ...(await read()) };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Opens what `resolveModel` found on disk. */
export async function openResolved(resolved: ResolvedModel): Promise<OpenCheckpoint> {
  if (resolved.kind === 'gguf') return openedGguf(await openGgufFile(resolved.path));
  if (resolved.kind === 'llama2c' || resolved.kind === 'marian') return openCheckpoint(await fileSource(resolved.path));
  const { openFolder } = await import('./openFolderNode.js');
  const { json, configPath, generation, open } = await openFolder(resolved.path);
  const config = configFromHF(json, configPath);
  const said = generation ? { generation: generationConfigFromHF(generation.json, generation.path) } : {};
  return { name: modelName(resolved.path), config, file: await open(), ...said };
}

/**
 * The id of a model in the hub's cache (`models--org--name/snapshots/...`), the alias of a pinned file; else the last
 * part of its path.
 */
function modelName(path: string): string {
  const cached = /models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\][^/\\]+[/\\]?$/.exec(path);
  if (cached) return `${cached[1]}/${cached[2]}`;
  const last = path.split(/[/\\]/).filter(Boolean).at(-1);
  return aliasOfFile(last ?? '') ?? last?.replace(/(-00001-of-\d{5})?\.(gguf|safetensors|bin)$/, '') ?? 'model';
}

/**
 * The model of an open checkpoint for a task, on a device. Closes the checkpoint.
 * @throws FormatError where the family has no model for the task, naming those it has
 */
export async function loadModel(
  { name, config, file, generation }: OpenCheckpoint,
  task: Task,
  options: FromPretrainedOptions = {},
): Promise<Model> {
  checkOptionKeys('loading a model', options, loadKeys);
  try {
    const family = familyOf(config);
    const load = family.tasks[task];
    if (!load) {
      const others = (Object.keys(family.tasks) as Task[]).map(other => tasks[other]).join(', ');
      throw new FormatError(file.name, `a ${family.name} is no model for ${tasks[task]}; it is one for ${others}`);
    }
    const backend =
      typeof options.device === 'object'
        ? options.device
        : await openDevice(options.device, { threads: options.threads });
    const weights = new WeightLoader(file, backend, family.names, {
      dtype: options.dtype ?? 'f32',
      weights: options.weights ?? (options.dtype === 'f64' ? 'f32' : 'stored'),
      ...(options.progressCallback ? { progress: options.progressCallback } : {}),
      ...(options.signal ? { signal: options.signal } : {}),
    });
    weights.checkFits();
    return await load({ config, weights, name, generation });
  } finally {
    await file.close();
  }
}

/** The causal language model of an open checkpoint, see `loadModel`. */
export const loadCausalLM = (checkpoint: OpenCheckpoint, options: FromPretrainedOptions = {}): Promise<CausalLM> =>
  loadModel(checkpoint, 'causalLM', options) as Promise<CausalLM>;

/** `fromPretrained` of a task. */
function auto<M extends Model>(task: Task) {
  return {
    /** A path (folder, .gguf, llama2.c .bin), an alias (`smollm2-135m`) or a hub id. */
    async fromPretrained(idOrPath: string, options: FromPretrainedOptions = {}): Promise<M> {
      checkOptionKeys('fromPretrained', options, loadKeys);
      return (await loadModel(await openResolved(await resolveModel(idOrPath, options)), task, options)) as M;
    },
  };
}

/** Without a task: a `TextEncoder`, a `BaseEncoder` of images, a `ClipModel`; the default is what texts need. */
export const AutoModel = auto<TextEncoder>('base');
export const AutoModelForCausalLM = auto<CausalLM>('causalLM');
export const AutoModelForImageTextToText = auto<ImageTextLM>('imageTextToText');
export const AutoModelForSeq2SeqLM = auto<Seq2SeqLM>('seq2seqLM');
export const AutoModelForSpeechSeq2Seq = auto<Seq2SeqLM>('speechSeq2Seq');
export const AutoModelForImageClassification = auto<ImageClassifier>('imageClassification');
export const AutoModelForMaskedLM = auto<MaskedLM>('maskedLM');
export const AutoModelForSequenceClassification = auto<SequenceClassifier>('sequenceClassification');
