// What `reft info` says of a folder of edits or of another adapter: ours, pyreft's, AdapterHub's, peft's. Told apart by
// their files, as `loadEditFolder` does, and described without a model.

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileSource } from '../io/byteSource.js';
import { FormatError } from '../io/errors.js';
import { openSafetensors } from '../io/safetensors.js';
import { parseJsonObject } from '../io/strictJson.js';
import type { TensorFile } from '../io/tensorFile.js';
import { readTorchBin, type TorchTensor, type TorchValue } from '../io/torchBin.js';
import { adapterConfigFile, adapterModelFile, parseAdapterConfig } from '../reft/adapterFiles.js';
import { readFolder } from '../reft/adapterFilesNode.js';
import { adapterHubWeightFiles, isAdapterHub } from '../reft/formats/adapterHub.js';
import { peftConfigOf, type PeftConfig } from '../reft/formats/peftConfig.js';
import {
  looksLikePyreft,
  parsePyreftConfig,
  pyreftConfigFile,
  pyreftFileOf,
  readPyreftWeights,
} from '../reft/formats/pyreftFolder.js';
import { kindOfPyreft } from '../reft/formats/pyreftWeights.js';
import { sizeOf } from '../tensor/shape.js';
import { dtypeCounts } from './model.js';

export type Facts = Record<string, unknown>;

const peftWeightFiles = ['adapter_model.safetensors', 'adapter_model.bin'] as const;

const isFile = (path: string): Promise<boolean> =>
  stat(path).then(
    s => s.isFile(),
    () => false,
  );

/** What a folder of edits, or of peft, holds; null for anything else. @throws FormatError for files that are wrong */
export async function adapterFacts(path: string): Promise<Facts | null> {
  if (await isFile(join(path, adapterConfigFile))) {
    const bytes = await bytesOf(path, adapterConfigFile);
    const configPath = join(path, adapterConfigFile);
    const json = parseJsonObject(bytes, configPath, 'the configuration');
    if (isAdapterHub(json)) return adapterHubFacts(path, json);
    const peft = peftConfigOf(json);
    if (peft) return peftFacts(path, peft);
    const config = parseAdapterConfig(bytes, configPath);
    const { parameters, bytes: size, dtypes, tensors } = await tensorFacts(join(path, adapterModelFile));
    return { kind: 'adapter', path, parameters, bytes: size, dtypes, ...config, tensors };
  }
  if (!(await isFile(join(path, pyreftConfigFile)))) return null;
  const bytes = await bytesOf(path, pyreftConfigFile);
  return looksLikePyreft(bytes) ? pyreftFacts(path, bytes) : null;
}

async function pyreftFacts(path: string, configBytes: Uint8Array): Promise<Facts> {
  const config = parsePyreftConfig(configBytes, join(path, pyreftConfigFile));
  const tensors: Record<string, string> = {};
  const interventions: Facts[] = [];
  let [parameters, bytes] = [0, 0];
  for (const [i, key] of config.sorted_keys.entries()) {
    const name = pyreftFileOf(key);
    const file = await bytesOf(path, name);
    bytes += file.byteLength;
    const { weights, stored } = await readPyreftWeights(file, join(path, name));
    [...weights].forEach(([tensor, { shape, data }], n) => {
      parameters += data.length;
      tensors[`${key}: ${tensor}`] = `${stored[n]} [${shape.join(',')}]`;
    });
    const [layer, component] = config.representations[i];
    const rank = [...weights].find(([tensor]) => tensor.startsWith('learned_source'))?.[1].shape[0];
    const type = config.intervention_types[i];
    interventions.push({ kind: kindOfPyreft(type) ?? type, layer, component, rank });
  }
  return { kind: 'adapter', format: 'pyreft', path, parameters, bytes, interventions, tensors };
}

async function adapterHubFacts(path: string, json: Facts): Promise<Facts> {
  const { config, ...about } = json;
  const weights = await weightFacts(path, adapterHubWeightFiles);
  return { kind: 'adapter', format: 'adapterhub', path, ...weights, ...about, ...(config as Facts) };
}

async function peftFacts(path: string, config: PeftConfig): Promise<Facts> {
  const { peft_type: peftType, r: rank, lora_alpha: alpha, target_modules: targetModules, ...rest } = config;
  return {
    kind: 'adapter',
    format: 'peft',
    path,
    peftType,
    rank,
    alpha,
    targetModules,
    ...(await weightFacts(path, peftWeightFiles)),
    baseModel: rest.base_model_name_or_path,
    taskType: rest.task_type,
    dora: rest.use_dora ?? false,
    rankStabilised: rest.use_rslora ?? false,
    layers: rest.layers_to_transform ?? 'all',
    modulesToSave: rest.modules_to_save ?? [],
  };
}

/** Facts of the first of these files that is there. */
async function weightFacts(path: string, names: readonly string[]): Promise<Facts> {
  for (const name of names) {
    if (!(await isFile(join(path, name)))) continue;
    const factsOf = name.endsWith('.bin') ? binFacts : tensorFacts;
    const { parameters, bytes, dtypes, tensors } = await factsOf(join(path, name));
    return { parameters, bytes, dtypes, tensors };
  }
  throw new FormatError(path, `has neither ${names.join(' nor ')}`);
}

async function binFacts(path: string): Promise<Facts> {
  const source = await fileSource(path);
  try {
    const isTensor = (entry: [string, TorchValue]): entry is [string, TorchTensor] =>
      typeof entry[1] === 'object' && entry[1] !== null;
    const tensors = [...(await readTorchBin(source))].filter(isTensor);
    const dtypes = new Map<string, number>();
    for (const [, { dtype, shape }] of tensors) dtypes.set(dtype, (dtypes.get(dtype) ?? 0) + sizeOf(shape));
    return {
      parameters: [...dtypes.values()].reduce((a, b) => a + b, 0),
      bytes: source.size,
      dtypes: Object.fromEntries(dtypes),
      tensors: Object.fromEntries(tensors.map(([name, { dtype, shape }]) => [name, `${dtype} [${shape.join(',')}]`])),
    };
  } finally {
    await source.close();
  }
}

export async function tensorFacts(path: string): Promise<Facts> {
  const source = await fileSource(path);
  const bytes = source.size;
  const file = await openSafetensors(source);
  try {
    const described = [...file.tensors].map(([name, { dtype, shape }]) => [name, `${dtype} [${shape.join(',')}]`]);
    const tensors = Object.fromEntries(described) as Record<string, string>;
    return { kind: 'tensors', path, format: 'safetensors', ...counted(file), bytes, tensors };
  } finally {
    await file.close();
  }
}

/** How many numbers a file holds, in all and by type. */
export function counted(file: TensorFile): Facts {
  const parameters = [...file.tensors.values()].reduce((n, t) => n + sizeOf(t.shape), 0);
  return { parameters, dtypes: Object.fromEntries(dtypeCounts(file)) };
}

async function bytesOf(path: string, name: string): Promise<Uint8Array> {
  return (await readFolder(path, [name])).get(name) as Uint8Array;
}
