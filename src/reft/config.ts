// What a set of edits is: kind, layers, positions, rank and the rest, with defaults and checks. Everything needed to build it again; what
// is trained is in intervention.ts. The zod schema also guards configurations read from disk.

import { z } from 'zod';
import { checkSite, components, widthAt, type Component, type SiteSizes } from '../models/sites.js';
import { editActivations, type EditActivation } from './editOp.js';
import { kindByName, type KindName, kinds } from './kinds.js';
import { checkNewTokens, formatPositions, parsePositions, type NewTokens, type PositionFunction, type Positions } from './positions.js';

export const orthogonalMapNames = ['householder', 'torch'] as const;
export type OrthogonalMapName = (typeof orthogonalMapNames)[number];

export interface ReftConfig {
  /** Default loreft. */
  readonly kind?: KindName;
  /** Needed but for `embeddings` and `final_norm`, which have one place. */
  readonly layers?: readonly number[] | number | 'all';
  /** Of the prompt: `l1`, `f7+l7`, `all`, `0,3,-1`, numbers, `match:/re/`, `marker:text`, or a function of its ids. Default l1. See positions.ts. */
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
  /** Biases of the linear maps. Default true. */
  readonly bias?: boolean;
  /** On what is added, while training. */
  readonly dropout?: number;
  /** c in h + c (edited - h). */
  readonly scale?: number;
  /** How R is kept orthonormal. 'torch' follows PyTorch's parametrization, with its d x d base. */
  readonly orthogonal?: OrthogonalMapName;
  /** Starts W at R and b at 0, so that training starts from the unchanged model (kinds with R, W and b). */
  readonly identityStart?: boolean;
  readonly seed?: number;
}

/** A configuration with everything filled in. */
export interface ResolvedReftConfig {
  readonly kind: KindName;
  readonly layers: readonly number[];
  readonly positions: Positions;
  readonly newTokens: NewTokens;
  readonly rank: number;
  readonly tied: boolean;
  readonly component: Component;
  readonly heads: readonly number[] | null;
  readonly activation: EditActivation;
  readonly bias: boolean;
  readonly dropout: number;
  readonly scale: number;
  readonly orthogonal: OrthogonalMapName;
  readonly identityStart: boolean;
  readonly seed: number;
}

const schema = z.strictObject({
  kind: z.string().default('loreft'),
  layers: z.union([z.literal('all'), z.number().int().nonnegative(), z.array(z.number().int().nonnegative()).min(1)]).optional(),
  positions: z.union([z.string(), z.array(z.number().int()), z.custom<PositionFunction>(f => typeof f === 'function')]).default('l1'),
  newTokens: z.custom<NewTokens>(v => checkNewTokens(v) === null, { error: issue => checkNewTokens(issue.input) ?? '' }).optional(),
  rank: z.number().int().positive().default(4),
  tied: z.boolean().default(false),
  component: z.enum(components).default('block_output'),
  heads: z.array(z.number().int().nonnegative()).min(1).nullable().default(null),
  activation: z.enum(editActivations).default('linear'),
  bias: z.boolean().default(true),
  dropout: z.number().min(0).lt(1).default(0),
  scale: z.number().default(1),
  orthogonal: z.enum(orthogonalMapNames).default('householder'),
  identityStart: z.boolean().default(false),
  seed: z.number().int().nonnegative().default(0),
});

/** Checks a configuration for a model of these sizes. */
export function resolveConfig(config: ReftConfig, sizes: SiteSizes): ResolvedReftConfig {
  const parsed = schema.safeParse(config);
  if (!parsed.success) {
    throw new RangeError(`ReFT configuration: ${parsed.error.issues.map(i => `${i.path.join('.') || 'it'}: ${i.message}`).join('; ')}`);
  }
  const c = parsed.data;
  const kind = kindByName(c.kind).name as KindName;
  const layerCount = sizes.layers;
  const only = c.component === 'embeddings' ? 0 : c.component === 'final_norm' ? layerCount - 1 : null;
  if (c.layers === undefined && only === null) throw new RangeError(`layers: ${c.component} is in every layer; say in which`);
  const all = only === null ? Array.from({ length: layerCount }, (_, i) => i) : [only];
  const layers = c.layers === undefined || c.layers === 'all' ? all : typeof c.layers === 'number' ? [c.layers] : c.layers;
  for (const layer of layers) if (layer >= layerCount) throw new RangeError(`layers: ${layer} is out of range, the model has layers 0..${layerCount - 1}`);
  if (new Set(layers).size !== layers.length) throw new RangeError(`layers: [${layers.join(',')}] names a layer twice`);
  for (const layer of layers) {
    for (const head of c.heads ?? [undefined]) checkSite({ layer, component: c.component, ...(head === undefined ? {} : { head }) }, sizes);
  }
  if (c.heads && new Set(c.heads).size !== c.heads.length) throw new RangeError(`heads: [${c.heads.join(',')}] names a head twice`);
  const width = widthAt(c.component, sizes, c.heads?.[0]);
  if (c.rank > width) throw new RangeError(`rank: ${c.rank} is more than the ${width} numbers of a hidden state at ${c.component}`);
  if (c.identityStart && !(kinds[kind].parameters as readonly { name: string }[]).some(p => p.name === 'W')) {
    throw new RangeError(`identityStart: ${kind} has no W that could start at R`);
  }
  if (c.identityStart && (kind !== 'loreft' || c.activation !== 'linear')) throw new RangeError(`identityStart: only loreft without an activation can start as the identity`);
  const positions = parsePositions(c.positions);
  return { ...c, kind, layers, positions, newTokens: c.newTokens ?? (positions.type === 'all' ? 'all' : 'none') };
}

/** The configuration as it is written to disk; `resolveConfig` reads it back. */
export function configToJSON(c: ResolvedReftConfig): Required<ReftConfig> {
  if (typeof c.newTokens === 'function') throw new Error('newTokens: a function cannot be written to a file');
  return { ...c, positions: formatPositions(c.positions) };
}
