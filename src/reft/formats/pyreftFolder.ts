// Folders that pyreft and pyvene write: config.json and a .bin for each intervention, in all three styles of their
// keys. Read into a set of edits and written from one. What pyreft does not save (positions, activation, tying,
// dropout, scale) is asked for, or refused. Source: pyvene 0.1.8, IntervenableModel.save and load; pyreft 0.1.0,
// interventions.py.

import { z } from 'zod';
import { noGrad } from '../../autograd/tape.js';
import { memorySource } from '../../io/byteSource.js';
import { FormatError } from '../../io/errors.js';
import { storedToFloat32 } from '../../io/storedDType.js';
import { parseJsonObject } from '../../io/strictJson.js';
import { readTorchBin, type TorchTensor } from '../../io/torchBin.js';
import { writeTorchBin, type TorchBinEntry } from '../../io/torchBinWrite.js';
import type { Model } from '../../models/model.js';
import { components, parseSite, siteName, type Component, type Site } from '../../models/sites.js';
import type { Files } from '../../adapt/files.js';
import type { ReftConfig } from '../config.js';
import { kinds } from '../kinds.js';
import { parsePositions } from '../positions.js';
import { getReftModel, type ReftModel } from '../reftModel.js';
import {
  formOf,
  kindOfPyreft,
  pyreftClasses,
  pyreftWeightsOf,
  rotation,
  setPyreftWeights,
  type HostArray,
  type PyreftKind,
  type PyreftWeights,
} from './pyreftWeights.js';

export const pyreftConfigFile = 'config.json';

/**
 * What pyreft's files leave open. With `orthogonal: 'torch'` the base of torch's parametrization is kept where a file
 * has it (all classes but loreft's, whose files hold R alone), so that training goes on as PyTorch's.
 */
export type PyreftOptions = Pick<
  ReftConfig,
  'positions' | 'activation' | 'dropout' | 'scale' | 'newTokens' | 'orthogonal'
>;

const schema = z.looseObject({
  intervention_types: z.array(z.string()).min(1),
  representations: z.array(z.array(z.unknown()).min(2)).min(1),
  sorted_keys: z.array(z.string()).min(1),
});

export type PyreftConfig = z.infer<typeof schema>;

/** Whether the bytes of a config.json are pyreft's, right or wrong: a model's has no interventions. */
export function looksLikePyreft(bytes: Uint8Array): boolean {
  try {
    const json = JSON.parse(new TextDecoder().decode(bytes)) as unknown;
    return typeof json === 'object' && json !== null && 'intervention_types' in json;
  } catch {
    return false;
  }
}

/** Checks the bytes of a config.json. */
export function parsePyreftConfig(bytes: Uint8Array, source: string): PyreftConfig {
  const parsed = schema.safeParse(parseJsonObject(bytes, source, 'the configuration'));
  if (!parsed.success)
    throw new FormatError(
      source,
      parsed.error.issues
        .slice(0, 3)
        .map(i => `${i.path.join('.') || 'it'}: ${i.message}`)
        .join('; '),
    );
  const { intervention_types: types, representations, sorted_keys: keys } = parsed.data;
  if (keys.length !== types.length || keys.length !== representations.length) {
    throw new FormatError(
      source,
      `has ${keys.length} keys, ${types.length} types and ${representations.length} representations, expected as many of each`,
    );
  }
  for (const key of keys)
    if (/[/\\]|\.\./.test(key)) throw new FormatError(source, `the key '${key}' must not hold a path`);
  if (new Set(keys).size !== keys.length) throw new FormatError(source, 'names a key twice');
  return parsed.data;
}

/** The file of an intervention. */
export const pyreftFileOf = (key: string): string => `intkey_${key}.bin`;

/** The names of all files a folder must have, from its config.json. */
export const pyreftFileNames = ({ sorted_keys }: PyreftConfig): string[] => [
  pyreftConfigFile,
  ...sorted_keys.map(pyreftFileOf),
];

/** One .bin by the names of pyreftWeights.ts; counters are left out. `stored` are the types it holds. */
export async function readPyreftWeights(
  bytes: Uint8Array,
  source: string,
): Promise<{ weights: Map<string, HostArray>; stored: string[] }> {
  const values = [...(await readTorchBin(memorySource(bytes, source)))].filter(
    ([name]) => name !== 'embed_dim' && name !== 'interchange_dim',
  );
  const tensors = values.map(([name, value]): [string, TorchTensor] => {
    if (typeof value !== 'object' || value === null) throw new FormatError(source, `'${name}' is no tensor`);
    return [
      name === 'weight' || name === 'bias'
        ? `learned_source.${name}`
        : name === 'rotate_layer.parametrizations.weight.0.base'
          ? rotation.base
          : name,
      value,
    ];
  });
  return {
    weights: new Map(
      tensors.map(([name, { dtype, shape, data }]) => [
        name,
        { shape, data: Float64Array.from(storedToFloat32(dtype, data)) },
      ]),
    ),
    stored: tensors.map(([, t]) => t.dtype),
  };
}

interface Read {
  readonly kind: PyreftKind;
  readonly site: Site;
  readonly rank: number;
  readonly bias: boolean | 'inner';
  readonly weights: PyreftWeights;
  readonly where: string;
}

/**
 * The edits of a pyreft folder. Two interventions at one place are an untied pair: `positions` must then name first and
 * last tokens (default f1+l1, else l1).
 * @throws FormatError for whatever is wrong with the files
 */
export async function pyreftFromFiles<Base extends Model>(
  base: Base,
  files: Files,
  options: PyreftOptions = {},
  source = 'pyreft folder',
): Promise<ReftModel<Base>> {
  const fileOf = (name: string): Uint8Array => {
    const bytes = files.get(name);
    if (!bytes) throw new FormatError(source, `has no ${name}`);
    return bytes;
  };
  const configName = `${source}/${pyreftConfigFile}`;
  const {
    intervention_types: types,
    representations,
    sorted_keys: keys,
  } = parsePyreftConfig(fileOf(pyreftConfigFile), configName);
  const read = await Promise.all(
    keys.map(async (key, i): Promise<Read> => {
      const kind = kindOfPyreft(types[i]);
      if (!kind)
        throw new FormatError(
          configName,
          `interventions of type '${types[i]}' cannot be read; known: ${Object.values(pyreftClasses).join(', ')}`,
        );
      const where = `${source}/${pyreftFileOf(key)}`;
      const { weights } = await readPyreftWeights(fileOf(pyreftFileOf(key)), where);
      try {
        return { kind, site: siteOf(representations[i], base), weights, where, ...formOf(kind, weights, where) };
      } catch (cause) {
        throw new FormatError(configName, (cause as Error).message, { cause });
      }
    }),
  );
  try {
    return build(base, read, options);
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError(source, (cause as Error).message, { cause });
  }
}

function siteOf([layer, component]: readonly unknown[], base: Model): Site {
  const name = String(component);
  return parseSite((components as readonly string[]).includes(name) ? `${name}/${Number(layer)}` : name, base.stacks);
}

/** Interventions of one form are one configuration; R stays orthonormal however it is trained on. */
function build<Base extends Model>(base: Base, read: readonly Read[], options: PyreftOptions): ReftModel<Base> {
  const forms = new Map<string, Read[]>();
  for (const one of read) {
    const key = [one.kind, one.site.component, one.rank, one.bias].join();
    forms.set(key, [...(forms.get(key) ?? []), one]);
  }
  const groups = [...forms.values()].map(all => {
    const layers = [...new Set(all.map(one => one.site.layer))];
    // The n-th of a layer: prefixes come first, then suffixes.
    const sides = [0, 1, 2].map(n =>
      layers.flatMap(layer => all.filter(one => one.site.layer === layer).slice(n, n + 1)),
    );
    if (sides[2].length > 0) throw new RangeError(`more than two interventions at ${siteName(sides[2][0].site)}`);
    if (sides[1].length > 0 && sides[1].length < layers.length)
      throw new RangeError(`some layers of ${all[0].site.component} have one intervention and some two`);
    const pair = sides[1].length > 0;
    const positions = options.positions ?? (pair ? 'f1+l1' : 'l1');
    const parsed = parsePositions(positions);
    if (pair && !(parsed.type === 'ends' && parsed.first > 0 && parsed.last > 0)) {
      throw new RangeError(
        `two interventions a layer are for first and last tokens; positions must name both, like f7+l7`,
      );
    }
    const {
      kind,
      site: { component },
      rank,
      bias,
    } = all[0];
    const config: ReftConfig = { ...options, kind, component, layers, rank, bias, positions, tied: !pair };
    return { config, order: [...sides[0], ...sides[1]] };
  });
  const reft = getReftModel(
    base,
    groups.map(g => g.config),
  );
  groups.flatMap(g => g.order).forEach((one, i) => setPyreftWeights(reft.interventions[i], one.weights, one.where));
  return reft;
}

/** Components that pyvene knows by these names. */
const pyveneComponents = new Set<Component>([
  'block_input',
  'block_output',
  'mlp_activation',
  'mlp_output',
  'mlp_input',
  'attention_value_output',
  'attention_output',
  'attention_input',
  'query_output',
  'key_output',
  'value_output',
]);

/**
 * A folder that pyreft's classes load by `load_state_dict`, dtype float32. Positions, activation, tying and dropout
 * have no place in it.
 * @throws RangeError for edits that pyreft has no class or no place for
 */
export async function pyreftToFiles(reft: ReftModel<Model>): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  const seen = new Map<string, number>();
  const keys: string[] = [];
  for (const intervention of reft.interventions) {
    const { id, site, kind, config, scale, size } = intervention;
    const refuse = (why: string): never => {
      throw new RangeError(`${id}: ${why}, so it cannot be written for pyreft`);
    };
    if (!Object.hasOwn(kinds, kind.name)) refuse(`pyreft has no ${kind.name}`);
    if (site.head !== undefined) refuse('it edits a single head');
    if (!pyveneComponents.has(site.component)) refuse(`pyvene has no component ${site.component}`);
    if (scale !== 1 || config.trainScale) refuse('pyreft has no scale');
    const at = `layer_${site.layer}_comp_${site.component}_unit_pos_nunit_1`;
    const n = seen.get(at) ?? 0;
    seen.set(at, n + 1);
    keys.push(`${at}#${n}`);
    const own = noGrad(() => intervention.parameters());
    const entries: TorchBinEntry[] = [...(await pyreftWeightsOf(intervention, own))].map(([name, { shape, data }]) => ({
      name: nameInFile(kind.name as PyreftKind, name),
      dtype: 'F32',
      shape,
      data: Float32Array.from(data),
    }));
    // Buffers of all classes whose state dict is torch's own.
    const counter = (name: string): TorchBinEntry => ({
      name,
      dtype: 'I64',
      shape: [],
      data: BigInt64Array.of(BigInt(size.width)),
    });
    files.set(
      pyreftFileOf(keys[keys.length - 1]),
      writeTorchBin(kind.name === 'loreft' ? entries : [...entries, counter('embed_dim'), counter('interchange_dim')]),
    );
  }
  const all = reft.interventions;
  const config = {
    intervention_constant_sources: all.map(() => true),
    intervention_dimensions: all.map(i => i.size.width),
    intervention_types: all.map(i => `<class 'pyreft.interventions.${pyreftClasses[i.kind.name as PyreftKind]}'>`),
    mode: 'parallel',
    representations: all.map(({ site, size }) => [
      site.layer,
      site.component,
      'pos',
      1,
      size.rank,
      ...new Array<null>(9).fill(null),
    ]),
    sorted_keys: keys,
    transformers_version: '4.45.1',
  };
  files.set(pyreftConfigFile, new TextEncoder().encode(`${JSON.stringify(config, null, 2)}\n`));
  return files;
}

function nameInFile(kind: PyreftKind, name: string): string {
  if (name === rotation.base) return 'rotate_layer.parametrizations.weight.0.base';
  return kind === 'loreft' ? name.replace('learned_source.', '') : name;
}
