// A file on disk as a ByteSource. Node only; byteSource.ts loads this when a path is opened.

import { checkRange, type ByteSource } from './byteSource.js';
import { FormatError } from './errors.js';
import { openFile } from './openFileNode.js';

/** The file at `path`, open until `close()`. */
export async function openFileSource(path: string): Promise<ByteSource> {
  const { handle, size } = await openFile(path);
  const source = {
    name: path,
    size,
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
          throw new FormatError(
            path,
            `truncated: expected ${target.byteLength} bytes at offset ${offset}, ${done} came`,
          );
        }
        done += bytesRead;
      }
    },
    close: (): Promise<void> => handle.close(),
  };
  return source;
}
