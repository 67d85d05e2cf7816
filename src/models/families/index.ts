// The list of families. A new one is its file and a line here.

import { FormatError } from '../../io/errors.js';
import { isJsonObject } from '../../io/strictJson.js';
import type { DecoderConfig, ModelConfig } from '../config.js';
import type { Family, GgufFile, MarianFile } from './family.js';
import { bart } from './bart.js';
import { bert } from './bert.js';
import { clip } from './clip.js';
import { distilbert } from './distilbert.js';
import { gemma2 } from './gemma2.js';
import { gemma3 } from './gemma3.js';
import { gpt2 } from './gpt2.js';
import { gptNeoX } from './gptNeoX.js';
import { granite } from './granite.js';
import { llama } from './llama.js';
import { mamba } from './mamba.js';
import { llava } from './llava.js';
import { marian } from './marian.js';
import { modernbert } from './modernbert.js';
import { olmo2 } from './olmo2.js';
import { opt } from './opt.js';
import { phi3 } from './phi3.js';
import { qwen2 } from './qwen2.js';
import { qwen3 } from './qwen3.js';
import { roberta } from './roberta.js';
import { smollm3 } from './smollm3.js';
import { t5 } from './t5.js';
import { whisper } from './whisper.js';
import { vit } from './vit.js';

export const families: readonly Family[] = [
  llama,
  qwen2,
  qwen3,
  gemma2,
  gemma3,
  phi3,
  olmo2,
  smollm3,
  granite,
  gpt2,
  gptNeoX,
  opt,
  mamba as Family,
  t5,
  bart,
  whisper,
  marian,
  llava,
  bert,
  roberta,
  distilbert,
  modernbert,
  vit,
  clip,
];

/** Every `model_type` this version reads. */
export const knownArchitectures: readonly string[] = families.flatMap(family => family.modelTypes);

const unknown = (name: string, names: readonly string[]): string =>
  `architecture '${name}' is not known; known: ${names.join(', ')}`;

/**
 * A configuration from the content of a config.json: a decoder's, or what the file of another family makes of it.
 * @throws FormatError naming what is not understood
 */
export function configFromHF(json: unknown, source: string): DecoderConfig {
  if (!isJsonObject(json)) throw new FormatError(source, 'expected a JSON object');
  const modelType = String(json['model_type']);
  const family = families.find(({ modelTypes }) => modelTypes.includes(modelType));
  if (family) return family.fromHF(json, source) as DecoderConfig;
  throw new FormatError(source, unknown(modelType, knownArchitectures));
}

/** A configuration from an open GGUF. @throws FormatError naming what is not understood */
export async function configFromGGUF(file: GgufFile): Promise<DecoderConfig> {
  const architecture = String(file.metadata['general.architecture']);
  const family = families.find(({ architectures = [] }) => architectures.includes(architecture));
  if (family?.fromGGUF) return (await family.fromGGUF(file)) as DecoderConfig;
  const names = families.flatMap(({ architectures = [] }) => architectures);
  throw new FormatError(file.name, unknown(architecture, names));
}

/** A configuration from an open binary model of marian. @throws FormatError naming what is not understood */
export function configFromMarian(file: MarianFile): DecoderConfig {
  return (marian.fromMarian as NonNullable<Family['fromMarian']>)(file) as DecoderConfig;
}

/** The family of a configuration. */
export function familyOf({ modelType }: ModelConfig): Family {
  const family = families.find(
    ({ modelTypes, architectures = [] }) => modelTypes.includes(modelType) || architectures.includes(modelType),
  );
  if (!family) throw new RangeError(unknown(modelType, knownArchitectures));
  return family;
}
