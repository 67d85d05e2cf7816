// Adapters as files: adapter_config.json (everything needed to build the edits again), adapter_model.safetensors (their
// parameters by the names of the formula, R materialised, F32) and README.md. In memory here, for browsers too; folders
// are adapterFilesNode.ts's work. What resuming a training run needs besides is in checkpoint.ts.

import { z } from 'zod';
import {
  checkedBy,
  fileOf,
  parameterEntries,
  putParameters,
  readParameters,
  type ExpectedTensor,
  type Files,
  type LoadOptions,
} from '../adapt/files.js';
import { FormatError } from '../io/errors.js';
import { nodeOnly } from '../io/nodeOnly.js';
import { parseJsonObject } from '../io/strictJson.js';
import type { Model } from '../models/model.js';
import { stacksOf } from '../models/sites.js';
import { create } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';
import { adapterReadme } from './adapterReadme.js';
import { configToJSON, resolveConfig, type ReftConfig, type ResolvedReftConfig } from './config.js';
import { modelFingerprint } from '../train/fingerprint.js';
import { trainedBaseParameters } from './baseParameters.js';
import { assign } from '../adapt/assign.js';
import { parameterSpecs } from './intervention.js';
import { describePeft, peftConfigOf } from './formats/peftConfig.js';
import { planned, ReftModel } from './reftModel.js';
import { checkTogether, finiteEntry, savedFiles } from './savedFiles.js';
import { signed } from './signedText.js';

export const adapterConfigFile = 'adapter_config.json';
export const adapterModelFile = 'adapter_model.safetensors';
export const readmeFile = 'README.md';
export const adapterFileNames = { weights: adapterModelFile, config: adapterConfigFile };
const formatVersion = 1;
const schema = z.strictObject({
  format: z.literal('reft-adapter'),
  format_version: z.literal(formatVersion),
  base_model_name_or_path: z.string(),
  base_model_fingerprint: z.string(),
  hidden_size: z.number().int().positive(),
  num_hidden_layers: z.number().int().positive(),
  trained_parameters: z.number().int().nonnegative(),
  /** Checked by `resolveConfig`. */
  configs: z.array(z.record(z.string(), z.unknown())).min(1),
  interventions: z.array(z.strictObject({ id: z.string(), scale: z.number() })),
  /** Weights of the base that were trained along: `base.<name>` in the tensors. */
  base_parameters: z.array(z.string()).min(1).optional(),
  /** Of the file of weights that this belongs to; absent in files of earlier versions. */
  weights_sha256: z.string().optional(),
});

export type AdapterConfig = z.infer<typeof schema>;

/**
 * The adapter of a set of edits: the same edits on the same base give the same bytes. @throws Error naming a parameter
 * that is not finite
 */
export async function adapterToFiles(reft: ReftModel<Model>): Promise<Map<string, Uint8Array>> {
  const { base } = reft;
  const trained = trainedBaseParameters(base);
  const names = trained.map(([name]) => name);
  const config: AdapterConfig = {
    format: 'reft-adapter',
    format_version: formatVersion,
    base_model_name_or_path: base.name,
    base_model_fingerprint: await modelFingerprint(base, names),
    hidden_size: mainSizes(base).hiddenSize,
    num_hidden_layers: mainSizes(base).layers,
    trained_parameters: trained.reduce((n, [, t]) => n + t.size, reft.parameterCount),
    configs: reft.configs.map(c => ({ ...configToJSON(c) })),
    interventions: reft.interventions.map(({ id, scale }) => ({ id, scale })),
    ...(names.length > 0 ? { base_parameters: names } : {}),
  };
  const entries = await parameterEntries(reft.interventions);
  for (const [name, tensor] of trained) entries.push(await finiteEntry(`base.${name}`, tensor));
  const files = await savedFiles(adapterFileNames, config, entries);
  return files.set(readmeFile, new TextEncoder().encode(await signed(adapterReadme(config, reft))));
}

/** The sizes of a model's first stack, by which files are told from those of another base. */
const mainSizes = (base: Model): { hiddenSize: number; layers: number } => stacksOf(base.stacks)[0];

export type LoadReftOptions = LoadOptions;

/**
 * The edits of an adapter, on the base it was trained on. The files are untrusted: whatever is wrong with them is a
 * FormatError. Other weights than the adapter's own base are a warning; other sizes are an error. Weights of the base
 * that were trained along are put into the base.
 */
export async function adapterFromFiles<Base extends Model>(
  base: Base,
  files: Files,
  options: LoadReftOptions = {},
): Promise<ReftModel<Base>> {
  const {
    onWarning = message => {
      console.warn(message);
    },
    source = 'adapter',
  } = options;
  const configName = `${source}/${adapterConfigFile}`;
  const modelName = `${source}/${adapterModelFile}`;
  const config = parseAdapterConfig(fileOf(files, adapterConfigFile, source), configName);
  const { hiddenSize, layers } = mainSizes(base);
  if (config.hidden_size !== hiddenSize || config.num_hidden_layers !== layers) {
    throw new FormatError(
      configName,
      `was trained on ${config.base_model_name_or_path} (${config.num_hidden_layers} layers of ${config.hidden_size}); ` +
        `${base.name} has ${layers} layers of ${hiddenSize}`,
    );
  }
  const configs = config.configs.map((c, i) => {
    try {
      return resolveConfig(c as unknown as ReftConfig, base.stacks);
    } catch (cause) {
      throw new FormatError(configName, `configs[${i}]: ${(cause as Error).message}`, { cause });
    }
  });
  const weights = fileOf(files, adapterModelFile, source);
  const along = baseParametersOf(base, config.base_parameters ?? [], configName);
  const ofBase = along.map(([name, { shape }]) => [`base.${name}`, { shape, orthonormal: false }] as const);
  const ids = configs.flatMap(planned).map(plan => plan.id);
  if (new Set(ids).size !== ids.length || ids.join() !== config.interventions.map(i => i.id).join()) {
    throw new FormatError(
      configName,
      `interventions: expected ${ids.join(', ')}, got ${config.interventions.map(i => i.id).join(', ')}`,
    );
  }
  const expected = new Map<string, ExpectedTensor>([...expectedTensors(base, configs), ...ofBase]);
  const values = await readParameters(weights, modelName, expected);
  await checkTogether(config, configName, weights, modelName);

  const reft = new ReftModel(base, configs);
  reft.onWarning = onWarning;
  reft.interventions.forEach((intervention, i) => {
    intervention.scale = config.interventions[i].scale;
    putParameters(intervention, values, base);
  });
  const fingerprint = await modelFingerprint(base, config.base_parameters);
  for (const [name, tensor] of along) {
    const value = create.from(values.get(`base.${name}`) as Float32Array, tensor.shape, {
      dtype: base.dtype,
      backend: base.backend,
    });
    assign(tensor.requireGrad(), value, name);
    value.storage.dispose();
  }
  if (fingerprint !== config.base_model_fingerprint) {
    onWarning(
      `${source}: was trained on other weights (${config.base_model_name_or_path}) than those of ${base.name}; its edits may not do what they did`,
    );
  }
  return reft;
}

/** Checks the bytes of an adapter_config.json. */
export function parseAdapterConfig(bytes: Uint8Array, source: string): AdapterConfig {
  const json = parseJsonObject(bytes, source, 'the configuration');
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const peft = peftConfigOf(json);
  if (peft) {
    throw new FormatError(source, `is of ${describePeft(peft)}, which changes weights, not hidden states: not loaded`);
  }
  return checkedBy(schema, json, source);
}

/** The parameters a set of configurations has, by their names in a file. */
function expectedTensors(base: Model, configs: readonly ResolvedReftConfig[]): [string, ExpectedTensor][] {
  return configs.flatMap(config => {
    const specs = parameterSpecs(config, base.widthAt(config.component, config.heads?.[0], config.stack));
    return planned(config).flatMap(({ id }) =>
      specs.map(({ name, shape, start }): [string, ExpectedTensor] => [
        `${id}.${name}`,
        { shape, orthonormal: start === 'orthogonal' },
      ]),
    );
  });
}

/** The base's weights of these names, which a file says were trained along. */
function baseParametersOf(base: Model, names: readonly string[], source: string): [string, Tensor][] {
  const own = new Map(base.namedParameters());
  return names.map((name): [string, Tensor] => {
    const tensor = own.get(name);
    if (!tensor) throw new FormatError(source, `base_parameters: ${base.name} has no weights '${name}'`);
    if (tensor.packing)
      throw new FormatError(
        source,
        `base_parameters: '${name}' was trained along, and is packed (${tensor.packing}) here; load the base unpacked`,
      );
    return [name, tensor];
  });
}

/**
 * Writes the adapter's files into a folder (Node): the adapter there is the old one or the new one, whatever stops the
 * process. An older adapter is replaced; what reft did not write is left alone, a README.md that somebody changed too.
 * @throws RangeError naming a file that would have to go
 */
export async function saveAdapter(reft: ReftModel<Model>, directory: string): Promise<void> {
  nodeOnly('saving into a folder', 'use adapterToFiles(reft)');
  const { writeFolder } = await import('./adapterFilesNode.js');
  const left = await writeFolder(directory, await adapterToFiles(reft));
  if (left.length > 0) reft.onWarning(`${directory}: ${left.join(', ')} was not written by reft and is left as it is`);
}

/**
 * The edits of an adapter folder (Node), on the base they were trained on. @throws FormatError for whatever is wrong
 * with its files
 */
export async function loadReft<Base extends Model>(
  base: Base,
  directory: string,
  options: LoadReftOptions = {},
): Promise<ReftModel<Base>> {
  nodeOnly('loading from a folder', 'use adapterFromFiles(base, files)');
  const { readSaved } = await import('./savedFilesNode.js');
  const { readFolder } = await import('./adapterFilesNode.js');
  const files = await readSaved(directory, adapterFileNames).catch(async (cause: unknown) => {
    // Somebody else's folder may have its weights in another file: its configuration says what it is.
    const config = (await readFolder(directory, [adapterConfigFile]).catch(() => undefined))?.get(adapterConfigFile);
    if (config) parseAdapterConfig(config, `${directory}/${adapterConfigFile}`);
    throw cause;
  });
  return adapterFromFiles(base, files, { source: directory, ...options });
}
