// What the interventions of one link share: a kind, its sizes and its parameters, R held through an orthogonal map.
// Where it stands and what it reads is an intervention's business (interchangeModel.ts).

import { keep, scope } from '../autograd/scope.js';
import { noGrad, shouldRecord } from '../autograd/tape.js';
import type { Backend } from '../backends/backend.js';
import { linearInit, orthogonalInit } from '../nn/init.js';
import type { OrthogonalMap } from '../nn/orthogonal/maps.js';
import { create } from '../tensor/create.js';
import { hostBackend } from '../devices.js';
import { formatShape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { OrthogonalMapName } from '../reft/config.js';
import { assign, orthogonalMaps, type TrainedTensor } from '../reft/intervention.js';
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
  private readonly map: OrthogonalMap;
  private readonly options: InterchangeSpaceOptions;
  private readonly plain = new Map<string, Tensor>();
  private rotation: Record<string, Tensor> = {};
  private cached: { versions: string; R: Tensor } | null = null;

  constructor(options: InterchangeSpaceOptions) {
    this.options = options;
    this.id = options.id;
    this.kind = options.kind;
    this.sizes = options.sizes;
    this.temperature = options.temperature;
    this.map = orthogonalMaps[options.orthogonal];
    const { seed, backend, dtype, trainable } = options;
    this.kind.parameters.forEach((spec, stream) => {
      const shape = this.shapeOf(spec);
      if (spec.start === 'orthogonal') {
        scope(() => {
          this.setRotation(
            orthogonalInit(shape as [number, number], { seed, stream, dtype, backend: hostBackend(backend) }),
          );
        });
        return;
      }
      const value = keep(starting(spec, shape, { seed, stream, dtype, backend }, this.sizes.width));
      this.plain.set(spec.name, value.requireGrad(spec.trained && trainable));
    });
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
    const rotation = Object.entries(this.rotation)
      .filter(([, t]) => t.requiresGrad)
      .map(([name, tensor]) => ({ name: `${this.id}.R.${name}`, tensor, orthogonal: true }));
    const plain = [...this.plain]
      .filter(([, t]) => t.requiresGrad)
      .map(([name, tensor]) => ({ name: `${this.id}.${name}`, tensor, orthogonal: false }));
    return [...rotation, ...plain];
  }

  /** All parameters by their names in the formula, with R materialised. */
  parameters(): Record<string, Tensor> {
    return Object.fromEntries(
      this.kind.parameters.map(({ name }) => [name, name === 'R' ? this.R() : (this.plain.get(name) as Tensor)]),
    );
  }

  /**
   * Replaces a parameter's values; R is made orthonormal, and its memory must be the host's. @throws RangeError naming
   * the parameter
   */
  set(name: string, value: Tensor): void {
    const spec = this.kind.parameters.find(p => p.name === name);
    if (!spec) throw new RangeError(`${this.id}: ${this.kind.name} has no parameter '${name}'`);
    const shape = this.shapeOf(spec);
    if (formatShape(value.shape) !== formatShape(shape)) {
      throw new RangeError(`${this.id}.${name}: expected shape ${formatShape(shape)}, got ${formatShape(value.shape)}`);
    }
    if (name === 'R') this.setRotation(value);
    else assign(this.plain.get(name) as Tensor, value, `${this.id}.${name}`);
  }

  /** Puts what has bounds back into them, after a step. */
  putBack(): void {
    const { bounds } = this.kind;
    if (!bounds) return;
    const tensor = this.plain.get(bounds.name) as Tensor;
    noGrad(() =>
      scope(() => {
        assign(tensor, tensor.clamp(...bounds.range), `${this.id}.${bounds.name}`);
      }),
    );
  }

  /** Rows [m, d] as features [m, features]. */
  encode(h: Tensor): Tensor {
    return this.kind.encode(h, this.parameters());
  }

  /** R: on the tape while it is trained, kept from call to call while not. */
  private R(): Tensor {
    const parameters = this.rotation;
    if (shouldRecord(Object.values(parameters))) return this.map.rotation(parameters);
    const versions = Object.values(parameters)
      .map(t => t.storage.version)
      .join();
    if (this.cached?.versions !== versions) {
      this.dropCache();
      this.cached = { versions, R: keep(scope(() => this.map.rotation(parameters))) };
    }
    return this.cached?.R as Tensor;
  }

  private dropCache(): void {
    this.cached?.R.storage.dispose();
    this.cached = null;
  }

  private setRotation(R: Tensor): void {
    this.dropCache();
    const { dtype, backend, trainable } = this.options;
    scope(() => {
      const { parameters } = this.map.initial(R, { dtype, backend });
      if (Object.keys(this.rotation).length > 0) {
        for (const [name, t] of Object.entries(this.rotation)) assign(t, parameters[name], `${this.id}.R.${name}`);
        return;
      }
      for (const t of Object.values(parameters)) if (keep(t).requiresGrad) t.requireGrad(trainable);
      this.rotation = parameters;
    });
  }

  dispose(): void {
    this.dropCache();
    for (const t of [...this.plain.values(), ...Object.values(this.rotation)]) t.storage.dispose();
  }
}

function starting(
  { start }: InterchangeParameterSpec,
  shape: readonly number[],
  options: { seed: number; stream: number; dtype: 'f32' | 'f64'; backend: Backend },
  width: number,
): Tensor {
  if (typeof start === 'number') return create.full(shape, start, options);
  if (start === 'linear') return linearInit(shape, { ...options, fanIn: width });
  const data = new Float64Array(shape[0] * shape[1]);
  for (let i = 0; i < Math.min(shape[0], shape[1]); i++) data[i * shape[1] + i] = 1;
  return create.from(data, [...shape], { dtype: options.dtype, backend: options.backend });
}
