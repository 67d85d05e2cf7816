// ReFT adapters of AdapterHub's `adapters` library: adapter_config.json and pytorch_adapter.bin or adapter.safetensors.
// Read only. Source: adapters 1.2.0, methods/reft.py (ReftUnit, ReftModule) and configuration/adapter_config.py
// (ReftConfig).

import { z } from 'zod';
import { memorySource } from '../../io/byteSource.js';
import { FormatError } from '../../io/errors.js';
import { openSafetensors } from '../../io/safetensors.js';
import { storedToFloat32 } from '../../io/storedDType.js';
import { parseJsonObject } from '../../io/strictJson.js';
import { readTorchBin } from '../../io/torchBin.js';
import type { CausalLM } from '../../models/causalLM.js';
import type { Files } from '../../adapt/files.js';
import type { ReftConfig } from '../config.js';
import { editActivations } from '../editOp.js';
import { getReftModel, type ReftModel } from '../reftModel.js';
import { activationOfTransformers, rotation, setPyreftWeights, type HostArray } from './pyreftWeights.js';

export const adapterHubConfigFile = 'adapter_config.json';
export const adapterHubWeightFiles = ['adapter.safetensors', 'pytorch_adapter.bin'] as const;

const schema = z.looseObject({
  hidden_size: z.number().int().positive().optional(),
  config: z.looseObject({
    architecture: z.literal('reft'),
    layers: z.union([z.literal('all'), z.array(z.number().int().nonnegative()).min(1)]),
    prefix_positions: z.number().int().nonnegative(),
    suffix_positions: z.number().int().nonnegative(),
    r: z.number().int().positive(),
    orthogonality: z.boolean(),
    tied_weights: z.boolean().default(false),
    subtract_projection: z.boolean().default(true),
    dropout: z.number().min(0).lt(1).default(0),
    non_linearity: z.string().nullable().default(null),
  }),
});

/** Whether a JSON object is the configuration of a ReFT adapter of AdapterHub. */
export const isAdapterHub = (json: unknown): boolean => schema.safeParse(json).success;

/**
 * The edits of an AdapterHub folder. Its positions are counted from both ends of the whole sequence, ours from those of
 * the prompt: the same where the sequence is the prompt.
 * @throws FormatError for whatever is wrong with the files
 */
export async function adapterHubFromFiles(base: CausalLM, files: Files, source = 'adapter'): Promise<ReftModel> {
  const configName = `${source}/${adapterHubConfigFile}`;
  const bytes = files.get(adapterHubConfigFile);
  if (!bytes) throw new FormatError(source, `has no ${adapterHubConfigFile}`);
  const parsed = schema.safeParse(parseJsonObject(bytes, configName, 'the configuration'));
  if (!parsed.success)
    throw new FormatError(
      configName,
      parsed.error.issues
        .slice(0, 3)
        .map(i => `${i.path.join('.') || 'it'}: ${i.message}`)
        .join('; '),
    );
  const { hidden_size: hidden, config: c } = parsed.data;
  if (hidden !== undefined && hidden !== base.config.hiddenSize)
    throw new FormatError(
      configName,
      `was trained on hidden states of ${hidden}; ${base.name} has ${base.config.hiddenSize}`,
    );
  const activation = activationOfTransformers(c.non_linearity);
  if (!activation)
    throw new FormatError(
      configName,
      `non_linearity '${c.non_linearity}' is not known; known: ${editActivations.join(', ')}`,
    );
  const kind = c.subtract_projection
    ? c.orthogonality
      ? 'loreft'
      : 'noreft'
    : c.orthogonality
      ? 'direftOrthogonal'
      : 'direft';
  const positions = [
    c.prefix_positions ? `f${c.prefix_positions}` : '',
    c.suffix_positions ? `l${c.suffix_positions}` : '',
  ]
    .filter(Boolean)
    .join('+');
  const config: ReftConfig = {
    kind,
    layers: c.layers,
    positions: positions || 'none',
    rank: c.r,
    tied: c.tied_weights,
    activation,
    dropout: c.dropout,
    dropoutOn: 'state',
    bias: kind === 'noreft' ? 'inner' : true,
  };
  const tensors = await readTensors(files, source);
  let reft: ReftModel;
  try {
    reft = getReftModel(base, config);
  } catch (cause) {
    throw new FormatError(configName, (cause as Error).message, { cause });
  }
  const used = new Set<string>();
  for (const intervention of reft.interventions) {
    // An untied pair has unit 0 for the first tokens and 1 for the last; so has an adapter that uses only one of them.
    const unit = !c.tied_weights && (intervention.side === 'suffix' || c.prefix_positions === 0) ? 1 : 0;
    const pattern = new RegExp(
      `(?:^|\\.)layers?\\.${intervention.site.layer}\\.reft_layer\\.refts\\.[^.]+\\.units\\.${unit}\\.(.+)$`,
    );
    const weights = new Map<string, HostArray>();
    for (const [name, value] of tensors) {
      const part = pattern.exec(name)?.[1];
      if (part === undefined) continue;
      used.add(name);
      place(weights, part, value, c.orthogonality);
    }
    if (weights.size === 0)
      throw new FormatError(
        source,
        `has no weights for unit ${unit} of layer ${intervention.site.layer}; it has ${[...tensors.keys()].slice(0, 4).join(', ')}`,
      );
    try {
      setPyreftWeights(intervention, weights, `${source}: layer ${intervention.site.layer}`);
    } catch (cause) {
      throw new FormatError(source, (cause as Error).message, { cause });
    }
  }
  const strange = [...tensors.keys()].find(name => !used.has(name) && !/\.units\.[01]\./.test(name));
  if (strange !== undefined) throw new FormatError(source, `has a tensor '${strange}' that belongs to no edit`);
  return reft;
}

/** `projection` [r, d] is R or W2; torch keeps an orthogonal one as its parametrization, of the transpose. */
function place(weights: Map<string, HostArray>, part: string, value: HostArray, orthogonal: boolean): void {
  if (part === 'projection.parametrizations.weight.original') weights.set(rotation.original, transposed(value));
  else if (part === 'projection.parametrizations.weight.0.base') weights.set(rotation.base, value);
  else if (part === 'projection.weight')
    weights.set(orthogonal ? rotation.transposed : 'proj_layer.weight', orthogonal ? transposed(value) : value);
  else weights.set(part, value);
}

function transposed({ shape: [m, n], data }: HostArray): HostArray {
  const out = new Float64Array(data.length);
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) out[j * m + i] = data[i * n + j];
  return { shape: [n, m], data: out };
}

async function readTensors(files: Files, source: string): Promise<Map<string, HostArray>> {
  const name = adapterHubWeightFiles.find(n => files.has(n));
  if (!name) throw new FormatError(source, `has neither ${adapterHubWeightFiles.join(' nor ')}`);
  const bytes = files.get(name) as Uint8Array;
  const from = memorySource(bytes, `${source}/${name}`);
  const result = new Map<string, HostArray>();
  if (name === 'pytorch_adapter.bin') {
    for (const [key, value] of await readTorchBin(from)) {
      if (typeof value !== 'object' || value === null) throw new FormatError(from.name, `'${key}' is no tensor`);
      result.set(key, { shape: value.shape, data: Float64Array.from(storedToFloat32(value.dtype, value.data)) });
    }
  } else {
    const file = await openSafetensors(from);
    for (const [key, { shape }] of file.tensors)
      result.set(key, { shape, data: Float64Array.from(await file.readFloat32(key)) });
  }
  return result;
}
