// Takes one file out of a zip archive (a Python wheel) onto disk, as a stream and with its size known beforehand.
// Node only; stored and deflated members of plain zip files, no zip64, no encryption (PKWARE APPNOTE 4.3, 4.4).

import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { PassThrough, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createInflateRaw } from 'node:zlib';
import { FormatError } from './errors.js';

const endSignature = 0x06054b50;
const entrySignature = 0x02014b50;
const headerSignature = 0x04034b50;
/** The directory of a wheel of a few files; more than this is refused. */
const maxDirectoryBytes = 1 << 20;

interface Member {
  method: number;
  packedBytes: number;
  bytes: number;
  offset: number;
}

/**
 * Writes one member of a zip file to `target`.
 * @param options.bytes the size the member must have; never more than that is written
 * @returns the sha256 of what was written, in hex
 * @throws FormatError for a file that is no zip, lacks the member or gives it another size; the signal's reason after
 * an abort
 */
export async function extractZipMember(
  zipPath: string,
  name: string,
  target: string,
  { bytes, signal }: { bytes: number; signal?: AbortSignal | undefined },
): Promise<{ sha256: string }> {
  const file = await open(zipPath);
  let member: Member;
  let start: number;
  try {
    member = await findMember(file, zipPath, name);
    if (member.bytes !== bytes) throw new FormatError(zipPath, `${name}: expected ${bytes} bytes, got ${member.bytes}`);
    if (member.method !== 0 && member.method !== 8)
      throw new FormatError(zipPath, `${name}: compression method ${member.method} is not supported`);
    const header = await readExactly(file, member.offset, 30, zipPath);
    if (header.readUInt32LE(0) !== headerSignature)
      throw new FormatError(zipPath, `${name}: no local header at ${member.offset}`);
    start = member.offset + 30 + header.readUInt16LE(26) + header.readUInt16LE(28);
    if (start + member.packedBytes > (await file.stat()).size)
      throw new FormatError(zipPath, `${name}: ends beyond the file`);
  } finally {
    await file.close();
  }

  const hash = createHash('sha256');
  let written = 0;
  const count = new Transform({
    transform(chunk: Buffer, _encoding, next) {
      written += chunk.length;
      if (written > bytes) return next(new FormatError(zipPath, `${name}: unpacks to more than its ${bytes} bytes`));
      hash.update(chunk);
      next(null, chunk);
    },
  });
  const packed =
    member.packedBytes === 0
      ? new PassThrough().end()
      : createReadStream(zipPath, { start, end: start + member.packedBytes - 1 });
  const unpack = member.method === 8 ? createInflateRaw() : new PassThrough();
  try {
    await pipeline(packed, unpack, count, createWriteStream(target), { ...(signal && { signal }) });
  } catch (error) {
    signal?.throwIfAborted();
    const code = (error as NodeJS.ErrnoException).code ?? '';
    throw code.startsWith('Z_')
      ? new FormatError(zipPath, `${name}: cannot be unpacked: ${(error as Error).message}`, { cause: error })
      : error;
  }
  if (written !== bytes) throw new FormatError(zipPath, `${name}: expected ${bytes} bytes, unpacked ${written}`);
  return { sha256: hash.digest('hex') };
}

async function findMember(file: FileHandle, source: string, name: string): Promise<Member> {
  const { size } = await file.stat();
  const tailBytes = Math.min(size, 22 + 0xffff);
  const tail = await readExactly(file, size - tailBytes, tailBytes, source);
  let end = tailBytes - 22;
  while (end >= 0 && tail.readUInt32LE(end) !== endSignature) end--;
  if (end < 0) throw new FormatError(source, `expected a zip file, found no end record in ${size} bytes`);
  const directoryBytes = tail.readUInt32LE(end + 12);
  const directoryOffset = tail.readUInt32LE(end + 16);
  if (directoryBytes > maxDirectoryBytes || directoryOffset + directoryBytes > size) {
    throw new FormatError(
      source,
      `directory of ${directoryBytes} bytes at ${directoryOffset} does not fit a file of ${size} bytes`,
    );
  }
  const directory = await readExactly(file, directoryOffset, directoryBytes, source);
  for (let at = 0; at + 46 <= directory.length && directory.readUInt32LE(at) === entrySignature;) {
    const nameBytes = directory.readUInt16LE(at + 28);
    if (directory.toString('utf8', at + 46, at + 46 + nameBytes) === name) {
      return {
        method: directory.readUInt16LE(at + 10),
        packedBytes: directory.readUInt32LE(at + 20),
        bytes: directory.readUInt32LE(at + 24),
        offset: directory.readUInt32LE(at + 42),
      };
    }
    at += 46 + nameBytes + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
  }
  throw new FormatError(source, `has no member ${name}`);
}

async function readExactly(file: FileHandle, offset: number, length: number, source: string): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
  if (bytesRead !== length) throw new FormatError(source, `expected ${length} bytes at ${offset}, got ${bytesRead}`);
  return buffer;
}
