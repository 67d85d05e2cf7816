// One intervention: its trained tensors at one site, and the edit-op bank they give. R is held through an orthogonal map, so that any step
// of any optimizer leaves it orthonormal. Which tokens it edits is decided in layout.ts.

import { keep, scope } from '../autograd/scope.js';
import { noGrad, shouldRecord } from '../autograd/tape.js';
import type { Backend } from '../backends/backend.js';
import type { Site } from '../models/sites.js';
import { compactHouseholder, torchHouseholder, type OrthogonalMap } from '../nn/orthogonal.js';
import { linearInit, orthogonalInit } from '../nn/init.js';
import { create } from '../tensor/create.js';
import { hostBackend } from '../tensor/device.js';
import type { Tensor } from '../tensor/tensor.js';
import type { ResolvedReftConfig, OrthogonalMapName } from './config.js';
import type { EditBank } from './editOp.js';
import { kinds, type EditKind } from './kinds.js';
import type { Side } from './positions.js';

export const orthogonalMaps: Record<OrthogonalMapName, OrthogonalMap> = { householder: compactHouseholder, torch: torchHouseholder };

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
  /** c in h + c (edited - h). */
  scale: number;
  private readonly map: OrthogonalMap;
  private readonly target: { readonly dtype: 'f32' | 'f64'; readonly backend: Backend };
  private readonly plain = new Map<string, Tensor>();
  private rotationParameters: Record<string, Tensor> | null = null;
  private cached: { versions: string; R: Tensor } | null = null;

  constructor(options: { id: string; site: Site; side: Side; config: ResolvedReftConfig; width: number; seed: number; backend: Backend; dtype: 'f32' | 'f64' }) {
    const { config, width, backend, dtype } = options;
    this.id = options.id;
    this.site = options.site;
    this.side = options.side;
    this.config = config;
    this.scale = config.scale;
    this.kind = kinds[config.kind];
    this.map = orthogonalMaps[config.orthogonal];
    this.target = { dtype, backend };
    this.kind.parameters.forEach((spec, stream) => {
      if (spec.bias && !config.bias) return;
      const shape = spec.shape === 'matrix' ? [config.rank, width] : [config.rank];
      if (spec.start === 'orthogonal') {
        scope(() => this.setRotation(orthogonalInit(shape as [number, number], { seed: options.seed, stream, dtype, backend: hostBackend(backend) })));
        return;
      }
      const start = { seed: options.seed, stream, dtype, backend };
      const value = spec.start === 'unit' ? create.uniform(shape, start) : linearInit(shape, { ...start, fanIn: width });
      this.plain.set(spec.name, keep(value).requireGrad());
    });
    if (config.identityStart) {
      noGrad(() => scope(() => {
        assign(this.plain.get('W') as Tensor, this.rotation(), `${this.id}.W`);
        if (config.bias) this.set('b', create.zeros([config.rank], { dtype, backend }));
      }));
    }
  }

  /** Trained tensors, R's through its map. */
  trained(): TrainedTensor[] {
    const rotation = Object.entries(this.rotationParameters ?? {}).filter(([, t]) => t.requiresGrad)
      .map(([name, tensor]) => ({ name: `${this.id}.R.${name}`, tensor, orthogonal: true }));
    return [...rotation, ...[...this.plain].map(([name, tensor]) => ({ name: `${this.id}.${name}`, tensor, orthogonal: false }))];
  }

  /** Everything that decides the next step, trained or not (a map's base): for bit-equal resuming. */
  state(): { name: string; tensor: Tensor }[] {
    const rotation = Object.entries(this.rotationParameters ?? {}).map(([name, tensor]) => ({ name: `${this.id}.R.${name}`, tensor }));
    return [...rotation, ...[...this.plain].map(([name, tensor]) => ({ name: `${this.id}.${name}`, tensor }))];
  }

  /** The parameters by their names in the formula, with R materialised. */
  parameters(): Record<string, Tensor> {
    const result: Record<string, Tensor> = {};
    for (const { name } of this.kind.parameters) {
      const tensor = name === 'R' ? this.rotation() : this.plain.get(name);
      if (tensor) result[name] = tensor;
    }
    return result;
  }

  /** Numbers in the formula's parameters: 2dr + r for loreft. */
  get parameterCount(): number {
    return noGrad(() => Object.values(this.parameters()).reduce((n, t) => n + t.size, 0));
  }

  /** Replaces a parameter's values; R is projected into its map, and must lie in memory of the host's (see `hostBackend`). */
  set(name: string, value: Tensor): void {
    if (name === 'R') {
      this.setRotation(value);
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
  private rotation(): Tensor {
    const parameters = this.rotationParameters;
    if (!parameters) throw new Error(`${this.id}: ${this.kind.name} has no R`);
    const versions = Object.values(parameters).map(t => t.storage.version).join(',');
    if (this.cached && this.cached.versions !== versions) this.dropCache();
    if (shouldRecord(Object.values(parameters))) return this.map.rotation(parameters);
    this.cached ??= { versions, R: keep(scope(() => this.map.rotation(parameters))) };
    return this.cached.R;
  }

  private dropCache(): void {
    this.cached?.R.storage.dispose();
    this.cached = null;
  }

  private setRotation(R: Tensor): void {
    this.dropCache();
    scope(() => {
      const { parameters } = this.map.initial(R, this.target);
      if (this.rotationParameters) for (const [name, t] of Object.entries(this.rotationParameters)) assign(t, parameters[name], `${this.id}.R.${name}`);
      else {
        for (const t of Object.values(parameters)) keep(t);
        this.rotationParameters = parameters;
      }
    });
  }

  /** The torch map's own parameters (base [d, d], original [d, r]), for runs that must follow PyTorch step by step. */
  setRotationParameters(parameters: Record<string, Tensor>): void {
    this.dropCache();
    for (const t of Object.values(parameters)) keep(t);
    this.rotationParameters = parameters;
  }

  get rotationState(): Readonly<Record<string, Tensor>> {
    return this.rotationParameters ?? {};
  }

  /** The bank of one slot for the edit op: matrices [1, r, d], vectors [1, r]. */
  bank(): EditBank {
    const placed = this.kind.place(this.parameters());
    const lead = (t: Tensor | null | undefined): Tensor | null => (t ? t.unsqueeze(0) : null);
    return {
      A: lead(placed.A), b: lead(placed.b), C: lead(placed.C), e: lead(placed.e), P: lead(placed.P) as Tensor, activation: this.config.activation,
    };
  }
}

/** Copies a value into a trained tensor, in place. */
export function assign(target: Tensor, value: Tensor, name: string): void {
  if (target.shape.join() !== value.shape.join()) throw new RangeError(`${name}: expected shape [${target.shape.join(',')}], got [${value.shape.join(',')}]`);
  target.storage.version++;
  scope(() => {
    const { dtype, backend } = target;
    const near = value.backend === backend ? value : create.from(value.dataSync(), value.shape, { dtype, backend });
    const from = near.dtype === dtype ? near : near.to(dtype);
    backend.kernels.copy({ input: from.view(name), output: target.view(name) });
  });
}
