// Where file bytes come from: memory, a browser Blob or File, a file on disk. Readers of formats know this interface
// only, so each of them runs in Node and in the browser and can read parts of a file without loading it whole.
// Nothing about any format may be put in here.

import { FormatError } from './errors.js';
import { nodeOnly } from './nodeOnly.js';

/** Random access to a fixed number of bytes. Reads outside [0, size) throw a FormatError ("truncated"). */
export interface ByteSource {
  /** What errors call it: a path, a file name, a URL. */
  readonly name: string;
  /** Bytes in all. */
  readonly size: number;
  /** `length` bytes from `offset`. The result may share memory with the source: treat it as read-only. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Fills `target` with the bytes from `offset`; a source without it is read through `read`. */
  readInto?(offset: number, target: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** Throws a FormatError unless [offset, offset + length) lies inside the source. */
export function checkRange(
  source: { readonly name: string; readonly size: number },
  offset: number,
  length: number,
): void {
  const sound = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (sound && offset + length <= source.size) return;
  throw new FormatError(
    source.name,
    `truncated: expected ${length} bytes at offset ${offset}, the file has ${source.size} bytes`,
  );
}

/** Bytes already in memory; nothing is copied until `readInto`. */
export function memorySource(bytes: Uint8Array, name: string): ByteSource {
  const source = {
    name,
    size: bytes.byteLength,
    async read(offset: number, length: number): Promise<Uint8Array> {
      checkRange(source, offset, length);
      return bytes.subarray(offset, offset + length);
    },
    async readInto(offset: number, target: Uint8Array): Promise<void> {
      checkRange(source, offset, target.byteLength);
      target.set(bytes.subarray(offset, offset + target.byteLength));
    },
    async close(): Promise<void> {},
  };
  return source;
}

/** A browser Blob or File (Node has Blob too); only the asked ranges are read. */
export function blobSource(blob: Blob, name: string): ByteSource {
  const source = {
    name,
    size: blob.size,
    async read(offset: number, length: number): Promise<Uint8Array> {
      checkRange(source, offset, length);
      const bytes = new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
      if (bytes.byteLength !== length) {
        throw new FormatError(
          name,
          `truncated: expected ${length} bytes at offset ${offset}, ${bytes.byteLength} came`,
        );
      }
      return bytes;
    },
    async close(): Promise<void> {},
  };
  return source;
}

/**
 * A file on disk (Node only; the browser gets an error that says what to use instead). The file stays open until
 * `close()`. A missing file rejects with the system's own error, a folder with an Error that says so.
 */
export async function fileSource(path: string): Promise<ByteSource> {
  nodeOnly(`fileSource('${path}')`, 'use blobSource(file, file.name)');
  const { openFileSource } = await import('./fileSourceNode.js');
  return openFileSource(path);
}

/** Fills `target` from any source, with `readInto` where the source has it. */
export async function readIntoBuffer(source: ByteSource, offset: number, target: Uint8Array): Promise<void> {
  if (source.readInto) return source.readInto(offset, target);
  target.set(await source.read(offset, target.byteLength));
}
