// Files that are opened to be read: ordinary ones, no larger than their kind may be. A FIFO or a device would keep
// whoever reads it waiting for ever, and a huge text would fill the memory before a word of it is known to be wrong.
// Node only.

import { constants, type Stats } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { FormatError } from './errors.js';

/** The most bytes of a file that is read whole, by what it is. The largest in use have about a tenth. */
export const mostBytes = {
  /** config.json, generation_config.json, tokenizer_config.json, an adapter's configuration, a chat template. */
  settings: 16 * 2 ** 20,
  /** tokenizer.json: 34 MB for Gemma's 262,144 tokens. */
  vocabulary: 256 * 2 ** 20,
  /** The list of the tensors in the shards of a model. */
  index: 64 * 2 ** 20,
  /** Rows, which are held in memory with their tokens. */
  rows: 2 ** 30,
  /** Weights of adapters and checkpoints. */
  weights: 2 ** 32,
} as const;

export type FileKind = keyof typeof mostBytes;

/**
 * @throws FormatError naming a path that is no ordinary file, and what it is; the system's own error where nothing is
 */
export async function openFile(path: string): Promise<{ readonly handle: FileHandle; readonly size: number }> {
  refuseOthers(path, await stat(path));
  // Whatever takes the file's place in between is opened without waiting.
  const handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const info = await handle.stat();
    refuseOthers(path, info);
    return { handle, size: info.size };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/**
 * The bytes of a file. @throws FormatError naming the file: none, unreadable, no ordinary file, or larger than its kind
 * may be
 */
export async function readBounded(path: string, kind: FileKind): Promise<Uint8Array> {
  let file;
  try {
    file = await openFile(path);
  } catch (cause) {
    throw cause instanceof FormatError
      ? cause
      : new FormatError(path, `cannot be read: ${(cause as Error).message}`, { cause });
  }
  const { handle, size } = file;
  try {
    if (size > mostBytes[kind])
      throw new FormatError(path, `has ${size} bytes, at most ${mostBytes[kind]} are read of ${kind}`);
    const bytes = new Uint8Array(size);
    for (let done = 0; done < size;) {
      const { bytesRead } = await handle.read(bytes, done, Math.min(size - done, 2 ** 30), done);
      if (bytesRead === 0) throw new FormatError(path, `ends after ${done} of ${size} bytes`);
      done += bytesRead;
    }
    return bytes;
  } catch (cause) {
    throw cause instanceof FormatError
      ? cause
      : new FormatError(path, `cannot be read: ${(cause as Error).message}`, { cause });
  } finally {
    await handle.close();
  }
}

/** The text of a file in UTF-8. @throws as `readBounded` */
export async function readTextBounded(path: string, kind: FileKind): Promise<string> {
  return new TextDecoder().decode(await readBounded(path, kind));
}

function refuseOthers(path: string, info: Stats): void {
  if (info.isFile()) return;
  const kind = info.isDirectory()
    ? 'a folder'
    : info.isFIFO()
      ? 'a FIFO'
      : info.isSocket()
        ? 'a socket'
        : info.isCharacterDevice() || info.isBlockDevice()
          ? 'a device'
          : 'something else';
  throw new FormatError(path, `expected a file, it is ${kind}`);
}
