// What a set of edits is: kind, layers, positions, rank and the rest, with defaults and checks. Everything needed to
// build it again; what is trained is in intervention.ts. The zod schema also guards configurations read from disk.

import { z } from 'zod';
import { checkSite, components, stackOf, widthAt, type Component, type ModelSites } from '../models/sites.js';
import { orthogonalMapNames, type OrthogonalMapName } from '../nn/orthogonal/maps.js';
import { editActivations, type EditActivation } from './editOp.js';
import { dropoutTargets, type DropoutTarget } from './applyEdit.js';
import { kindByName, optionsOf } from './defineEdit.js';
import { isPlaced, wantedSpecs, type BiasOption, type ComposedKind, type EditOptions, type KindName } from './kinds.js';
import {
  checkNewTokens,
  formatPositions,
  parsePositions,
  type NewTokens,
  type PositionFunction,
  type Positions,
} from './positions.js';

export interface ReftConfig {
  /** In models of several stacks, the one whose layers are meant: 'encoder', 'decoder', 'vision'. */
  readonly stack?: string | undefined;
  /** A name, or what `defineEdit` gave. Default loreft. */
  readonly kind?: KindName | ComposedKind;
  /** Options the kind has of its own, `{ experts: 4 }`. */
  readonly kindOptions?: EditOptions;
  /** Needed but for `embeddings` and `final_norm`, which have one place. */
  readonly layers?: readonly number[] | number | 'all';
  /**
   * Of the prompt: `l1`, `f7+l7`, `all`, `0,3,-1`, numbers, `match:/re/`, `marker:text`, or a function of its ids.
   * Default l1. See positions.ts.
   */
  readonly positions?: string | readonly number[] | PositionFunction;
  /** Which new tokens are edited too. Default: all for positions 'all', else none. */
  readonly newTokens?: NewTokens;
  /** Default 4. */
  readonly rank?: number;
  /** One intervention a layer for the first and the last positions, instead of two. */
  readonly tied?: boolean;
  readonly component?: Component;
  /** Single heads of a component that has them, an intervention each. */
  readonly heads?: readonly number[] | null;
  readonly activation?: EditActivation;
  /**
   * Biases: all (true, the default), only those inside the activation ('inner': pyreft's addBias=False, noreft without
   * b2), or none.
   */
  readonly bias?: BiasOption;
  /** While training, the share of numbers that are set to 0. Default 0. */
  readonly dropout?: number;
  /**
   * Of what the edit adds ('difference', the default), or of the whole edited state ('state': as pyreft, for parity).
   */
  readonly dropoutOn?: DropoutTarget;
  /** c in h + c (edited - h). */
  readonly scale?: number;
  /** Trains c, one number for each intervention, from `scale` on. Default false. */
  readonly trainScale?: boolean;
  /**
   * How R is kept orthonormal (docs/orthogonal.md). 'torchHouseholder', or 'torch', follows PyTorch's parametrization,
   * with its d x d base.
   */
  readonly orthogonal?: OrthogonalMapName | 'torch';
  /**
   * Starts where nothing is changed yet: loreft with W = R and b = 0, direft with W2 = 0, and so on. consreft has no
   * such start.
   */
  readonly identityStart?: boolean;
  readonly seed?: number;
}

/** A configuration with everything filled in. */
export interface ResolvedReftConfig {
  readonly kind: KindName;
  readonly kindOptions: EditOptions;
  readonly layers: readonly number[];
  readonly positions: Positions;
  readonly newTokens: NewTokens;
  readonly rank: number;
  readonly tied: boolean;
  readonly stack?: string | undefined;
  readonly component: Component;
  readonly heads: readonly number[] | null;
  readonly activation: EditActivation;
  readonly bias: BiasOption;
  readonly dropout: number;
  readonly dropoutOn: DropoutTarget;
  readonly scale: number;
  readonly trainScale: boolean;
  readonly orthogonal: OrthogonalMapName;
  readonly identityStart: boolean;
  readonly seed: number;
}

const schema = z.strictObject({
  kind: z
    .union([
      z.string(),
      z.custom<ComposedKind>(k => typeof k === 'object' && k !== null && typeof (k as ComposedKind).name === 'string'),
    ])
    .default('loreft'),
  kindOptions: z.record(z.string(), z.union([z.number(), z.boolean()])).default({}),
  layers: z
    .union([z.literal('all'), z.number().int().nonnegative(), z.array(z.number().int().nonnegative()).min(1)])
    .optional(),
  positions: z
    .union([z.string(), z.array(z.number().int()), z.custom<PositionFunction>(f => typeof f === 'function')])
    .default('l1'),
  newTokens: z
    .custom<NewTokens>(v => checkNewTokens(v) === null, { error: issue => checkNewTokens(issue.input) ?? '' })
    .optional(),
  rank: z.number().int().positive().default(4),
  tied: z.boolean().default(false),
  stack: z.string().optional(),
  component: z.enum(components).default('block_output'),
  heads: z.array(z.number().int().nonnegative()).min(1).nullable().default(null),
  activation: z.enum(editActivations).optional(),
  bias: z.union([z.boolean(), z.literal('inner')]).default(true),
  dropout: z.number().min(0).lt(1).default(0),
  dropoutOn: z.enum(dropoutTargets).default('difference'),
  scale: z.number().default(1),
  trainScale: z.boolean().default(false),
  orthogonal: z.enum([...orthogonalMapNames, 'torch']).default('householder'),
  identityStart: z.boolean().default(false),
  seed: z.number().int().nonnegative().default(0),
});

/** Checks a configuration for a model of these sizes. */
export function resolveConfig(config: ReftConfig, model: ModelSites): ResolvedReftConfig {
  const parsed = schema.safeParse(config);
  if (!parsed.success) {
    throw new RangeError(
      `ReFT configuration: ${parsed.error.issues.map(i => `${i.path.join('.') || 'it'}: ${i.message}`).join('; ')}`,
    );
  }
  const c = parsed.data;
  const kind = kindByName(typeof c.kind === 'string' ? c.kind : c.kind.name);
  const kindOptions = optionsOf(kind, c.kindOptions);
  const activation = c.activation ?? (isPlaced(kind) ? 'linear' : kind.activation);
  const orthogonal = c.orthogonal === 'torch' ? 'torchHouseholder' : c.orthogonal;
  const stack = c.stack === undefined ? {} : { stack: c.stack };
  const sites = stackOf(stack, model, `stack '${c.stack}'`);
  const layerCount = sites.layers;
  const only = c.component === 'embeddings' ? 0 : c.component === 'final_norm' ? layerCount - 1 : null;
  if (c.layers === undefined && only === null)
    throw new RangeError(`layers: ${c.component} is in every layer; say in which`);
  const all = only === null ? Array.from({ length: layerCount }, (_, i) => i) : [only];
  const layers =
    c.layers === undefined || c.layers === 'all' ? all : typeof c.layers === 'number' ? [c.layers] : c.layers;
  for (const layer of layers)
    if (layer >= layerCount)
      throw new RangeError(`layers: ${layer} is out of range, the model has layers 0..${layerCount - 1}`);
  if (new Set(layers).size !== layers.length) throw new RangeError(`layers: [${layers.join(',')}] names a layer twice`);
  for (const layer of layers) {
    for (const head of c.heads ?? [undefined])
      checkSite({ ...stack, layer, component: c.component, ...(head === undefined ? {} : { head }) }, model);
  }
  if (c.heads && new Set(c.heads).size !== c.heads.length)
    throw new RangeError(`heads: [${c.heads.join(',')}] names a head twice`);
  const width = widthAt(c.component, sites, c.heads?.[0]);
  if (c.rank > width)
    throw new RangeError(`rank: ${c.rank} is more than the ${width} numbers of a hidden state at ${c.component}`);
  // Refuses options that give parameters no shape.
  wantedSpecs(kind, { width, rank: c.rank, options: kindOptions }, c.bias);
  if (c.identityStart && !kind.identity(activation)) {
    throw new RangeError(
      `identityStart: ${kind.name}${activation === 'linear' ? '' : ` with the activation ${activation}`} has no start that changes nothing`,
    );
  }
  const positions = parsePositions(c.positions);
  return {
    ...c,
    kind: kind.name,
    kindOptions,
    activation,
    orthogonal,
    layers,
    positions,
    newTokens: c.newTokens ?? (positions.type === 'all' ? 'all' : 'none'),
  };
}

/** The configuration as it is written to disk; `resolveConfig` reads it back. */
export function configToJSON(c: ResolvedReftConfig): Required<ReftConfig> {
  if (typeof c.newTokens === 'function') throw new Error('newTokens: a function cannot be written to a file');
  const json = { ...c, positions: formatPositions(c.positions) };
  // In one order, whatever was given and whatever filled in: the same edits are the same bytes.
  return Object.fromEntries(
    Object.keys(schema.shape).map(key => [key, json[key as keyof typeof json]]),
  ) as unknown as Required<ReftConfig>;
}
