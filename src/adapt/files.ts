// What files of trained parameters have in common, whatever they are of: a configuration that is checked field by
// field, and a safetensors file of F32 tensors of which every one is expected. The files are untrusted: whatever is
// wrong with them is a FormatError.

import type { z } from 'zod';
import { noGrad } from '../autograd/tape.js';
import { hostBackend } from '../devices.js';
import { memorySource } from '../io/byteSource.js';
import { FormatError } from '../io/errors.js';
import { openSafetensors, type SafetensorsEntry } from '../io/safetensors.js';
import type { TensorFile } from '../io/tensorFile.js';
import type { Model } from '../models/model.js';
import { orthonormalityError } from '../nn/hostMatrices.js';
import { create } from '../tensor/create.js';
import { formatShape, sameShape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { finiteEntry } from '../reft/savedFiles.js';

/** Bytes by file name. */
export type Files = ReadonlyMap<string, Uint8Array>;

export interface LoadOptions {
  /** Told when the files were made on other weights. Default: console.warn. */
  readonly onWarning?: (message: string) => void;
  /** What errors call the files. */
  readonly source?: string;
}

/** Something that holds parameters under an id of its own. */
export interface Parametrized {
  readonly id: string;
  parameters(): Record<string, Tensor>;
  set(name: string, value: Tensor): void;
}

export interface ExpectedTensor {
  readonly shape: readonly number[];
  /** Its rows must be orthonormal. */
  readonly orthonormal: boolean;
}

/** How far R R^T may be from the identity: rounding, never another matrix. */
const orthonormalTolerance = 1e-3;

/** @throws FormatError where there is none of this name */
export function fileOf(files: Files, name: string, source: string): Uint8Array {
  const bytes = files.get(name);
  if (!bytes) throw new FormatError(source, `has no ${name}`);
  return bytes;
}

/** JSON as a schema has it. @throws FormatError naming the first fields that are wrong */
export function checkedBy<T>(schema: z.ZodType<T>, json: unknown, source: string): T {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.slice(0, 3).map(i => `${i.path.join('.') || 'it'}: ${i.message}`);
  throw new FormatError(source, issues.join('; '));
}

/** The parameters of all owners as entries of a file, `ID.NAME`. @throws Error naming one that is not finite */
export async function parameterEntries(owners: readonly Parametrized[]): Promise<SafetensorsEntry[]> {
  const entries: SafetensorsEntry[] = [];
  for (const owner of owners) {
    for (const [name, tensor] of Object.entries(noGrad(() => owner.parameters())))
      entries.push(await finiteEntry(`${owner.id}.${name}`, tensor));
  }
  return entries;
}

/** The values of a file of parameters, which must be the expected ones and no others. */
export async function readParameters(
  bytes: Uint8Array,
  source: string,
  expected: ReadonlyMap<string, ExpectedTensor>,
): Promise<Map<string, Float32Array>> {
  const file = await openSafetensors(memorySource(bytes, source));
  checkTensors(file, expected);
  const values = new Map<string, Float32Array>();
  for (const [name, { shape, orthonormal }] of expected) {
    const data = await file.readFloat32(name);
    if (!data.every(Number.isFinite)) throw new FormatError(source, `'${name}' has numbers that are not finite`);
    if (orthonormal) checkOrthonormal(data, shape, name, source);
    values.set(name, data);
  }
  return values;
}

function checkTensors(file: TensorFile, expected: ReadonlyMap<string, ExpectedTensor>): void {
  for (const [name, { shape }] of expected) {
    const stored = file.tensors.get(name);
    if (!stored) throw new FormatError(file.name, `has no tensor '${name}', which the configuration asks for`);
    if (stored.dtype !== 'F32' || !sameShape(stored.shape, shape)) {
      const found = `${stored.dtype} ${formatShape(stored.shape)}`;
      throw new FormatError(file.name, `'${name}' is ${found}, expected F32 ${formatShape(shape)}`);
    }
  }
  for (const name of file.tensors.keys())
    if (!expected.has(name))
      throw new FormatError(file.name, `has a tensor '${name}' that the configuration does not know`);
}

function checkOrthonormal(R: Float32Array, shape: readonly number[], name: string, source: string): void {
  const {
    error,
    rows: [a, b],
  } = orthonormalityError(R, shape);
  if (error <= orthonormalTolerance) return;
  throw new FormatError(
    source,
    `'${name}' must have orthonormal rows: rows ${a} and ${b} are off by ${error.toPrecision(3)}`,
  );
}

/** Gives an owner the values of its parameters, on a base's device. */
export function putParameters(owner: Parametrized, values: ReadonlyMap<string, Float32Array>, base: Model): void {
  const target = { dtype: base.dtype, backend: hostBackend(base.backend) };
  for (const [name, { shape }] of Object.entries(noGrad(() => owner.parameters()))) {
    const value = create.from(values.get(`${owner.id}.${name}`) as Float32Array, shape, target);
    owner.set(name, value);
    value.storage.dispose();
  }
}
