// What one interchange intervention is, as data, with every default filled in. pyvene's RepresentationConfig in
// camelCase.

import type { CausalLM } from '../models/causalLM.js';
import { checkSite, components, siteName, type Component, type Site } from '../models/sites.js';
import { orthogonalMaps, type OrthogonalMapName } from '../nn/orthogonal/maps.js';
import { interchangeKindByName, type InterchangeKindName, type InterchangeSizes } from './kinds.js';
import { checkPartition } from './unitLocations.js';

export interface InterchangeConfig {
  readonly kind: InterchangeKindName;
  readonly layer: number;
  /** Default block_output. */
  readonly component?: Component;
  /** One head of a component that has heads. */
  readonly head?: number;
  /** Rows of R, or principal components. Default: 1 for lowRankRotatedSpace, the width for pcaRotatedSpace. */
  readonly lowRankDimension?: number;
  /** Latents of an autoencoder. */
  readonly latentDim?: number;
  /** Only the first so many features are swapped, unless subspaces are chosen. Default all. */
  readonly interchangeDim?: number;
  /** Ranges [from, to) of features, which `subspaces` then counts. */
  readonly subspacePartition?: readonly (readonly [number, number])[];
  /** The subspaces of every run that names no others. */
  readonly subspaces?: readonly number[];
  /** Which source feeds it (parallel), or its place in the chain (serial). Default: its own place in the list. */
  readonly groupKey?: number;
  /** Interventions with the same key share parameters: the same kind, sizes and map, at any site of the same width. */
  readonly interventionLinkKey?: string;
  readonly orthogonal?: OrthogonalMapName;
  /**
   * T of learned masks. Default: where its annealing starts, 50 or a tenth of the width for boundlessRotatedSpace, 1
   * for sigmoid masks.
   */
  readonly temperature?: number;
  /** Standard deviation of noise. Default pyvene's 0.13462981581687927. */
  readonly noiseLevel?: number;
  /** Autoencoders: what they do not reconstruct stays as it was. pyvene replaces it too: false. Default true. */
  readonly keepError?: boolean;
  /** Default true; only kinds with trained parameters have any. */
  readonly trainable?: boolean;
  /** Of starting values and noise. Default 0. */
  readonly seed?: number;
}

export interface ResolvedInterchangeConfig {
  readonly kind: InterchangeKindName;
  readonly layer: number;
  readonly component: Component;
  readonly head: number | null;
  readonly lowRankDimension: number | null;
  readonly latentDim: number | null;
  readonly interchangeDim: number | null;
  readonly subspacePartition: readonly (readonly [number, number])[] | null;
  readonly subspaces: readonly number[] | null;
  readonly groupKey: number;
  readonly interventionLinkKey: string | null;
  readonly orthogonal: OrthogonalMapName;
  readonly temperature: number;
  readonly noiseLevel: number;
  readonly keepError: boolean;
  readonly trainable: boolean;
  readonly seed: number;
}

const pyveneNoiseLevel = 0.13462981581687927;

export const siteOf = ({
  layer,
  component,
  head,
}: Pick<ResolvedInterchangeConfig, 'layer' | 'component' | 'head'>): Site => ({
  layer,
  component,
  ...(head === null ? {} : { head }),
});

export function sizesOf(base: CausalLM, config: ResolvedInterchangeConfig): InterchangeSizes {
  const width = base.widthAt(config.component, config.head ?? undefined);
  return { width, rank: config.lowRankDimension ?? width, latents: config.latentDim ?? width };
}

/** Checks a configuration against a model. @throws RangeError naming the field, what was expected and what came */
export function resolveInterchange(
  base: CausalLM,
  config: InterchangeConfig,
  place: number,
): ResolvedInterchangeConfig {
  const kind = interchangeKindByName(config.kind);
  const what = `interchange[${place}] (${kind.name})`;
  const whole = (name: string, value: unknown, least: number, most: number): void => {
    if (
      value === null ||
      value === undefined ||
      (Number.isInteger(value) && (value as number) >= least && (value as number) <= most)
    )
      return;
    throw new RangeError(
      `${what}: ${name} must be a whole number from ${least}${most < Infinity ? ` to ${most}` : ''}, got ${String(value)}`,
    );
  };
  if (config.component !== undefined && !components.includes(config.component)) {
    throw new RangeError(
      `${what}: component '${String(config.component)}' is not known; known: ${components.join(', ')}`,
    );
  }
  let resolved: ResolvedInterchangeConfig = {
    kind: config.kind,
    layer: config.layer,
    component: config.component ?? 'block_output',
    head: config.head ?? null,
    lowRankDimension: config.lowRankDimension ?? (kind.name === 'lowRankRotatedSpace' ? 1 : null),
    latentDim: config.latentDim ?? null,
    interchangeDim: config.interchangeDim ?? null,
    subspacePartition: config.subspacePartition ?? null,
    subspaces: config.subspaces ?? null,
    groupKey: config.groupKey ?? place,
    interventionLinkKey: config.interventionLinkKey ?? null,
    orthogonal: config.orthogonal ?? 'householder',
    temperature: config.temperature ?? 1,
    noiseLevel: config.noiseLevel ?? pyveneNoiseLevel,
    keepError: config.keepError ?? true,
    trainable: config.trainable ?? true,
    seed: config.seed ?? 0,
  };
  const site = checkSite(siteOf(resolved), base.stacks);
  const sizes = sizesOf(base, resolved);
  const features = sizes[kind.features];
  resolved = { ...resolved, temperature: config.temperature ?? kind.annealing?.(sizes.width)[0] ?? 1 };
  if (kind.features !== 'rank' && resolved.lowRankDimension !== null)
    throw new RangeError(`${what}: lowRankDimension belongs to kinds of low rank`);
  if (kind.features !== 'latents' && resolved.latentDim !== null)
    throw new RangeError(`${what}: latentDim belongs to autoencoders`);
  if (kind.features === 'latents' && resolved.latentDim === null)
    throw new RangeError(`${what}: latentDim is missing, the number of latents`);
  whole(`lowRankDimension at ${siteName(site)}`, resolved.lowRankDimension, 1, sizes.width);
  whole('latentDim', resolved.latentDim, 1, Infinity);
  whole('interchangeDim', resolved.interchangeDim, 1, features);
  whole('groupKey', resolved.groupKey, 0, Infinity);
  whole('seed', resolved.seed, 0, Number.MAX_SAFE_INTEGER);
  if (!Object.hasOwn(orthogonalMaps, resolved.orthogonal)) {
    throw new RangeError(
      `${what}: orthogonal map '${String(resolved.orthogonal)}' is not known; known: ${Object.keys(orthogonalMaps).join(', ')}`,
    );
  }
  if (!(resolved.temperature > 0 && resolved.temperature < Infinity))
    throw new RangeError(`${what}: temperature must be above 0, got ${resolved.temperature}`);
  if (!(resolved.noiseLevel >= 0 && resolved.noiseLevel < Infinity))
    throw new RangeError(`${what}: noiseLevel must be 0 or more, got ${resolved.noiseLevel}`);
  if (resolved.subspacePartition) checkPartition(what, resolved.subspacePartition, features);
  return resolved;
}
