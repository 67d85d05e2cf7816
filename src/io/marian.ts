// Marian's binary models, version 1: a table of items, their names, their shapes, then their bytes. One item holds the
// configuration as YAML. Source: marian-dev, src/common/binary.cpp and src/tensors/cpu/integer_common.h.

import type { ByteSource } from './byteSource.js';
import { FormatError } from './errors.js';
import { parseMarianSettings, type MarianSettings } from './marianSettings.js';
import { measure, type ReadableDType } from './storedDType.js';
import { decodeUtf8 } from './strictJson.js';
import { shorten, tensorFileOver } from './tensorFile.js';
import type { StoredTensor, TensorFile } from './tensorFile.js';

/** marian's codes of types: the kind of number in the high bits, its bytes in the low ones. */
const dtypes: ReadonlyMap<number, ReadableDType> = new Map([
  [0x0101, 'I8'],
  [0x0102, 'I16'],
  [0x0104, 'I32'],
  [0x0108, 'I64'],
  [0x0201, 'U8'],
  [0x0402, 'F16'],
  [0x0404, 'F32'],
  [0x0408, 'F64'],
  [0x4101, 'INTGEMM8'],
]);

const settingsItem = 'special:model.yml';
const headBytes = 16;
const entryBytes = 32;
/** Items are padded to whole multiples of this, for files that are mapped into memory. */
const alignment = 256;
/** Far above what models have; the table of a damaged file must not fill the memory. */
const maxItems = 100_000;
const maxNameBytes = 1000;
const maxRank = 8;
const maxSettingsBytes = 1 << 20;

/** A row of the table. */
interface Entry {
  readonly nameBytes: number;
  readonly type: number;
  readonly rank: number;
  readonly dataBytes: number;
}

/** Whether a file begins as a binary model of marian does: its version, and a number of items that has room. */
export async function isMarian(source: ByteSource): Promise<boolean> {
  if (source.size < headBytes) return false;
  const view = viewOf(await source.read(0, headBytes));
  // llama2.c's header, the other one without a magic number, has no zero in its second field.
  return view.getBigUint64(0, true) === 1n && view.getBigUint64(8, true) * BigInt(entryBytes) <= BigInt(source.size);
}

/**
 * Opens a binary model of marian. `metadata` is its configuration. Names are marian's. Quantised matrices but the
 * embedding are stored transposed, so that their shape is [outputs, inputs], where marian's is [inputs, outputs]. Takes
 * over `source`: closed with the file, and when opening fails. Bad bytes throw a FormatError.
 */
export async function openMarian(source: ByteSource): Promise<TensorFile> {
  try {
    return await parseMarian(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function parseMarian(source: ByteSource): Promise<TensorFile> {
  const entries = await readTable(source);
  const names = await readNames(source, entries);
  const shapesStart = headBytes + entries.length * entryBytes + sum(entries, entry => entry.nameBytes);
  const shapes = await readShapes(source, entries, shapesStart);
  const paddingAt = shapesStart + 4 * sum(entries, entry => entry.rank);
  const padding = whole(viewOf(await source.read(paddingAt, 8)), 0, alignment - 1, source.name, 'the padding of data');

  const tensors = new Map<string, StoredTensor>();
  let settings: MarianSettings | undefined;
  let byteOffset = paddingAt + 8 + padding;
  for (const [i, entry] of entries.entries()) {
    const name = names[i];
    if (name === settingsItem) settings = await readSettings(source, byteOffset, entry);
    else tensors.set(name, await readItem(source, { ...entry, name, shape: shapes[i], byteOffset }));
    byteOffset += entry.dataBytes;
  }
  if (byteOffset !== source.size)
    throw new FormatError(source.name, `has ${source.size} bytes, its items end at ${byteOffset}`);
  if (settings === undefined) throw new FormatError(source.name, `has no item '${settingsItem}'`);
  return tensorFileOver(source, 'marian', tensors, settings);
}

async function readTable(source: ByteSource): Promise<Entry[]> {
  const head = viewOf(await source.read(0, headBytes));
  const version = head.getBigUint64(0, true);
  if (version !== 1n) throw new FormatError(source.name, `is version ${version} of marian's format, expected 1`);
  const room = Math.min(maxItems, Math.floor((source.size - headBytes) / entryBytes));
  const count = whole(head, 8, room, source.name, 'the number of items');
  const table = viewOf(await source.read(headBytes, count * entryBytes));
  return Array.from({ length: count }, (_, i) => {
    const field = (at: number, most: number, what: string): number =>
      whole(table, i * entryBytes + at, most, source.name, `item ${i}: ${what}`);
    return {
      nameBytes: field(0, maxNameBytes, 'the length of its name'),
      type: field(8, 0xffff, 'its type'),
      rank: field(16, maxRank, 'its number of sides'),
      dataBytes: field(24, source.size, 'its bytes'),
    };
  });
}

async function readNames(source: ByteSource, entries: readonly Entry[]): Promise<string[]> {
  const bytes = await source.read(
    headBytes + entries.length * entryBytes,
    sum(entries, entry => entry.nameBytes),
  );
  const names = new Set<string>();
  let start = 0;
  for (const [i, { nameBytes }] of entries.entries()) {
    const stored = bytes.subarray(start, start + nameBytes);
    start += nameBytes;
    // A text of C: the zero at its end is counted.
    if (stored.indexOf(0) !== nameBytes - 1)
      throw new FormatError(source.name, `item ${i}: expected a name that ends with its one zero byte`);
    const name = decodeUtf8(stored.subarray(0, -1), source.name, `the name of item ${i}`);
    if (names.has(name)) throw new FormatError(source.name, `has two items '${shorten(name)}'`);
    names.add(name);
  }
  return [...names];
}

async function readShapes(source: ByteSource, entries: readonly Entry[], start: number): Promise<number[][]> {
  const view = viewOf(await source.read(start, 4 * sum(entries, entry => entry.rank)));
  let side = 0;
  return entries.map(({ rank }) => Array.from({ length: rank }, () => view.getInt32(4 * side++, true)));
}

async function readSettings(
  source: ByteSource,
  byteOffset: number,
  { type, dataBytes }: Entry,
): Promise<MarianSettings> {
  if (type !== 0x0101)
    throw new FormatError(source.name, `${settingsItem}: expected type 0x101, it has 0x${type.toString(16)}`);
  if (dataBytes > maxSettingsBytes)
    throw new FormatError(source.name, `${settingsItem} has ${dataBytes} bytes, expected at most ${maxSettingsBytes}`);
  // Zero bytes end it, and pad it.
  const text = decodeUtf8(await source.read(byteOffset, dataBytes), source.name, settingsItem).replace(/\0+$/, '');
  return parseMarianSettings(text, `${source.name} (${settingsItem})`);
}

interface Item extends Entry {
  readonly name: string;
  readonly shape: readonly number[];
  readonly byteOffset: number;
}

async function readItem(source: ByteSource, { name, type, shape, byteOffset, dataBytes }: Item): Promise<StoredTensor> {
  const what = `item '${shorten(name)}' [${shape}]`;
  const dtype = dtypes.get(type);
  if (dtype === undefined) {
    const known = [...dtypes.keys()].map(code => `0x${code.toString(16)}`).join(', ');
    throw new FormatError(source.name, `${what}: type 0x${type.toString(16)} is not supported; supported are ${known}`);
  }
  const size = measure(dtype, shape);
  if (typeof size === 'string') throw new FormatError(source.name, `${what}: ${size}`);
  const { byteLength } = size;
  const needed = byteLength + (dtype === 'INTGEMM8' ? 4 : 0);
  const padded = Math.ceil(needed / alignment) * alignment;
  if (dataBytes !== needed && dataBytes !== padded)
    throw new FormatError(source.name, `${what}: expected ${needed} or ${padded} bytes, it has ${dataBytes}`);
  const tensor = { name, dtype, shape, byteOffset, byteLength };
  if (dtype !== 'INTGEMM8') return tensor;

  if (shape.length !== 2) throw new FormatError(source.name, `${what}: expected a matrix, as what is quantised is`);
  const multiplier = viewOf(await source.read(byteOffset + byteLength, 4)).getFloat32(0, true);
  if (!(multiplier > 0 && Number.isFinite(multiplier)))
    throw new FormatError(source.name, `${what}: expected a positive multiplier behind its numbers, got ${multiplier}`);
  // marian tells embeddings by their name.
  return { ...tensor, shape: name.includes('Wemb') ? shape : shape.toReversed(), multiplier };
}

/** The unsigned 64-bit number at a place. */
function whole(view: DataView, byteOffset: number, most: number, sourceName: string, what: string): number {
  const value = view.getBigUint64(byteOffset, true);
  if (value > BigInt(most)) throw new FormatError(sourceName, `${what} is ${value}, expected at most ${most}`);
  return Number(value);
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
