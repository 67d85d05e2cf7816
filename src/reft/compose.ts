// Trained sets put together on one row: stacked, added, interpolated, or as parts of one R; with a report on how far
// their subspaces overlap. What has no meaning is refused. Different sets on different rows are mixedEdits.ts's work.

import type { TrainingMode } from '../adapt/adapter.js';
import type { CausalLM } from '../models/causalLM.js';
import type { SiteEdit } from '../models/patch.js';
import { siteName } from '../models/sites.js';
import type { Tensor } from '../tensor/tensor.js';
import { noGrad } from '../autograd/tape.js';
import { EditedModel } from './editedModel.js';
import type { Intervention } from './intervention.js';
import { isPlaced } from './kinds.js';
import type { SequenceLayout } from './layout.js';
import { principalAngles } from './principalAngles.js';
import type { ReftModel } from './reftModel.js';
import type { RowOptionsFor } from './rowOptions.js';

/**
 * - stack: each set edits what the one before it left, in list order.
 * - add: the differences of all sets at a site are computed on the same state and added, times `weights` (default 1).
 * - interpolate: the same with weights that add to 1 (default: equal ones).
 * - partition: as add, for sets whose R are parts of one R: their subspaces must be orthogonal at every site they
 *   share.
 */
export type Composition = 'stack' | 'add' | 'interpolate' | 'partition';

/** How two sets lie to each other at a site they both edit. */
export interface Overlap {
  readonly site: string;
  /** Numbers of the sets, and the ids of their interventions. */
  readonly sets: readonly [number, number];
  readonly ids: readonly [string, string];
  /**
   * Principal angles between the subspaces they write to, in radians, rising: 0 is a shared direction, pi/2 none. Null
   * where a kind has no such subspace.
   */
  readonly angles: readonly number[] | null;
}

/** The least angle, in radians, at which subspaces still count as orthogonal: rounding of f32 stays far within it. */
const orthogonalWithin = 1e-3;

export class ComposedEdits extends EditedModel {
  readonly base: CausalLM;
  readonly sets: readonly ReftModel[];
  readonly how: Composition;
  readonly weights: readonly number[];
  readonly overlaps: readonly Overlap[];

  /** Use `compose`. */
  constructor(sets: readonly ReftModel[], how: Composition, weights: readonly number[], overlaps: readonly Overlap[]) {
    super();
    this.base = sets[0].base;
    this.sets = sets;
    this.how = how;
    this.weights = weights;
    this.overlaps = overlaps;
  }

  edits(layout: SequenceLayout, training?: TrainingMode, rows: RowOptionsFor = {}): SiteEdit[] {
    const each = this.sets.map(set => set.edits(layout, training, rows));
    if (this.how === 'stack') return each.flat();
    const sites = new Map<string, { edit: SiteEdit; weight: number }[]>();
    each.forEach((edits, n) =>
      edits.forEach(edit => {
        const name = siteName(edit.site);
        sites.set(name, [...(sites.get(name) ?? []), { edit, weight: this.weights[n] }]);
      }),
    );
    return [...sites.values()].map(parts => added(parts));
  }

  /** The overlaps as lines for people. */
  report(): string {
    const degrees = (angle: number): string => `${((angle * 180) / Math.PI).toFixed(1)}°`;
    return this.overlaps
      .map(
        ({ site, sets: [a, b], angles }) =>
          `${site}: sets ${a} and ${b}: ` +
          (angles === null
            ? 'no subspace to compare'
            : angles.length === 0
              ? 'nothing shared'
              : `principal angles ${angles.map(degrees).join(', ')}`),
      )
      .join('\n');
  }
}

/** h + sum of w (edited - h), every difference taken at the same h. */
function added(parts: readonly { edit: SiteEdit; weight: number }[]): SiteEdit {
  const { edit: first } = parts[0];
  if (parts.length === 1 && parts[0].weight === 1) return first;
  return {
    site: first.site,
    about: {
      id: parts.map(p => p.edit.about?.id).join('+'),
      kind: parts.map(p => `${p.weight} ${p.edit.about?.kind}`).join(' + '),
    },
    apply: (h, rows) => parts.reduce((sum, { edit, weight }) => sum.add(edit.apply(h, rows).sub(h).mul(weight)), h),
  };
}

/**
 * Puts trained sets on one model together. @throws RangeError where a combination has no meaning: sets of different
 * models, weights that do not fit, parts of one R that are not orthogonal
 */
export async function compose(
  sets: readonly ReftModel[],
  how: Composition,
  options: { weights?: readonly number[] } = {},
): Promise<ComposedEdits> {
  if (sets.length === 0) throw new RangeError('compose: no sets were given');
  for (const set of sets)
    if (set.base !== sets[0].base)
      throw new RangeError(`compose: the sets belong to different models, ${sets[0].base.name} and ${set.base.name}`);
  if (new Set(sets).size !== sets.length) throw new RangeError('compose: a set is named twice');
  const weights = checkedWeights(sets.length, how, options.weights);
  const overlaps = await overlapsOf(sets);
  if (how === 'partition') {
    for (const { id, kind } of sets.flatMap(set => set.interventions))
      if (!hasRotation(kind)) throw new RangeError(`compose: ${id}: ${kind.name} has no R that could be a part of one`);
    for (const {
      site,
      sets: [a, b],
      angles,
    } of overlaps) {
      const least = Math.min(...(angles ?? []));
      if (least >= Math.PI / 2 - orthogonalWithin) continue;
      throw new RangeError(
        `compose: ${site}: sets ${a} and ${b} share directions (smallest principal angle ${((least * 180) / Math.PI).toFixed(2)}°), so they are not parts ` +
          `of one R; 'stack' or 'add' combine them all the same`,
      );
    }
  }
  return new ComposedEdits(sets, how, weights, overlaps);
}

function checkedWeights(count: number, how: Composition, given: readonly number[] | undefined): readonly number[] {
  if (given && (how === 'stack' || how === 'partition'))
    throw new RangeError(`compose: weights have no meaning for '${how}'; set the scale of the sets' interventions`);
  const weights = given ?? new Array<number>(count).fill(how === 'interpolate' ? 1 / count : 1);
  if (weights.length !== count || !weights.every(Number.isFinite))
    throw new RangeError(`compose: expected ${count} finite weights, got [${weights.join(', ')}]`);
  const sum = weights.reduce((a, b) => a + b, 0);
  if (how === 'interpolate' && Math.abs(sum - 1) > 1e-6)
    throw new RangeError(`compose: weights of 'interpolate' must add to 1, [${weights.join(', ')}] add to ${sum}`);
  return weights;
}

const hasRotation = (kind: Intervention['kind']): boolean =>
  isPlaced(kind) && kind.parameters.some(p => p.name === 'R');

async function overlapsOf(sets: readonly ReftModel[]): Promise<Overlap[]> {
  const result: Overlap[] = [];
  for (let a = 0; a < sets.length; a++) {
    for (let b = a + 1; b < sets.length; b++) {
      for (const x of sets[a].interventions) {
        for (const y of sets[b].interventions) {
          if (siteName(x.site) !== siteName(y.site)) continue;
          const [P, Q] = [written(x), written(y)];
          const angles = P && Q ? principalAngles(await P.data(), P.shape, await Q.data(), Q.shape) : null;
          result.push({ site: siteName(x.site), sets: [a, b], ids: [x.id, y.id], angles });
        }
      }
    }
  }
  return result;
}

/** The rows an edit adds multiples of: [r, d]. */
function written(intervention: Intervention): Tensor | null {
  if (!isPlaced(intervention.kind)) return null;
  const { P } = noGrad(() => intervention.bank());
  return P.reshape(P.shape.slice(1));
}
