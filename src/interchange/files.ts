// Interchange interventions as files: interchange_config.json (all that is needed to build them again) and
// interchange_model.safetensors (their parameters, R materialised, F32). In memory here, for browsers too. Trained
// edits have files of their own (../adapterFiles.ts).

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
import type { CausalLM } from '../models/causalLM.js';
import { modelFingerprint } from '../train/fingerprint.js';
import { checkTogether, savedFiles } from '../reft/savedFiles.js';
import { resolveInterchange, type InterchangeConfig } from './config.js';
import { InterchangeModel } from './interchangeModel.js';
import type { InterchangeSpace } from './space.js';

export const interchangeConfigFile = 'interchange_config.json';
export const interchangeModelFile = 'interchange_model.safetensors';
export const interchangeFileNames = { weights: interchangeModelFile, config: interchangeConfigFile };
const formatVersion = 1;

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
  return savedFiles(interchangeFileNames, config, await parameterEntries(spaces));
}

/**
 * The files are untrusted: whatever is wrong with them is a FormatError. Other weights than the base's own are a
 * warning.
 */
export async function interchangeFromFiles(
  base: CausalLM,
  files: Files,
  options: LoadOptions = {},
): Promise<InterchangeModel> {
  const {
    onWarning = message => {
      console.warn(message);
    },
    source = 'interchange',
  } = options;
  const [configName, modelName] = [`${source}/${interchangeConfigFile}`, `${source}/${interchangeModelFile}`];
  const bytes = fileOf(files, interchangeConfigFile, source);
  const config = checkedBy(schema, parseJsonObject(bytes, configName, 'the configuration'), configName);
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
  const weights = fileOf(files, interchangeModelFile, source);
  const model = build();
  try {
    const { temperatures } = config;
    const { length } = model.spaces;
    if (temperatures.length !== length)
      throw new FormatError(configName, `temperatures: expected ${length}, got ${temperatures.length}`);
    const values = await readParameters(weights, modelName, new Map(model.spaces.flatMap(expectedTensors)));
    await checkTogether(config, configName, weights, modelName);
    for (const [i, space] of model.spaces.entries()) {
      space.temperature = temperatures[i];
      putParameters(space, values, base);
    }
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

function expectedTensors(space: InterchangeSpace): [string, ExpectedTensor][] {
  return space.kind.parameters.map(spec => [
    `${space.id}.${spec.name}`,
    { shape: space.shapeOf(spec), orthonormal: spec.start === 'orthogonal' },
  ]);
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
  options: LoadOptions = {},
): Promise<InterchangeModel> {
  nodeOnly('loading from a folder', 'use interchangeFromFiles(base, files)');
  const { readSaved } = await import('../reft/savedFilesNode.js');
  return interchangeFromFiles(base, await readSaved(directory, interchangeFileNames), {
    source: directory,
    ...options,
  });
}
