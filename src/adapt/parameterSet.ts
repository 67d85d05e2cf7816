// The parameters of one adapter, by name: tensors that are trained as they are, and matrices with orthonormal rows,
// which are held through an orthogonal map so that no step of an optimizer can move them off. Names in a state or a
// file are `ID.NAME`, and `ID.NAME.PART` for the parts of an orthogonal map.

import { keep, scope } from '../autograd/scope.js';
import { shouldRecord } from '../autograd/tape.js';
import type { Backend } from '../backends/backend.js';
import { hostBackend } from '../devices.js';
import { linearInit, orthogonalInit } from '../nn/init.js';
import { orthonormalityError } from '../nn/hostMatrices.js';
import type { OrthogonalMap } from '../nn/orthogonal/maps.js';
import { create } from '../tensor/create.js';
import { formatShape, sameShape, sizeOf } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { assign } from './assign.js';

/**
 * How a parameter starts: orthonormal rows, which an orthogonal map then keeps; uniform in +-1/sqrt(fan-in); uniform in
 * [0, 1); the first rows of the identity; one number everywhere.
 */
export type StartingValue = 'orthogonal' | 'linear' | 'unit' | 'identity' | number;

export interface ParameterDefinition {
  readonly name: string;
  readonly shape: readonly number[];
  readonly start: StartingValue;
  /** Random starts draw from this stream of the seed. */
  readonly stream: number;
  /** Of a linear start. Default: the last side. */
  readonly fanIn?: number;
  /** Default true. */
  readonly trained?: boolean;
}

export interface ParameterSetOptions {
  /** `block_output/15`: the first part of all names. */
  readonly id: string;
  /** What errors call the owner of the parameters: the name of its kind. */
  readonly kind: string;
  readonly map: OrthogonalMap;
  readonly seed: number;
  readonly backend: Backend;
  readonly dtype: 'f32' | 'f64';
}

export interface NamedTensor {
  readonly name: string;
  readonly tensor: Tensor;
}

export interface TrainedTensor extends NamedTensor {
  /** Part of an orthogonal map: never decayed. */
  readonly orthogonal: boolean;
}

/** What an orthogonal map holds for a matrix, and the matrix it gave for given versions of that. */
interface Rotation {
  parts: Readonly<Record<string, Tensor>>;
  cached: { readonly versions: string; readonly R: Tensor } | null;
}

/** How far a given matrix may be from orthonormal rows to be taken as it is while nothing trains it: f32's rounding. */
const takenAsGiven = 1e-5;

export class ParameterSet {
  readonly id: string;
  readonly map: OrthogonalMap;
  private readonly kind: string;
  private readonly target: { readonly dtype: 'f32' | 'f64'; readonly backend: Backend };
  private readonly definitions: readonly ParameterDefinition[];
  private readonly plain = new Map<string, Tensor>();
  private readonly rotations = new Map<string, Rotation>();

  constructor(
    { id, kind, map, seed, backend, dtype }: ParameterSetOptions,
    definitions: readonly ParameterDefinition[],
  ) {
    this.id = id;
    this.kind = kind;
    this.map = map;
    this.target = { dtype, backend };
    this.definitions = definitions;
    for (const definition of definitions) {
      const { name, start, trained = true } = definition;
      if (start === 'orthogonal') this.startRotation(definition, seed, trained);
      else this.plain.set(name, keep(startingTensor(definition, { seed, dtype, backend })).requireGrad(trained));
    }
  }

  private startRotation({ name, shape, stream }: ParameterDefinition, seed: number, trained: boolean): void {
    const { dtype, backend } = this.target;
    scope(() => {
      const R = orthogonalInit(shape as [number, number], { seed, stream, dtype, backend: hostBackend(backend) });
      const { parameters } = this.map.initial(R, this.target);
      for (const part of Object.values(parameters)) if (keep(part).requiresGrad) part.requireGrad(trained);
      this.rotations.set(name, { parts: parameters, cached: null });
    });
  }

  has(name: string): boolean {
    return this.plain.has(name) || this.rotations.has(name);
  }

  /** Numbers in the parameters, as their shapes say: those of an orthogonal map may be more. */
  get count(): number {
    return this.definitions.reduce((n, { shape }) => n + sizeOf(shape), 0);
  }

  /** What is trained, orthonormal matrices by the parts of their map. */
  trained(): TrainedTensor[] {
    return [
      ...this.rotationParts().map(part => ({ ...part, orthogonal: true })),
      ...this.plainTensors().map(tensor => ({ ...tensor, orthogonal: false })),
    ].filter(({ tensor }) => tensor.requiresGrad);
  }

  /** Everything that decides the values, trained or not (the base of a map): for resuming bit by bit. */
  state(): NamedTensor[] {
    return [...this.rotationParts(), ...this.plainTensors()];
  }

  private rotationParts(): NamedTensor[] {
    return [...this.rotations].flatMap(([name, { parts }]) =>
      Object.entries(parts).map(([part, tensor]) => ({ name: `${this.id}.${name}.${part}`, tensor })),
    );
  }

  private plainTensors(): NamedTensor[] {
    return [...this.plain].map(([name, tensor]) => ({ name: `${this.id}.${name}`, tensor }));
  }

  /** Changes whenever a value of the state does. */
  get versions(): string {
    return versionsOf(this.state().map(({ tensor }) => tensor));
  }

  /** Puts back what `state` gave. @throws RangeError for a name that it does not have */
  setState(name: string, value: Tensor): void {
    const entry = this.state().find(s => s.name === name);
    if (!entry) throw new RangeError(`${this.id} has no state '${name}'`);
    assign(entry.tensor, value, name);
  }

  /**
   * All parameters by name, in the order of their definitions. Orthonormal matrices are computed, on the tape while
   * training, unless `rotations` has them.
   */
  values(rotations: Readonly<Record<string, Tensor>> = {}): Record<string, Tensor> {
    return Object.fromEntries(
      this.definitions.map(({ name }) => [name, this.plain.get(name) ?? rotations[name] ?? this.rotation(name)]),
    );
  }

  /**
   * Replaces a parameter's values. What an orthogonal map holds is made orthonormal, and must lie in memory of the
   * host's (see `hostBackend`). @throws RangeError naming the parameter
   */
  set(name: string, value: Tensor): void {
    const definition = this.definitions.find(d => d.name === name);
    if (!definition) throw new RangeError(`${this.id}: ${this.kind} has no parameter '${name}'`);
    const { shape } = definition;
    if (!sameShape(value.shape, shape))
      throw new RangeError(`${this.id}.${name}: expected shape ${formatShape(shape)}, got ${formatShape(value.shape)}`);
    const rotation = this.rotations.get(name);
    if (rotation) this.setRotation(name, rotation, value);
    else assign(this.plain.get(name) as Tensor, value, `${this.id}.${name}`);
  }

  private setRotation(name: string, rotation: Rotation, R: Tensor): void {
    const given = R.dataSync();
    scope(() => {
      const { parameters } = this.map.initial(R, this.target);
      dropCache(rotation);
      for (const [part, tensor] of Object.entries(rotation.parts))
        assign(tensor, parameters[part], `${this.id}.${name}.${part}`);
    });
    // Until it is trained, R is the given one to the bit, not what its reflections round to.
    if (!(orthonormalityError(given, R.shape).error <= takenAsGiven)) return;
    rotation.cached = {
      versions: versionsOf(Object.values(rotation.parts)),
      R: keep(create.from(given, R.shape, this.target)),
    };
  }

  /** R [r, d]: on the tape while training, kept from call to call while not. */
  private rotation(name: string): Tensor {
    const rotation = this.rotations.get(name) as Rotation;
    const parts = Object.values(rotation.parts);
    const versions = versionsOf(parts);
    if (rotation.cached && rotation.cached.versions !== versions) dropCache(rotation);
    if (shouldRecord(parts)) return this.map.rotation(rotation.parts);
    rotation.cached ??= { versions, R: keep(scope(() => this.map.rotation(rotation.parts))) };
    return rotation.cached.R;
  }

  /** What the orthogonal map holds for each parameter that it keeps orthonormal. */
  get rotationParameters(): ReadonlyMap<string, Readonly<Record<string, Tensor>>> {
    return new Map([...this.rotations].map(([name, { parts }]) => [name, parts]));
  }

  /** Replaces the tensors that the map holds for a parameter: for runs that follow another program step by step. */
  setRotationParameters(name: string, parts: Readonly<Record<string, Tensor>>): void {
    const rotation = this.rotations.get(name);
    if (!rotation) throw new RangeError(`${this.id}: ${this.kind} has no ${name}`);
    dropCache(rotation);
    for (const part of Object.values(parts)) keep(part);
    rotation.parts = parts;
  }

  dispose(): void {
    for (const rotation of this.rotations.values()) dropCache(rotation);
    for (const { tensor } of this.state()) tensor.storage.dispose();
  }
}

const versionsOf = (tensors: readonly Tensor[]): string => tensors.map(t => t.storage.version).join();

function dropCache(rotation: Rotation): void {
  rotation.cached?.R.storage.dispose();
  rotation.cached = null;
}

function startingTensor(
  { shape, start, stream, fanIn }: ParameterDefinition,
  options: { readonly seed: number; readonly dtype: 'f32' | 'f64'; readonly backend: Backend },
): Tensor {
  if (typeof start === 'number') return create.full(shape, start, options);
  if (start === 'unit') return create.uniform(shape, { ...options, stream });
  if (start === 'linear') return linearInit(shape, { ...options, stream, ...(fanIn === undefined ? {} : { fanIn }) });
  const [rows, columns] = shape;
  const data = new Float64Array(rows * columns);
  for (let i = 0; i < Math.min(rows, columns); i++) data[i * columns + i] = 1;
  return create.from(data, shape, options);
}
