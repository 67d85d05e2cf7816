// A zip archive of stored entries, in memory: the container of torch's files and of downloads in a browser. Names and
// bytes; no dates, so that the same entries give the same archive.
// Source: PKWARE APPNOTE.TXT, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (end record).

const table = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

export function crc32(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (const byte of bytes) c = table[(c ^ byte) & 255] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

/** 1 January 1980, the earliest date there is. */
const date = 0x21;

/** @throws RangeError for what would need zip64, or a name twice */
export function writeStoredZip(entries: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const text = new TextEncoder();
  const files = [...entries].map(([name, bytes]) => ({ name: text.encode(name), bytes, crc: crc32(bytes) }));
  const total = files.reduce((n, f) => n + 30 + 46 + 2 * f.name.length + f.bytes.length, 22);
  if (total >= 0xffffffff || files.length >= 0xffff)
    throw new RangeError(`zip: ${files.length} entries of ${total} bytes need zip64, which is not written`);
  const out = new Uint8Array(total);
  const view = new DataView(out.buffer);
  let at = 0;
  /** The fields that both headers have, from the version needed on. */
  const shared = (from: number, { name, bytes, crc }: (typeof files)[number]): void => {
    view.setUint16(from, 20, true);
    view.setUint16(from + 2, 0x800, true); // names are UTF-8
    view.setUint16(from + 8, date, true);
    view.setUint32(from + 10, crc, true);
    view.setUint32(from + 14, bytes.length, true);
    view.setUint32(from + 18, bytes.length, true);
    view.setUint16(from + 22, name.length, true);
  };
  const offsets = files.map(file => {
    const start = at;
    view.setUint32(at, 0x04034b50, true);
    shared(at + 4, file);
    out.set(file.name, at + 30);
    out.set(file.bytes, at + 30 + file.name.length);
    at += 30 + file.name.length + file.bytes.length;
    return start;
  });
  const directory = at;
  files.forEach((file, i) => {
    view.setUint32(at, 0x02014b50, true);
    view.setUint16(at + 4, 20, true);
    shared(at + 6, file);
    view.setUint32(at + 42, offsets[i], true);
    out.set(file.name, at + 46);
    at += 46 + file.name.length;
  });
  view.setUint32(at, 0x06054b50, true);
  view.setUint16(at + 8, files.length, true);
  view.setUint16(at + 10, files.length, true);
  view.setUint32(at + 12, at - directory, true);
  view.setUint32(at + 16, directory, true);
  return out;
}
