// What a set of edits is: kind, layers, positions, rank and the rest, with defaults and checks. Everything needed to build it again; what
// is trained is in intervention.ts. The zod schema also guards configurations read from disk.

import { z } from 'zod';
import { components, type Component } from '../models/context.js';
import { editActivations, type EditActivation } from './editOp.js';
import { kindByName, type KindName, kinds } from './kinds.js';
import { formatPositions, parsePositions, type Positions } from './positions.js';

export const orthogonalMapNames = ['householder', 'torch'] as const;
export type OrthogonalMapName = (typeof orthogonalMapNames)[number];

export interface ReftConfig {
  /** Default loreft. */
  readonly kind?: KindName;
  readonly layers: readonly number[] | number | 'all';
  /** `l1`, `f7+l7`, `all`, `0,3,-1`, or numbers. Default l1. */
  readonly positions?: string | readonly number[];
  /** Default 4. */
  readonly rank?: number;
  /** One intervention a layer for the first and the last positions, instead of two. */
  readonly tied?: boolean;
  readonly component?: Component;
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
  readonly rank: number;
  readonly tied: boolean;
  readonly component: Component;
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
  layers: z.union([z.literal('all'), z.number().int().nonnegative(), z.array(z.number().int().nonnegative()).min(1)]),
  positions: z.union([z.string(), z.array(z.number().int())]).default('l1'),
  rank: z.number().int().positive().default(4),
  tied: z.boolean().default(false),
  component: z.enum(components).default('block_output'),
  activation: z.enum(editActivations).default('linear'),
  bias: z.boolean().default(true),
  dropout: z.number().min(0).lt(1).default(0),
  scale: z.number().default(1),
  orthogonal: z.enum(orthogonalMapNames).default('householder'),
  identityStart: z.boolean().default(false),
  seed: z.number().int().nonnegative().default(0),
});

/** Checks a configuration for a model of `layerCount` layers whose hidden states at the component have `width` numbers. */
export function resolveConfig(config: ReftConfig, layerCount: number, widthAt: (component: Component) => number): ResolvedReftConfig {
  const parsed = schema.safeParse(config);
  if (!parsed.success) {
    throw new RangeError(`ReFT configuration: ${parsed.error.issues.map(i => `${i.path.join('.') || 'it'}: ${i.message}`).join('; ')}`);
  }
  const c = parsed.data;
  const kind = kindByName(c.kind).name as KindName;
  const layers = c.layers === 'all' ? Array.from({ length: layerCount }, (_, i) => i) : typeof c.layers === 'number' ? [c.layers] : c.layers;
  for (const layer of layers) if (layer >= layerCount) throw new RangeError(`layers: ${layer} is out of range, the model has layers 0..${layerCount - 1}`);
  if (new Set(layers).size !== layers.length) throw new RangeError(`layers: [${layers.join(',')}] names a layer twice`);
  const width = widthAt(c.component);
  if (c.rank > width) throw new RangeError(`rank: ${c.rank} is more than the ${width} numbers of a hidden state at ${c.component}`);
  if (c.identityStart && !(kinds[kind].parameters as readonly { name: string }[]).some(p => p.name === 'W')) {
    throw new RangeError(`identityStart: ${kind} has no W that could start at R`);
  }
  if (c.identityStart && (kind !== 'loreft' || c.activation !== 'linear')) throw new RangeError(`identityStart: only loreft without an activation can start as the identity`);
  return { ...c, kind, layers, positions: parsePositions(c.positions) };
}

/** The configuration as it is written to disk; `resolveConfig` reads it back. */
export function configToJSON(c: ResolvedReftConfig): Required<ReftConfig> {
  return { ...c, positions: formatPositions(c.positions) };
}
