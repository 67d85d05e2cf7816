// What the interventions of one link share: a kind, its sizes and its parameters, R held through an orthogonal map.
// Where it stands and what it reads is an intervention's business (interchangeModel.ts).

import { ParameterSet, type TrainedTensor } from '../adapt/parameterSet.js';
import { scope } from '../autograd/scope.js';
import { noGrad } from '../autograd/tape.js';
import type { Backend } from '../backends/backend.js';
import { orthogonalMaps, type OrthogonalMapName } from '../nn/orthogonal/maps.js';
import type { Tensor } from '../tensor/tensor.js';
import type { InterchangeKind, InterchangeParameterSpec, InterchangeSizes } from './kinds.js';

export interface InterchangeSpaceOptions {
  readonly id: string;
  readonly kind: InterchangeKind;
  readonly sizes: InterchangeSizes;
  readonly orthogonal: OrthogonalMapName;
  readonly temperature: number;
  readonly trainable: boolean;
  readonly seed: number;
  readonly backend: Backend;
  readonly dtype: 'f32' | 'f64';
}

export class InterchangeSpace {
  readonly id: string;
  readonly kind: InterchangeKind;
  readonly sizes: InterchangeSizes;
  /** T of learned masks; training lowers it. */
  temperature: number;
  private readonly parameterSet: ParameterSet;

  constructor(options: InterchangeSpaceOptions) {
    const { id, kind, sizes, orthogonal, temperature, trainable, seed, backend, dtype } = options;
    this.id = id;
    this.kind = kind;
    this.sizes = sizes;
    this.temperature = temperature;
    this.parameterSet = new ParameterSet(
      { id, kind: kind.name, map: orthogonalMaps[orthogonal], seed, backend, dtype },
      kind.parameters.map((spec, stream) => ({
        name: spec.name,
        shape: this.shapeOf(spec),
        start: spec.start,
        stream,
        fanIn: sizes.width,
        trained: spec.trained && trainable,
      })),
    );
  }

  /** How many features subspaces choose from. */
  get features(): number {
    return this.sizes[this.kind.features];
  }

  shapeOf(spec: InterchangeParameterSpec): number[] {
    return spec.shape.map(side => (side === 1 ? 1 : this.sizes[side]));
  }

  /** What is trained, R through its map. */
  trained(): TrainedTensor[] {
    return this.parameterSet.trained();
  }

  /** All parameters by their names in the formula, with R materialised. */
  parameters(): Record<string, Tensor> {
    return this.parameterSet.values();
  }

  /**
   * Replaces a parameter's values; R is made orthonormal, and its memory must be the host's. @throws RangeError naming
   * the parameter
   */
  set(name: string, value: Tensor): void {
    this.parameterSet.set(name, value);
  }

  /** Puts what has bounds back into them, after a step. */
  putBack(): void {
    const { bounds } = this.kind;
    if (!bounds) return;
    noGrad(() =>
      scope(() => {
        this.set(bounds.name, this.parameters()[bounds.name].clamp(...bounds.range));
      }),
    );
  }

  /** Rows [m, d] as features [m, features]. */
  encode(h: Tensor): Tensor {
    return this.kind.encode(h, this.parameters());
  }

  dispose(): void {
    this.parameterSet.dispose();
  }
}
