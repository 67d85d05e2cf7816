// Zip archives whose entries are stored, not compressed: the container of torch's files. Finds entries and where their
// bytes are, with every offset checked; refuses compression, encryption, overlaps, names twice and archives that need
// zip64. Nothing about torch in here.
// Source: PKWARE APPNOTE.TXT, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (end record).

import type { ByteSource } from './byteSource.js';
import { FormatError } from './errors.js';
import { decodeUtf8 } from './strictJson.js';
import { shorten } from './tensorFile.js';

/** Where the bytes of an entry are in the archive. */
export interface ZipEntry {
  readonly name: string;
  readonly byteOffset: number;
  readonly byteLength: number;
}

const endBytes = 22;
const centralBytes = 46;
const localBytes = 30;
const maxComment = 65_535;
const maxDirectoryBytes = 16 * 2 ** 20;

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** All entries by name. FormatError for anything that is not a plain archive of stored entries. */
export async function readStoredZip(source: ByteSource): Promise<Map<string, ZipEntry>> {
  const directory = await findDirectory(source);
  const bytes = await source.read(directory.byteOffset, directory.byteLength);
  const view = viewOf(bytes);
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < directory.count; i++) {
    if (at + centralBytes > bytes.byteLength || view.getUint32(at, true) !== 0x02014b50) {
      throw new FormatError(
        source.name,
        `zip: expected the directory entry ${i} of ${directory.count} at directory byte ${at}`,
      );
    }
    const nameBytes = view.getUint16(at + 28, true);
    const next = at + centralBytes + nameBytes + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    if (next > bytes.byteLength)
      throw new FormatError(source.name, `zip: directory entry ${i} runs over the end of the directory`);
    const name = decodeUtf8(
      bytes.subarray(at + centralBytes, at + centralBytes + nameBytes),
      source.name,
      `zip: the name of entry ${i}`,
    );
    if (entries.has(name)) throw new FormatError(source.name, `zip: has the entry '${shorten(name)}' twice`);
    entries.set(
      name,
      await locate(source, name, new DataView(view.buffer, view.byteOffset + at, centralBytes), directory.byteOffset),
    );
    at = next;
  }
  if (at !== bytes.byteLength) {
    throw new FormatError(source.name, `zip: the directory has ${bytes.byteLength} bytes, its entries take ${at}`);
  }
  checkOverlap(source.name, entries);
  return entries;
}

/** Reads the end record: the last one in the file whose comment reaches exactly to the end. */
async function findDirectory(source: ByteSource): Promise<{ byteOffset: number; byteLength: number; count: number }> {
  const tailBytes = Math.min(source.size, endBytes + maxComment);
  const tail = await source.read(source.size - tailBytes, tailBytes);
  const view = viewOf(tail);
  for (let at = tailBytes - endBytes; at >= 0; at--) {
    if (view.getUint32(at, true) !== 0x06054b50 || at + endBytes + view.getUint16(at + 20, true) !== tailBytes)
      continue;
    const count = view.getUint16(at + 10, true);
    const byteLength = view.getUint32(at + 12, true);
    const byteOffset = view.getUint32(at + 16, true);
    if (count === 0xffff || byteLength === 0xffffffff || byteOffset === 0xffffffff) {
      throw new FormatError(source.name, 'zip: needs zip64 (over 4 GiB or 65,534 entries), which is not read');
    }
    if (
      view.getUint16(at + 4, true) !== 0 ||
      view.getUint16(at + 6, true) !== 0 ||
      view.getUint16(at + 8, true) !== count
    ) {
      throw new FormatError(source.name, 'zip: is one part of several, only whole archives are read');
    }
    if (byteOffset + byteLength > source.size - tailBytes + at || byteLength > maxDirectoryBytes) {
      throw new FormatError(
        source.name,
        `zip: the directory (${byteLength} bytes at ${byteOffset}) does not fit before its end record`,
      );
    }
    return { byteOffset, byteLength, count };
  }
  throw new FormatError(source.name, 'zip: expected an archive, it has no end record');
}

/** Checks one directory entry (`view` over its fixed part) and its local header, and returns where the bytes are. */
async function locate(source: ByteSource, name: string, view: DataView, limit: number): Promise<ZipEntry> {
  const fault = (text: string): FormatError => new FormatError(source.name, `zip: entry '${shorten(name)}' ${text}`);
  const method = view.getUint16(10, true);
  const packed = view.getUint32(20, true);
  const byteLength = view.getUint32(24, true);
  const header = view.getUint32(42, true);
  if (view.getUint16(8, true) & 1) throw fault('is encrypted');
  if (method !== 0 || packed !== byteLength)
    throw fault(`is compressed (method ${method}), only stored entries are read`);
  if (byteLength === 0xffffffff || header === 0xffffffff) throw fault('needs zip64, which is not read');
  if (header + localBytes > limit) throw fault(`starts at byte ${header}, the entries end at ${limit}`);
  const local = viewOf(await source.read(header, localBytes));
  if (local.getUint32(0, true) !== 0x04034b50) throw fault(`has no local header at byte ${header}`);
  const byteOffset = header + localBytes + local.getUint16(26, true) + local.getUint16(28, true);
  if (byteOffset + byteLength > limit)
    throw fault(`takes ${byteLength} bytes from ${byteOffset}, the entries end at ${limit}`);
  return { name, byteOffset, byteLength };
}

function checkOverlap(sourceName: string, entries: ReadonlyMap<string, ZipEntry>): void {
  const ordered = [...entries.values()].sort((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  let end = 0;
  for (const entry of ordered) {
    if (entry.byteOffset < end)
      throw new FormatError(sourceName, `zip: entry '${shorten(entry.name)}' overlaps another one`);
    end = entry.byteOffset + entry.byteLength;
  }
}
