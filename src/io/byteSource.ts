// Where file bytes come from: memory, a browser Blob or File, a file on disk. Readers of formats know this interface only,
// so each of them runs in Node and in the browser and can read parts of a file without loading it whole.
// Nothing about any format may be put in here.

import { FormatError } from './errors.js';

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
function checkRange(source: { readonly name: string; readonly size: number }, offset: number, length: number): void {
  const sound = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (sound && offset + length <= source.size) return;
  throw new FormatError(source.name, `truncated: expected ${length} bytes at offset ${offset}, the file has ${source.size} bytes`);
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
        throw new FormatError(name, `truncated: expected ${length} bytes at offset ${offset}, ${bytes.byteLength} came`);
      }
      return bytes;
    },
    async close(): Promise<void> {},
  };
  return source;
}

/**
 * A file on disk (Node only; the browser gets an error that says what to use instead). The file stays open until `close()`.
 * A missing file rejects with the system's own error, a folder with an Error that says so.
 */
export async function fileSource(path: string): Promise<ByteSource> {
  if (typeof process === 'undefined' || !process.versions?.node) {
    throw new Error(`fileSource('${path}'): files can be opened by path in Node only; in the browser use blobSource(file, file.name)`);
  }
  const { open } = await import('node:fs/promises');
  const handle = await open(path, 'r');
  const stat = await handle.stat();
  if (!stat.isFile()) {
    await handle.close();
    throw new Error(`fileSource: expected a file, '${path}' is ${stat.isDirectory() ? 'a folder' : 'not a regular file'}`);
  }
  const source = {
    name: path,
    size: stat.size,
    async read(offset: number, length: number): Promise<Uint8Array> {
      checkRange(source, offset, length);
      const target = new Uint8Array(length);
      await source.readInto(offset, target);
      return target;
    },
    async readInto(offset: number, target: Uint8Array): Promise<void> {
      checkRange(source, offset, target.byteLength);
      let done = 0;
      while (done < target.byteLength) {
        const { bytesRead } = await handle.read(target, done, target.byteLength - done, offset + done);
        if (bytesRead === 0) {
          throw new FormatError(path, `truncated: expected ${target.byteLength} bytes at offset ${offset}, ${done} came`);
        }
        done += bytesRead;
      }
    },
    close: (): Promise<void> => handle.close(),
  };
  return source;
}

/** Fills `target` from any source, with `readInto` where the source has it. */
export async function readIntoBuffer(source: ByteSource, offset: number, target: Uint8Array): Promise<void> {
  if (source.readInto) return source.readInto(offset, target);
  target.set(await source.read(offset, target.byteLength));
}
