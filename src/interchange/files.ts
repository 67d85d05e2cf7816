// Interchange interventions as files: interchange_config.json (all that is needed to build them again) and
// interchange_model.safetensors (their parameters, R materialised, F32). In memory here, for browsers too. Trained
// edits have files of their own (../adapterFiles.ts).

import { z } from 'zod';
import { noGrad } from '../autograd/tape.js';
import { memorySource } from '../io/byteSource.js';
import { FormatError } from '../io/errors.js';
import { nodeOnly } from '../io/nodeOnly.js';
import { openSafetensors, type SafetensorsEntry } from '../io/safetensors.js';
import { parseJsonObject } from '../io/strictJson.js';
import type { CausalLM } from '../models/causalLM.js';
import { create } from '../tensor/create.js';
import { hostBackend } from '../devices.js';
import type { Files, LoadReftOptions } from '../reft/adapterFiles.js';
import { modelFingerprint } from '../train/fingerprint.js';
import { checkTogether, finiteEntry, savedFiles } from '../reft/savedFiles.js';
import { resolveInterchange, type InterchangeConfig } from './config.js';
import { InterchangeModel } from './interchangeModel.js';

export const interchangeConfigFile = 'interchange_config.json';
export const interchangeModelFile = 'interchange_model.safetensors';
export const interchangeFileNames = { weights: interchangeModelFile, config: interchangeConfigFile };
const formatVersion = 1;
/** How far R R^T may be from the identity: rounding, never another matrix. */
const orthonormalTolerance = 1e-3;

const schema = z.strictObject({
  format: z.literal('reft-interchange'),
  format_version: z.literal(formatVersion),
  base_model_name_or_path: z.string(),
  base_model_fingerprint: z.string(),
  mode: z.enum(['parallel', 'serial']),
  /** Checked by `resolveInterchange`. */
  interventions: z.array(z.record(z.string(), z.unknown())).min(1),
  temperatures: z.array(z.number().positive()),
  /** Of the file of weights that this belongs to; absent in files of earlier versions. */
  weights_sha256: z.string().optional(),
});

/** The same interventions on the same base give the same bytes. */
export async function interchangeToFiles(model: InterchangeModel): Promise<Map<string, Uint8Array>> {
  const { base, mode, spaces } = model;
  const config: z.infer<typeof schema> = {
    format: 'reft-interchange',
    format_version: formatVersion,
    base_model_name_or_path: base.name,
    base_model_fingerprint: await modelFingerprint(base),
    mode,
    interventions: model.interventions.map(i => ({ ...i.config })),
    temperatures: spaces.map(space => space.temperature),
  };
  const entries: SafetensorsEntry[] = [];
  for (const space of spaces) {
    for (const [name, tensor] of Object.entries(noGrad(() => space.parameters()))) {
      entries.push(await finiteEntry(`${space.id}.${name}`, tensor));
    }
  }
  return savedFiles(interchangeFileNames, config, entries);
}

/**
 * The files are untrusted: whatever is wrong with them is a FormatError. Other weights than the base's own are a
 * warning.
 */
export async function interchangeFromFiles(
  base: CausalLM,
  files: Files,
  options: LoadReftOptions = {},
): Promise<InterchangeModel> {
  const {
    onWarning = message => {
      console.warn(message);
    },
    source = 'interchange',
  } = options;
  const bytesOf = (name: string): Uint8Array => {
    const bytes = files.get(name);
    if (!bytes) throw new FormatError(source, `has no ${name}`);
    return bytes;
  };
  const [configName, modelName] = [`${source}/${interchangeConfigFile}`, `${source}/${interchangeModelFile}`];
  const parsed = schema.safeParse(parseJsonObject(bytesOf(interchangeConfigFile), configName, 'the configuration'));
  if (!parsed.success)
    throw new FormatError(
      configName,
      parsed.error.issues
        .slice(0, 3)
        .map(i => `${i.path.join('.') || 'it'}: ${i.message}`)
        .join('; '),
    );
  const config = parsed.data;
  const build = (): InterchangeModel => {
    try {
      const resolved = config.interventions.map((c, place) =>
        resolveInterchange(base, c as unknown as InterchangeConfig, place),
      );
      return new InterchangeModel(base, resolved, config.mode);
    } catch (cause) {
      throw new FormatError(configName, (cause as Error).message, { cause });
    }
  };
  const weights = await openSafetensors(memorySource(bytesOf(interchangeModelFile), modelName));
  const model = build();
  try {
    const { temperatures } = config;
    const { length } = model.spaces;
    if (temperatures.length !== length)
      throw new FormatError(configName, `temperatures: expected ${length}, got ${temperatures.length}`);
    const expected = new Set<string>();
    for (const [i, space] of model.spaces.entries()) {
      space.temperature = temperatures[i];
      for (const spec of space.kind.parameters) {
        const [name, shape] = [`${space.id}.${spec.name}`, space.shapeOf(spec)];
        expected.add(name);
        const stored = weights.tensors.get(name);
        if (!stored) throw new FormatError(modelName, `has no tensor '${name}', which the configuration asks for`);
        if (stored.dtype !== 'F32' || stored.shape.join() !== shape.join()) {
          throw new FormatError(
            modelName,
            `'${name}' is ${stored.dtype} [${stored.shape.join(', ')}], expected F32 [${shape.join(', ')}]`,
          );
        }
        const data = await weights.readFloat32(name);
        if (!data.every(Number.isFinite)) throw new FormatError(modelName, `'${name}' has numbers that are not finite`);
        if (spec.start === 'orthogonal') checkOrthonormal(data, shape, name, modelName);
        const value = create.from(data, shape, { dtype: base.dtype, backend: hostBackend(base.backend) });
        space.set(spec.name, value);
        value.storage.dispose();
      }
    }
    for (const name of weights.tensors.keys())
      if (!expected.has(name))
        throw new FormatError(modelName, `has a tensor '${name}' that the configuration does not know`);
    await checkTogether(config, configName, bytesOf(interchangeModelFile), modelName);
  } catch (error) {
    model.dispose();
    throw error;
  }
  if ((await modelFingerprint(base)) !== config.base_model_fingerprint) {
    onWarning(
      `${source}: was found in other weights (${config.base_model_name_or_path}) than those of ${base.name}; it may not do there what it did`,
    );
  }
  return model;
}

function checkOrthonormal(R: Float32Array, [r, d]: readonly number[], name: string, source: string): void {
  for (let i = 0; i < r; i++) {
    for (let j = 0; j <= i; j++) {
      let dot = 0;
      for (let k = 0; k < d; k++) dot += R[i * d + k] * R[j * d + k];
      const error = Math.abs(dot - (i === j ? 1 : 0));
      if (!(error <= orthonormalTolerance)) {
        throw new FormatError(
          source,
          `'${name}' must have orthonormal rows: rows ${j} and ${i} are off by ${error.toPrecision(3)}`,
        );
      }
    }
  }
}

/**
 * Writes a folder (Node): what is there is the old or the new, whole. @throws RangeError naming a file there that reft
 * did not write
 */
export async function saveInterchange(model: InterchangeModel, directory: string): Promise<void> {
  nodeOnly('saving into a folder', 'use interchangeToFiles(model)');
  const { writeFolder } = await import('../reft/adapterFilesNode.js');
  await writeFolder(directory, await interchangeToFiles(model));
}

/** The interventions of a folder (Node), on their base. @throws FormatError for whatever is wrong with its files */
export async function loadInterchange(
  base: CausalLM,
  directory: string,
  options: LoadReftOptions = {},
): Promise<InterchangeModel> {
  nodeOnly('loading from a folder', 'use interchangeFromFiles(base, files)');
  const { readSaved } = await import('../reft/savedFilesNode.js');
  return interchangeFromFiles(base, await readSaved(directory, interchangeFileNames), {
    source: directory,
    ...options,
  });
}
