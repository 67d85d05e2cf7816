// Weights and their configuration as one change: the configuration holds the hash of the weights it belongs to, so
// files of one adapter are never read with those of another. Where a save was cut off between the two,
// savedFilesNode.ts finds the right one. Bytes here, for browsers too.

import { FormatError } from '../io/errors.js';
import { writeSafetensors, type SafetensorsEntry } from '../io/safetensors.js';
import type { Tensor } from '../tensor/tensor.js';
import { sha256 } from '../train/fingerprint.js';

/** The key of the configuration that holds the hash of the weights' file; files of earlier versions have none. */
export const hashKey = 'weights_sha256';

export interface SavedNames {
  readonly weights: string;
  readonly config: string;
}

/** Parameters that are not finite are worth nothing: nothing of them is written. */
export class NotFiniteError extends Error {}

/** A tensor as an entry of a file. @throws NotFiniteError naming it */
export async function finiteEntry(
  name: string,
  tensor: Tensor,
  dtype: 'F32' | 'F64' = 'F32',
): Promise<SafetensorsEntry> {
  const values = await tensor.data();
  const data = dtype === 'F64' ? Float64Array.from(values) : Float32Array.from(values);
  if (!data.every(Number.isFinite))
    throw new NotFiniteError(`'${name}' has numbers that are not finite: nothing was written`);
  return { name, dtype, shape: tensor.shape, data };
}

/** The two files. The header of the weights says what they are. */
export async function savedFiles(
  names: SavedNames,
  config: { readonly format: string },
  entries: readonly SafetensorsEntry[],
): Promise<Map<string, Uint8Array>> {
  const weights = writeSafetensors(entries, { format: config.format });
  const text = `${JSON.stringify({ ...config, [hashKey]: await sha256(weights) }, null, 2)}\n`;
  return new Map([
    [names.weights, weights],
    [names.config, new TextEncoder().encode(text)],
  ]);
}

/**
 * For the end of reading, when all else is right. @throws FormatError where the configuration belongs to other weights
 */
export async function checkTogether(
  config: { readonly [hashKey]?: string | undefined },
  configName: string,
  weights: Uint8Array,
  weightsName: string,
): Promise<void> {
  if (config[hashKey] === undefined || config[hashKey] === (await sha256(weights))) return;
  throw new FormatError(
    configName,
    `belongs to other weights than those in ${weightsName}: the two files are not of one save, or were damaged`,
  );
}
