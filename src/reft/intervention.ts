// One intervention: its parameters (adapt/parameterSet.ts) at one site, and the edit they make. Which tokens it edits
// is decided in layout.ts; what the edit computes, in applyEdit.ts.

import { ParameterSet, type NamedTensor, type StartingValue, type TrainedTensor } from '../adapt/parameterSet.js';
import { scope } from '../autograd/scope.js';
import { noGrad } from '../autograd/tape.js';
import type { Backend } from '../backends/backend.js';
import type { Site } from '../models/sites.js';
import { orthogonalMaps } from '../nn/orthogonal/maps.js';
import { create } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';
import { applyEdit, bankOf, type EditedRows, type EditSettings } from './applyEdit.js';
import type { ResolvedReftConfig } from './config.js';
import { kindByName, optionsOf } from './defineEdit.js';
import type { EditBank } from './editOp.js';
import { allSpecs, wantedSpecs, type EditKind, type EditSize, type ParameterSpec } from './kinds.js';
import type { Side } from './positions.js';

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
  readonly size: EditSize;
  readonly parameterSet: ParameterSet;

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
    const all = allSpecs(this.kind, this.size);
    const map = orthogonalMaps[config.orthogonal];
    this.parameterSet = new ParameterSet(
      { id: this.id, kind: this.kind.name, map, seed: config.seed, backend, dtype },
      parameterSpecs(config, width).map(spec => ({
        name: spec.name,
        shape: spec.shape,
        start: startOf(spec, config.scale),
        stream: number * all.length + all.findIndex(s => s.name === spec.name),
        ...(spec.shape.length > 1 ? {} : { fanIn: width }),
      })),
    );
    if (config.identityStart) this.startAsIdentity();
  }

  private startAsIdentity(): void {
    const { parameterSet } = this;
    const starts = Object.entries(this.kind.identity(this.config.activation) ?? {});
    noGrad(() =>
      scope(() => {
        const values = this.parameters();
        for (const [name, value] of starts) {
          const tensor = values[name];
          if (!tensor) continue; // a bias that is left out
          parameterSet.set(name, value === 'zeros' ? create.zeros(tensor.shape, tensor) : values[value.copy]);
        }
      }),
    );
  }

  /** Trained tensors, R's through its map. */
  trained(): TrainedTensor[] {
    return this.parameterSet.trained();
  }

  /** Everything that decides the next step, trained or not (a map's base): for bit-equal resuming. */
  state(): NamedTensor[] {
    return this.parameterSet.state();
  }

  /** Puts back what `state` gave. */
  setState(name: string, value: Tensor): void {
    this.parameterSet.setState(name, value);
  }

  /**
   * The parameters by their names in the formula, with R materialised, or as it is in `rotations` (sharedRotations.ts).
   */
  parameters(rotations?: Readonly<Record<string, Tensor>>): Record<string, Tensor> {
    return this.parameterSet.values(rotations);
  }

  /** Numbers in the formula's parameters: 2dr + r for loreft. */
  get parameterCount(): number {
    return this.parameterSet.count;
  }

  /**
   * Replaces a parameter's values; R is projected into its map, and must lie in memory of the host's (see
   * `hostBackend`).
   */
  set(name: string, value: Tensor): void {
    this.parameterSet.set(name, value);
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

/** How a parameter starts, the trained scale at the configuration's. */
function startOf({ name, start }: ParameterSpec, scale: number): StartingValue {
  if (start === 'zeros') return 0;
  if (start === 'ones') return name === 'scale' ? scale : 1;
  return start;
}
