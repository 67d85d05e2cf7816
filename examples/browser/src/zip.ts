// An adapter's few files as one zip, which `unzip` and the `reft` command's folders understand, and back. Files are
// stored, not compressed; reading also takes the deflate of other programs. Source: PKWARE APPNOTE.TXT 4.3.7, 4.3.12,
// 4.3.16.

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

function crc32(bytes: Uint8Array): number {
  let c = ~0;
  for (const byte of bytes) c = crcTable[(c ^ byte) & 255] ^ (c >>> 8);
  return ~c >>> 0;
}

export function zip(files: ReadonlyMap<string, Uint8Array>): Uint8Array<ArrayBuffer> {
  const entries = [...files].map(([name, bytes]) => ({
    name: new TextEncoder().encode(name),
    bytes,
    crc: crc32(bytes),
    at: 0,
  }));
  const size = entries.reduce((n, { name, bytes }) => n + 30 + 46 + 2 * name.length + bytes.length, 22);
  const out = new Uint8Array(size);
  const view = new DataView(out.buffer);
  let at = 0;
  // The fields that both headers share, from the version to the length of the extra field.
  const common = (to: number, { name, bytes, crc }: (typeof entries)[number]): void => {
    view.setUint16(to, 20, true);
    // 1980-01-01: the same files give the same zip.
    view.setUint16(to + 8, 0x21, true);
    view.setUint32(to + 10, crc, true);
    view.setUint32(to + 14, bytes.length, true);
    view.setUint32(to + 18, bytes.length, true);
    view.setUint16(to + 22, name.length, true);
  };
  for (const entry of entries) {
    entry.at = at;
    view.setUint32(at, 0x04034b50, true);
    common(at + 4, entry);
    out.set(entry.name, at + 30);
    out.set(entry.bytes, at + 30 + entry.name.length);
    at += 30 + entry.name.length + entry.bytes.length;
  }
  const directory = at;
  for (const entry of entries) {
    view.setUint32(at, 0x02014b50, true);
    view.setUint16(at + 4, 20, true);
    common(at + 6, entry);
    view.setUint32(at + 42, entry.at, true);
    out.set(entry.name, at + 46);
    at += 46 + entry.name.length;
  }
  view.setUint32(at, 0x06054b50, true);
  view.setUint16(at + 8, entries.length, true);
  view.setUint16(at + 10, entries.length, true);
  view.setUint32(at + 12, at - directory, true);
  view.setUint32(at + 16, directory, true);
  return out;
}

/** The files by the last part of their names. @throws Error for what is not a plain zip */
export async function unzip(bytes: Uint8Array<ArrayBuffer>): Promise<Map<string, Uint8Array>> {
  const fail = (): never => {
    throw new Error('the adapter is not a zip archive, or it is damaged');
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) return fail();
  const files = new Map<string, Uint8Array>();
  try {
    let at = view.getUint32(end + 16, true);
    for (let n = view.getUint16(end + 10, true); n > 0; n--) {
      if (view.getUint32(at, true) !== 0x02014b50) fail();
      const [method, crc, packed] = [
        view.getUint16(at + 10, true),
        view.getUint32(at + 16, true),
        view.getUint32(at + 20, true),
      ];
      const [nameLength, local] = [view.getUint16(at + 28, true), view.getUint32(at + 42, true)];
      const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
      at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
      if (name.endsWith('/')) continue;
      const from = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
      const stored = bytes.slice(from, from + packed);
      const data = method === 0 ? stored : method === 8 ? await inflate(stored) : fail();
      if (crc32(data) !== crc) fail();
      files.set(name.slice(name.lastIndexOf('/') + 1), data);
    }
  } catch {
    fail();
  }
  return files;
}

async function inflate(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
