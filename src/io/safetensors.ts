// safetensors: 8 bytes of header length, a JSON header, one block of data. Reading (single files and sharded ones,
// without loading them whole) and writing the same bytes that the official library writes. Nothing about models or
// adapters in here. Source: the format section of huggingface/safetensors' README and `Metadata::validate` /
// `serialize` of its Rust crate.

import type { ByteSource } from './byteSource.js';
import { FormatError } from './errors.js';
import { isOpaqueDType, isPlainDType, measure, plainArrays } from './storedDType.js';
import type { PlainDType, StoredArray } from './storedDType.js';
import { decodeUtf8, findFraction, isJsonObject, parseJsonObject } from './strictJson.js';
import type { JsonObject } from './strictJson.js';
import { checkStoredTensor, joinTensorFiles, shorten, tensorFileOver } from './tensorFile.js';
import type { StoredTensor, TensorFile } from './tensorFile.js';

/** Bound on the header, as in the official reader. */
const maxHeaderBytes = 100_000_000;
const maxRank = 32;

/**
 * Opens a .safetensors file. The header is read and checked in full (names once, shapes and dtypes fit their bytes,
 * data without overlap or hole up to the end of the file); tensors are read when asked for. `metadata` is the header's
 * `__metadata__`. Takes over `source`: closed with the file, and when opening fails. Bad bytes throw a FormatError.
 */
export async function openSafetensors(source: ByteSource): Promise<TensorFile> {
  try {
    return await parseSafetensors(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function parseSafetensors(source: ByteSource): Promise<TensorFile> {
  const head = await source.read(0, 8);
  const declared = new DataView(head.buffer, head.byteOffset, 8).getBigUint64(0, true);
  const room = Math.min(maxHeaderBytes, source.size - 8);
  if (declared < 2n || declared > BigInt(room)) {
    throw new FormatError(source.name, `the header says it is ${declared} bytes long, expected 2 to ${room}`);
  }
  const headerBytes = Number(declared);
  const bytes = await source.read(8, headerBytes);
  const header = parseJsonObject(bytes, source.name, 'the header');
  // As the official reader: 2.0 is no whole number.
  const fraction = findFraction(decodeUtf8(bytes, source.name, 'the header'), ['shape', 'data_offsets'], 3);
  if (fraction) {
    throw new FormatError(source.name, `${fraction.key}: expected whole numbers, it has ${shorten(fraction.number)}`);
  }

  const dataStart = 8 + headerBytes;
  const tensors: StoredTensor[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') metadata = readMetadata(source.name, entry);
    else tensors.push(readEntry(source, name, entry, dataStart));
  }
  checkLayout(source, tensors, dataStart);
  return tensorFileOver(source, 'safetensors', new Map(tensors.map(tensor => [tensor.name, tensor])), metadata);
}

/** Any JSON value as error messages show it. */
const spell = (value: unknown): string => shorten(String(JSON.stringify(value)));

function readMetadata(sourceName: string, entry: unknown): Record<string, string> {
  if (entry === null) return {};
  if (!isJsonObject(entry)) throw new FormatError(sourceName, '__metadata__ must be an object of strings');
  for (const [key, value] of Object.entries(entry)) {
    if (typeof value === 'string') continue;
    throw new FormatError(sourceName, `__metadata__ '${shorten(key)}' must be a string, it is ${spell(value)}`);
  }
  return entry as Record<string, string>;
}

function readEntry(source: ByteSource, name: string, entry: unknown, dataStart: number): StoredTensor {
  const fault = (text: string): FormatError => new FormatError(source.name, `tensor '${shorten(name)}': ${text}`);
  if (!isJsonObject(entry)) throw fault('expected an object of dtype, shape and data_offsets');
  const { dtype, shape, data_offsets: offsets } = entry;
  if (!isPlainDType(dtype) && !isOpaqueDType(dtype))
    throw fault(`dtype ${spell(dtype)} is not one of ${Object.keys(plainArrays).join(', ')}`);
  if (!Array.isArray(shape) || shape.length > maxRank || !shape.every(Number.isSafeInteger)) {
    throw fault(`shape must be a list of at most ${maxRank} whole numbers, it is ${spell(shape)}`);
  }
  if (
    !Array.isArray(offsets) ||
    offsets.length !== 2 ||
    !offsets.every(offset => Number.isSafeInteger(offset) && offset >= 0)
  ) {
    throw fault(`data_offsets must be two whole numbers, they are ${spell(offsets)}`);
  }
  const [begin, end] = offsets as [number, number];
  if (end < begin || dataStart + end > source.size) {
    throw fault(
      `data_offsets [${begin}, ${end}] must rise and stay within the ${source.size - dataStart} bytes of data`,
    );
  }
  const range = { byteOffset: dataStart + begin, byteLength: end - begin };
  return checkStoredTensor(source.name, { name, dtype, shape: shape as number[], ...range });
}

/** The data must be covered exactly once: no overlap, no hole, nothing after the last tensor. */
function checkLayout(source: ByteSource, tensors: readonly StoredTensor[], dataStart: number): void {
  const ordered = [...tensors].sort((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  let at = dataStart;
  for (const tensor of ordered) {
    if (tensor.byteOffset !== at) {
      const what = tensor.byteOffset < at ? 'overlaps the tensor before it' : 'leaves a hole before it';
      const where = `starts at data byte ${tensor.byteOffset - dataStart}, expected ${at - dataStart}`;
      throw new FormatError(source.name, `tensor '${shorten(tensor.name)}' ${where}: it ${what}`);
    }
    at += tensor.byteLength;
  }
  if (at !== source.size) throw new FormatError(source.name, `has ${source.size} bytes, its tensors end at ${at}`);
}

/** Opens a file of the same folder by its plain name. */
export type OpenSibling = (fileName: string) => Promise<ByteSource>;

/**
 * Opens a sharded model by its `model.safetensors.index.json`.
 * Only the tensors of `weight_map` are in the result, each read from the shard the map names; `metadata` is the index's
 * own. Takes over `index` and the shards, as `openSafetensors` does. A shard that cannot be opened is a FormatError
 * with the cause.
 */
export async function openShardedSafetensors(index: ByteSource, openSibling: OpenSibling): Promise<TensorFile> {
  const files = new Map<string, TensorFile>();
  try {
    const { weightMap, metadata } = await readIndex(index);
    const owner = new Map<string, TensorFile>();
    for (const [tensorName, fileName] of weightMap) {
      let file = files.get(fileName);
      if (!file) files.set(fileName, (file = await openShard(index.name, fileName, openSibling)));
      if (!file.tensors.has(tensorName)) {
        throw new FormatError(
          index.name,
          `weight_map puts '${shorten(tensorName)}' into ${fileName}, which does not have it`,
        );
      }
      owner.set(tensorName, file);
    }
    return joinTensorFiles(index.name, owner, [...files.values()], metadata);
  } catch (error) {
    await Promise.all([...files.values()].map(file => file.close()));
    throw error;
  } finally {
    await index.close();
  }
}

async function readIndex(index: ByteSource): Promise<{ weightMap: [string, string][]; metadata: JsonObject }> {
  if (index.size > maxHeaderBytes)
    throw new FormatError(index.name, `is ${index.size} bytes long, expected at most ${maxHeaderBytes}`);
  const json = parseJsonObject(await index.read(0, index.size), index.name, 'the index');
  const { weight_map: map, metadata = {} } = json;
  if (!isJsonObject(map))
    throw new FormatError(index.name, 'weight_map must be an object of file names by tensor name');
  if (!isJsonObject(metadata)) throw new FormatError(index.name, 'metadata must be an object');
  const weightMap = Object.entries(map).map(([tensorName, fileName]): [string, string] => {
    if (
      typeof fileName === 'string' &&
      fileName.length <= 255 &&
      /^[^/\\:\0]+\.safetensors$/.test(fileName) &&
      !fileName.startsWith('.')
    ) {
      return [tensorName, fileName];
    }
    const what = `weight_map '${shorten(tensorName)}'`;
    throw new FormatError(
      index.name,
      `${what} must name a .safetensors file of the same folder, it is ${spell(fileName)}`,
    );
  });
  return { weightMap, metadata };
}

async function openShard(indexName: string, fileName: string, openSibling: OpenSibling): Promise<TensorFile> {
  let source: ByteSource;
  try {
    source = await openSibling(fileName);
  } catch (cause) {
    if (cause instanceof Error && cause.name === 'AbortError') throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new FormatError(indexName, `its shard ${fileName} cannot be opened (${why})`, { cause });
  }
  return openSafetensors(source);
}

/**
 * A tensor to write. `data` is row-major; F16 and BF16 are given as raw bits (Uint16Array), BOOL as 0 or 1
 * (Uint8Array).
 */
export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: PlainDType;
  readonly shape: readonly number[];
  readonly data: StoredArray;
}

/** The official order of data: wide types first, so that every tensor is aligned; then by the name's bytes in UTF-8. */
const writeOrder: readonly PlainDType[] = ['I64', 'F64', 'F32', 'I32', 'BF16', 'F16', 'I16', 'I8', 'U8', 'BOOL'];

/**
 * The bytes of a .safetensors file: the same for the same tensors and metadata in any order. Header padded with spaces
 * to a multiple of 8. Wrong arguments (a name twice, data that does not fit shape or dtype) throw a TypeError.
 */
export function writeSafetensors(
  entries: readonly SafetensorsEntry[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const ordered = [...entries].sort(
    (a, b) => writeOrder.indexOf(a.dtype) - writeOrder.indexOf(b.dtype) || byCodePoints(a.name, b.name),
  );
  const header: [string, unknown][] = [];
  const metadataEntries = Object.entries(metadata).sort(([a], [b]) => byCodePoints(a, b));
  if (metadataEntries.length) header.push(['__metadata__', Object.fromEntries(metadataEntries)]);
  const names = new Set<string>();
  let at = 0;
  for (const entry of ordered) {
    const byteLength = checkEntry(entry, names);
    header.push([entry.name, { dtype: entry.dtype, shape: entry.shape, data_offsets: [at, at + byteLength] }]);
    at += byteLength;
  }
  // Spelled entry by entry: an object would move names like "7" to the front.
  const fields = header.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const text = new TextEncoder().encode(`{${fields.join(',')}}`);
  const headerBytes = Math.ceil(text.byteLength / 8) * 8;
  const bytes = new Uint8Array(8 + headerBytes + at).fill(0x20, 8, 8 + headerBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerBytes), true);
  bytes.set(text, 8);
  let to = 8 + headerBytes;
  for (const { data } of ordered) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), to);
    to += data.byteLength;
  }
  return bytes;
}

/** The order of two texts by code points, which is that of their bytes in UTF-8. JavaScript's is by UTF-16 units. */
function byCodePoints(a: string, b: string): number {
  const [left, right] = [[...a], [...b]].map(text => text.map(char => char.codePointAt(0) as number));
  const differ = left.findIndex((code, i) => code !== right[i]);
  return differ < 0 ? left.length - right.length : left[differ] - (right[differ] ?? -1);
}

function checkEntry(entry: SafetensorsEntry, names: Set<string>): number {
  const what = `writeSafetensors: '${entry.name}' ${entry.dtype} [${entry.shape}]`;
  if (entry.name === '__metadata__') throw new TypeError(`${what}: the name is reserved`);
  if (/\p{Surrogate}/u.test(entry.name)) throw new TypeError(`${what}: the name is no valid Unicode`);
  if (names.has(entry.name)) throw new TypeError(`${what}: the name is given twice`);
  names.add(entry.name);
  const Maker = plainArrays[entry.dtype];
  if (!Maker) throw new TypeError(`${what}: dtype must be one of ${Object.keys(plainArrays).join(', ')}`);
  if (!(entry.data instanceof Maker))
    throw new TypeError(`${what}: data must be a ${Maker.name}, it is a ${entry.data.constructor.name}`);
  const size = measure(entry.dtype, entry.shape);
  if (typeof size === 'string') throw new TypeError(`${what}: ${size}`);
  if (size.count !== entry.data.length)
    throw new TypeError(`${what}: data has ${entry.data.length} values, expected ${size.count}`);
  return size.byteLength;
}
