// One intervention: its trained tensors at one site, and the edit they make. R is held through an orthogonal map, so
// that any step of any optimizer leaves it orthonormal. Which tokens it edits is decided in layout.ts; what the edit
// computes, in applyEdit.ts.

import { keep, scope } from '../autograd/scope.js';
import { noGrad, shouldRecord } from '../autograd/tape.js';
import type { Backend } from '../backends/backend.js';
import type { Site } from '../models/sites.js';
import {
  cayley,
  compactHouseholder,
  matrixExponential,
  polarRetraction,
  qrRetraction,
  torchHouseholder,
  type OrthogonalMap,
} from '../nn/orthogonal/maps.js';
import { linearInit, orthogonalInit } from '../nn/init.js';
import { create } from '../tensor/create.js';
import { hostBackend } from '../devices.js';
import type { Tensor } from '../tensor/tensor.js';
import { applyEdit, bankOf, type EditedRows, type EditSettings } from './applyEdit.js';
import type { ResolvedReftConfig, OrthogonalMapName } from './config.js';
import { kindByName, optionsOf } from './defineEdit.js';
import type { EditBank } from './editOp.js';
import { allSpecs, wantedSpecs, type EditKind, type EditSize, type ParameterSpec } from './kinds.js';
import type { Side } from './positions.js';

export const orthogonalMaps: Readonly<Record<OrthogonalMapName, OrthogonalMap>> = {
  householder: compactHouseholder,
  torchHouseholder,
  cayley,
  exponential: matrixExponential,
  qr: qrRetraction,
  polar: polarRetraction,
};

/**
 * How far the R of a file may be from orthonormal rows to be taken as it is while nothing trains it: rounding of f32.
 */
const takenAsGiven = 1e-5;

type ConfigOfParameters = Pick<ResolvedReftConfig, 'kind' | 'rank' | 'kindOptions' | 'bias' | 'trainScale'>;

/**
 * The parameters of an intervention on hidden states of `width` numbers, in order. @throws RangeError where they cannot
 * be
 */
export function parameterSpecs(config: ConfigOfParameters, width: number): readonly ParameterSpec[] {
  const kind = kindByName(config.kind);
  const size = { width, rank: config.rank, options: optionsOf(kind, config.kindOptions) };
  const scale: ParameterSpec = { name: 'scale', shape: [1], start: 'ones' };
  return [...wantedSpecs(kind, size, config.bias), ...(config.trainScale ? [scale] : [])];
}

/** An orthogonal map's parameters, and the rotation they gave for given versions of them. */
interface Rotation {
  parameters: Record<string, Tensor>;
  cached: { readonly versions: string; readonly R: Tensor } | null;
}

export interface TrainedTensor {
  /** `block_output/15.W`, or `block_output/15.R.<name>` for what the orthogonal map holds. */
  readonly name: string;
  readonly tensor: Tensor;
  /** Part of an orthogonal parametrization: never decayed. */
  readonly orthogonal: boolean;
}

export class Intervention {
  /** `block_output/15`, with `#1` for the second of an untied pair. */
  readonly id: string;
  readonly site: Site;
  readonly side: Side;
  readonly kind: EditKind;
  readonly config: ResolvedReftConfig;
  /** Off, the hidden states pass unchanged. */
  enabled = true;
  /** c in h + c (edited - h), times the trained scale where there is one. */
  scale: number;
  readonly map: OrthogonalMap;
  readonly size: EditSize;
  private readonly target: { readonly dtype: 'f32' | 'f64'; readonly backend: Backend };
  private readonly specs: readonly ParameterSpec[];
  private readonly plain = new Map<string, Tensor>();
  private readonly rotations = new Map<string, Rotation>();

  /** `number` is its place in its set: those of one seed start from streams of their own. */
  constructor(options: {
    id: string;
    site: Site;
    side: Side;
    config: ResolvedReftConfig;
    width: number;
    number: number;
    backend: Backend;
    dtype: 'f32' | 'f64';
  }) {
    const { config, width, number, backend, dtype } = options;
    this.id = options.id;
    this.site = options.site;
    this.side = options.side;
    this.config = config;
    this.scale = config.trainScale ? 1 : config.scale;
    this.kind = kindByName(config.kind);
    this.size = { width, rank: config.rank, options: optionsOf(this.kind, config.kindOptions) };
    this.map = orthogonalMaps[config.orthogonal];
    this.target = { dtype, backend };
    this.specs = parameterSpecs(config, width);
    const all = allSpecs(this.kind, this.size);
    for (const spec of this.specs) {
      const stream = number * all.length + all.findIndex(s => s.name === spec.name);
      const start = { seed: config.seed, stream, dtype, backend };
      if (spec.start === 'orthogonal') {
        scope(() =>
          this.setRotation(
            spec.name,
            orthogonalInit(spec.shape as [number, number], { ...start, backend: hostBackend(backend) }),
          ),
        );
      } else this.plain.set(spec.name, keep(startOf(spec, config.scale, width, start)).requireGrad());
    }
    if (config.identityStart) this.startAsIdentity();
  }

  private startAsIdentity(): void {
    const from = Object.entries(this.kind.identity(this.config.activation) ?? {});
    noGrad(() =>
      scope(() => {
        for (const [name, value] of from) {
          const tensor = this.plain.get(name);
          if (!tensor) continue; // a bias that is left out
          const source = value === 'zeros' ? create.zeros(tensor.shape, this.target) : this.parameters()[value.copy];
          assign(tensor, source, `${this.id}.${name}`);
        }
      }),
    );
  }

  /** Trained tensors, R's through its map. */
  trained(): TrainedTensor[] {
    const rotations = this.rotationTensors()
      .filter(({ tensor }) => tensor.requiresGrad)
      .map(t => ({ ...t, orthogonal: true }));
    return [...rotations, ...this.plainState().map(t => ({ ...t, orthogonal: false }))];
  }

  /** Everything that decides the next step, trained or not (a map's base): for bit-equal resuming. */
  state(): { name: string; tensor: Tensor }[] {
    return [...this.rotationTensors(), ...this.plainState()];
  }

  private rotationTensors(): { name: string; tensor: Tensor }[] {
    return [...this.rotations].flatMap(([parameter, { parameters }]) =>
      Object.entries(parameters).map(([name, tensor]) => ({ name: `${this.id}.${parameter}.${name}`, tensor })),
    );
  }

  private plainState(): { name: string; tensor: Tensor }[] {
    return [...this.plain].map(([name, tensor]) => ({ name: `${this.id}.${name}`, tensor }));
  }

  /** The parameters by their names in the formula, with R materialised, or as it is in `rotations` (rotations.ts). */
  parameters(rotations: Readonly<Record<string, Tensor>> = {}): Record<string, Tensor> {
    return Object.fromEntries(
      this.specs.map(({ name }) => [name, this.plain.get(name) ?? rotations[name] ?? this.rotation(name)]),
    );
  }

  /** Numbers in the formula's parameters: 2dr + r for loreft. */
  get parameterCount(): number {
    return this.specs.reduce((n, { shape }) => n + shape.reduce((a, b) => a * b, 1), 0);
  }

  /**
   * Replaces a parameter's values; R is projected into its map, and must lie in memory of the host's (see
   * `hostBackend`).
   */
  set(name: string, value: Tensor): void {
    if (this.rotations.has(name)) {
      const pinned = deviation(value) <= takenAsGiven ? value.dataSync() : null;
      this.setRotation(name, value);
      // Until it is trained, R is the given one to the bit, not what its reflections round to.
      if (pinned) {
        const rotation = this.rotations.get(name) as Rotation;
        rotation.cached = {
          versions: versionsOf(rotation.parameters),
          R: keep(create.from(pinned, value.shape, this.target)),
        };
      }
      return;
    }
    const tensor = this.plain.get(name);
    if (!tensor) throw new RangeError(`${this.id}: ${this.kind.name} has no parameter '${name}'`);
    assign(tensor, value, `${this.id}.${name}`);
  }

  /** Puts back what `state` gave. */
  setState(name: string, value: Tensor): void {
    const found = this.state().find(s => s.name === name);
    if (!found) throw new RangeError(`${this.id} has no state '${name}'`);
    assign(found.tensor, value, name);
  }

  /** R [r, d]: on the tape while training, kept from call to call while not. */
  private rotation(name: string): Tensor {
    const rotation = this.rotations.get(name);
    if (!rotation) throw new Error(`${this.id}: ${this.kind.name} has no ${name}`);
    const { parameters } = rotation;
    const versions = versionsOf(parameters);
    if (rotation.cached && rotation.cached.versions !== versions) dropCache(rotation);
    if (shouldRecord(Object.values(parameters))) return this.map.rotation(parameters);
    rotation.cached ??= { versions, R: keep(scope(() => this.map.rotation(parameters))) };
    return rotation.cached.R;
  }

  private setRotation(name: string, R: Tensor): void {
    scope(() => {
      const { parameters } = this.map.initial(R, this.target);
      const rotation = this.rotations.get(name);
      if (rotation) {
        dropCache(rotation);
        for (const [own, t] of Object.entries(rotation.parameters))
          assign(t, parameters[own], `${this.id}.${name}.${own}`);
      } else {
        for (const t of Object.values(parameters)) keep(t);
        this.rotations.set(name, { parameters, cached: null });
      }
    });
  }

  /** The torch map's own parameters (base [d, d], original [d, r]), for runs that must follow PyTorch step by step. */
  setRotationParameters(parameters: Record<string, Tensor>, name = 'R'): void {
    const rotation = this.rotations.get(name);
    if (!rotation) throw new RangeError(`${this.id}: ${this.kind.name} has no ${name}`);
    dropCache(rotation);
    for (const t of Object.values(parameters)) keep(t);
    rotation.parameters = parameters;
  }

  /** What the orthogonal map holds for R. */
  get rotationState(): Readonly<Record<string, Tensor>> {
    return this.rotations.get('R')?.parameters ?? {};
  }

  /** What the orthogonal map holds for each parameter it keeps orthonormal. */
  get rotationStates(): ReadonlyMap<string, Readonly<Record<string, Tensor>>> {
    return new Map([...this.rotations].map(([name, { parameters }]) => [name, parameters]));
  }

  private settings(rotations?: Readonly<Record<string, Tensor>>): EditSettings {
    return {
      kind: this.kind,
      size: this.size,
      activation: this.config.activation,
      parameters: this.parameters(rotations),
    };
  }

  /**
   * The bank of one slot for the edit op: matrices [1, r, d], vectors [1, r]. Kinds that are compositions have none.
   */
  bank(): EditBank {
    return bankOf(this.settings());
  }

  /**
   * h [.., d] with the given rows edited: h + c (edited - h), c the product of `scale`, the trained scale and the rows'
   * own. `rotations` stands for what the orthogonal map would compute.
   */
  apply(h: Tensor, rows: EditedRows, rotations?: Readonly<Record<string, Tensor>>): Tensor {
    const settings = this.settings(rotations);
    const m = rows.indices.length;
    const { scale: trained } = this.config.trainScale ? settings.parameters : {};
    let scale = rows.scale;
    if (trained) scale = scale ? scale.mul(trained) : trained.expand([m]);
    if (this.scale !== 1)
      scale = scale ? scale.mul(this.scale) : create.full([m], this.scale, { dtype: h.dtype, backend: h.backend });
    return applyEdit(h, settings, { ...rows, ...(scale ? { scale } : {}) });
  }
}

const versionsOf = (parameters: Readonly<Record<string, Tensor>>): string =>
  Object.values(parameters)
    .map(t => t.storage.version)
    .join(',');

function dropCache(rotation: Rotation): void {
  rotation.cached?.R.storage.dispose();
  rotation.cached = null;
}

/** The value a parameter starts with, that of the trained scale being the configuration's. */
function startOf(
  spec: ParameterSpec,
  scale: number,
  width: number,
  options: { seed: number; stream: number; dtype: 'f32' | 'f64'; backend: Backend },
): Tensor {
  const { shape, start } = spec;
  if (start === 'zeros') return create.zeros(shape, options);
  if (start === 'ones') return create.full(shape, spec.name === 'scale' ? scale : 1, options);
  if (start === 'unit') return create.uniform(shape, options);
  return linearInit(shape, { ...options, fanIn: shape.length > 1 ? shape[shape.length - 1] : width });
}

/** max |R R^T - I|, computed on the host. */
export function deviation(R: Tensor): number {
  const [r, d] = R.shape;
  const data = R.detach().dataSync();
  let worst = 0;
  for (let i = 0; i < r; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = i === j ? -1 : 0;
      for (let k = 0; k < d; k++) sum += data[i * d + k] * data[j * d + k];
      if (!(Math.abs(sum) <= worst)) worst = Math.abs(sum);
    }
  }
  return worst;
}

/** Copies a value into a trained tensor, in place. */
export function assign(target: Tensor, value: Tensor, name: string): void {
  if (target.shape.join() !== value.shape.join())
    throw new RangeError(`${name}: expected shape [${target.shape.join(',')}], got [${value.shape.join(',')}]`);
  target.storage.version++;
  scope(() => {
    const { dtype, backend } = target;
    const near = value.backend === backend ? value : create.from(value.dataSync(), value.shape, { dtype, backend });
    const from = near.dtype === dtype ? near : near.to(dtype);
    backend.kernels.copy({ input: from.view(name), output: target.view(name) });
  });
}
