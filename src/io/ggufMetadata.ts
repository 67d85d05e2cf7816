// The header of a GGUF file: key-value metadata and the list of tensors as declared, read from bytes with every count
// bounded by the bytes that are there. Whether the tensors make sense is checked in gguf.ts.
// Source: docs/gguf.md of ggml (versions 2 and 3, little-endian).
//
// @huggingface/gguf is not used for reading: it strips a leading U+FEFF from every string (LLaMA's vocabularies have
// such tokens), turns bad UTF-8 into U+FFFD, stores keys like `__proto__` by assignment, and to be safe on bad bytes it
// needs a walk over all lengths first, which is most of this file. The tests hold this reader to it.

import { FormatError } from './errors.js';
import { shorten } from './tensorFile.js';

/** A tensor as the header declares it: sides innermost first, offset from the start of the data. */
export interface GgufTensorInfo {
  readonly name: string;
  readonly sides: readonly number[];
  readonly type: number;
  readonly offset: number;
}

export interface GgufHeader {
  readonly version: number;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly tensorInfos: readonly GgufTensorInfo[];
  /** Bytes of the header, before the padding in front of the data. */
  readonly byteLength: number;
}

/**
 * Limits far above real files: keys or tensors, elements of all metadata arrays together, nesting of arrays,
 * dimensions, sizes.
 */
const maxEntries = 1_000_000;
const maxArrayElements = 8_000_000;
const maxArrayDepth = 4;
const maxSides = 4;
const maxSize = 2 ** 48;

/** The bytes at hand end before the header does: more of the file is needed. */
export class HeaderGoesOn extends Error {}

/** Value types of the metadata by their number. Sizes are those of the fixed ones. */
const stringType = 8;
const arrayType = 9;
const valueBytes = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8];

/**
 * Parses the header at the start of `bytes`. 64-bit integers become numbers where exact, else bigints; strings,
 * booleans and arrays become their plain kind. Throws HeaderGoesOn when `bytes` (the first part of the file) is too
 * short, FormatError for what is wrong.
 */
export function parseGgufHeader(bytes: Uint8Array, sourceName: string): GgufHeader {
  const reader = new HeaderReader(bytes, sourceName);
  const magic = reader.u32();
  if (magic !== 0x46554747)
    throw reader.fault(`expected the four letters GGUF first, the first number is 0x${magic.toString(16)}`);
  const version = reader.u32();
  if (version !== 2 && version !== 3) {
    const kind = version & 0xffff ? `version ${version}` : 'big-endian';
    throw reader.fault(`expected little-endian GGUF version 2 or 3, it is ${kind}`);
  }
  const tensorCount = reader.count('tensors', maxEntries);
  const keyCount = reader.count('metadata keys', maxEntries);

  const metadata = new Map<string, unknown>();
  for (let i = 0; i < keyCount; i++) {
    const key = reader.string(`metadata key ${i}`, 65_535);
    if (metadata.has(key)) throw reader.fault(`has the metadata key '${shorten(key)}' twice`);
    metadata.set(key, reader.value(reader.u32(), key, 0));
  }

  const tensorInfos: GgufTensorInfo[] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const name = reader.string(`the name of tensor ${i}`, 1024);
    if (names.has(name)) throw reader.fault(`has the tensor '${shorten(name)}' twice`);
    names.add(name);
    const sideCount = reader.u32();
    if (sideCount > maxSides)
      throw reader.fault(`tensor '${shorten(name)}' has ${sideCount} dimensions, expected at most ${maxSides}`);
    const sides: number[] = [];
    for (let side = 0; side < sideCount; side++)
      sides.push(reader.count(`values along side ${side} of '${shorten(name)}'`, maxSize));
    tensorInfos.push({
      name,
      sides,
      type: reader.u32(),
      offset: reader.count(`bytes before '${shorten(name)}'`, maxSize),
    });
  }
  return { version, metadata: Object.fromEntries(metadata), tensorInfos, byteLength: reader.at };
}

class HeaderReader {
  at = 0;
  private elementsLeft = maxArrayElements;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly sourceName: string;
  private readonly text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

  constructor(bytes: Uint8Array, sourceName: string) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.sourceName = sourceName;
  }

  fault(text: string, options?: { cause: unknown }): FormatError {
    return new FormatError(this.sourceName, text, options);
  }

  /** Moves over `length` bytes and returns where they start. */
  private take(length: number): number {
    if (length > this.bytes.byteLength - this.at) throw new HeaderGoesOn();
    const start = this.at;
    this.at += length;
    return start;
  }

  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  /** A 64-bit count of at most `most`. */
  count(what: string, most: number): number {
    const value = this.view.getBigUint64(this.take(8), true);
    if (value > BigInt(most)) throw this.fault(`says it has ${value} ${what}, expected at most ${most}`);
    return Number(value);
  }

  string(what: string, mostBytes: number): string {
    const length = this.count(`bytes in ${what}`, mostBytes);
    const start = this.take(length);
    // Most strings are short ASCII, for which this is several times faster than a TextDecoder.
    if (length <= 24) {
      let ascii = '';
      let i = start;
      for (; i < this.at && this.bytes[i] < 128; i++) ascii += String.fromCharCode(this.bytes[i]);
      if (i === this.at) return ascii;
    }
    try {
      return this.text.decode(this.bytes.subarray(start, this.at));
    } catch (cause) {
      throw this.fault(`${what} is not valid UTF-8`, { cause });
    }
  }

  value(type: number, key: string, depth: number): unknown {
    if (type === stringType) return this.string(`metadata '${shorten(key)}'`, 2 ** 28);
    if (type === arrayType) return this.array(key, depth);
    const size = valueBytes[type];
    if (size === undefined) throw this.fault(`metadata '${shorten(key)}' has the unknown value type ${type}`);
    return this.scalar(type, this.take(size), key);
  }

  private array(key: string, depth: number): unknown[] {
    if (depth >= maxArrayDepth)
      throw this.fault(`metadata '${shorten(key)}' nests arrays more than ${maxArrayDepth} deep`);
    const type = this.u32();
    const size = valueBytes[type];
    if (size === undefined)
      throw this.fault(`metadata '${shorten(key)}' is an array of the unknown value type ${type}`);
    const length = this.count(`values in metadata '${shorten(key)}'`, this.elementsLeft);
    this.elementsLeft -= length;
    if (length * size > this.bytes.byteLength - this.at) throw new HeaderGoesOn();
    const values: unknown[] = [];
    for (let i = 0; i < length; i++) values.push(this.value(type, key, depth + 1));
    return values;
  }

  private scalar(type: number, at: number, key: string): number | bigint | boolean {
    switch (type) {
      case 0:
        return this.view.getUint8(at);
      case 1:
        return this.view.getInt8(at);
      case 2:
        return this.view.getUint16(at, true);
      case 3:
        return this.view.getInt16(at, true);
      case 4:
        return this.view.getUint32(at, true);
      case 5:
        return this.view.getInt32(at, true);
      case 6:
        return this.view.getFloat32(at, true);
      case 7: {
        const value = this.view.getUint8(at);
        if (value > 1) throw this.fault(`metadata '${shorten(key)}' is a boolean with the value ${value}`);
        return value === 1;
      }
      case 10:
        return exact(this.view.getBigUint64(at, true));
      case 11:
        return exact(this.view.getBigInt64(at, true));
      default:
        return this.view.getFloat64(at, true);
    }
  }
}

function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
