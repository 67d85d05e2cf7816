// The .bin and .pt files of torch.save (zip form): a flat dictionary of tensors and plain values, read without running
// anything. Only state dicts: nested dictionaries, lists and other objects at the top are refused. Which keys mean what
// is known by the callers. Source: torch/serialization.py (_save, _load): entries {stem}/data.pkl, {stem}/byteorder,
// {stem}/data/KEY.

import type { ByteSource } from './byteSource.js';
import { FormatError } from './errors.js';
import { measure, plainArrays, viewStored } from './storedDType.js';
import type { PlainDType, StoredArray } from './storedDType.js';
import { decodeUtf8 } from './strictJson.js';
import { shorten } from './tensorFile.js';
import { PickledTensor, unpickle } from './unpickle.js';
import type { PickledStorage } from './unpickle.js';
import { readStoredZip } from './zipStored.js';
import type { ZipEntry } from './zipStored.js';

/**
 * A tensor in row-major order. F16 and BF16 are raw bits (`storedToFloat32` gives their values). Tensors that share
 * storage in the file may share memory here.
 */
export interface TorchTensor {
  readonly dtype: PlainDType;
  readonly shape: readonly number[];
  readonly data: StoredArray;
}

export type TorchValue = TorchTensor | number | string | boolean | null;

const maxPickleBytes = 32 * 2 ** 20;

/**
 * Reads a whole torch zip file: name to tensor or plain value, in the file's order. Leaves `source` open.
 * Throws a FormatError for bad bytes, for globals that no state dict needs, for tensors outside of their storage and
 * expanded ones.
 */
export async function readTorchBin(source: ByteSource): Promise<Map<string, TorchValue>> {
  const entries = await readStoredZip(source);
  const pickles = [...entries.keys()].filter(name => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1)
    throw new FormatError(source.name, `expected one FOLDER/data.pkl in the archive, found ${pickles.length}`);
  const stem = pickles[0].slice(0, -'data.pkl'.length);
  await checkByteOrder(source, entries.get(`${stem}byteorder`));
  const pickle = entries.get(pickles[0]) as ZipEntry;
  if (pickle.byteLength > maxPickleBytes) {
    throw new FormatError(source.name, `data.pkl is ${pickle.byteLength} bytes, expected at most ${maxPickleBytes}`);
  }
  const top = unpickle(await source.read(pickle.byteOffset, pickle.byteLength), source.name);
  if (!(top instanceof Map)) throw new FormatError(source.name, 'expected a dictionary of tensors');

  const storages = new StorageReader(source, entries, `${stem}data/`);
  const values = new Map<string, TorchValue>();
  for (const [key, value] of top) {
    if (typeof key !== 'string') throw new FormatError(source.name, 'expected a dictionary with strings as keys');
    if (value instanceof PickledTensor) values.set(key, await storages.tensor(key, value));
    else if (value === null || typeof value !== 'object') values.set(key, value);
    else throw new FormatError(source.name, `'${shorten(key)}' must be a tensor or a plain value, it is neither`);
  }
  return values;
}

async function checkByteOrder(source: ByteSource, entry: ZipEntry | undefined): Promise<void> {
  if (!entry) return;
  const order = decodeUtf8(
    await source.read(entry.byteOffset, Math.min(entry.byteLength, 16)),
    source.name,
    'byteorder',
  );
  if (order !== 'little') throw new FormatError(source.name, `expected byteorder 'little', it is '${order}'`);
}

class StorageReader {
  private readonly source: ByteSource;
  private readonly entries: ReadonlyMap<string, ZipEntry>;
  private readonly folder: string;
  private readonly loaded = new Map<string, { readonly dtype: PlainDType; readonly values: StoredArray }>();
  /**
   * Bytes that copies of strided tensors may still take: many small tensors over one large storage must not multiply
   * the file.
   */
  private copyBudget: number;

  constructor(source: ByteSource, entries: ReadonlyMap<string, ZipEntry>, folder: string) {
    this.source = source;
    this.entries = entries;
    this.folder = folder;
    this.copyBudget = 2 * source.size;
  }

  async tensor(name: string, tensor: PickledTensor): Promise<TorchTensor> {
    const { storage, offset, shape, strides } = tensor;
    const fault = (text: string): FormatError =>
      new FormatError(this.source.name, `tensor '${shorten(name)}' [${shape}]: ${text}`);
    const size = measure(storage.dtype, shape);
    if (typeof size === 'string') throw fault(size);
    const last = shape.reduce((sum, side, axis) => sum + (side - 1) * strides[axis], offset);
    if (size.count > 0 && !(last < storage.count)) {
      throw fault(`offset ${offset} and strides [${strides}] reach value ${last} of a storage of ${storage.count}`);
    }
    if (size.count > storage.count)
      throw fault(`has more values than its storage of ${storage.count} (an expanded tensor)`);
    const values = await this.load(storage);
    if (isRowMajor(shape, strides) || size.count === 0) {
      const start = size.count === 0 ? 0 : offset;
      return { dtype: storage.dtype, shape, data: values.subarray(start, start + size.count) };
    }
    this.copyBudget -= size.byteLength;
    if (this.copyBudget < 0) throw fault('its strided tensors take several times the size of the file');
    return { dtype: storage.dtype, shape, data: copyStrided(values, offset, shape, strides, size.count) };
  }

  private async load(storage: PickledStorage): Promise<StoredArray> {
    const fault = (text: string): FormatError =>
      new FormatError(this.source.name, `storage '${shorten(storage.key)}' ${text}`);
    const entry = this.entries.get(this.folder + storage.key);
    if (!entry) throw fault('is not in the archive');
    const bytes = storage.count * plainArrays[storage.dtype].BYTES_PER_ELEMENT;
    if (bytes !== entry.byteLength) {
      throw fault(`of ${storage.count} ${storage.dtype} takes ${bytes} bytes, the archive has ${entry.byteLength}`);
    }
    const known = this.loaded.get(storage.key);
    if (known && known.dtype !== storage.dtype) throw fault(`is used as ${known.dtype} and as ${storage.dtype}`);
    if (known) return known.values;
    // A copy of its own: the source's bytes may be shared with the caller.
    const values = viewStored(storage.dtype, (await this.source.read(entry.byteOffset, entry.byteLength)).slice());
    this.loaded.set(storage.key, { dtype: storage.dtype, values });
    return values;
  }
}

/** Whether strides are those of a row-major tensor; sides of 1 may have any. */
function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== expected) return false;
    expected *= shape[axis];
  }
  return true;
}

/** The `count` values of a strided tensor, row-major. Offsets are known to be inside `values`. */
function copyStrided(
  values: StoredArray,
  offset: number,
  shape: readonly number[],
  strides: readonly number[],
  count: number,
): StoredArray {
  const data = values.slice(0, count);
  const index = new Array<number>(shape.length).fill(0);
  let from = offset;
  for (let to = 0; to < count; to++) {
    data[to] = values[from];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return data;
}
