// Writes small torch zip files for tests, sound or broken on purpose: a stored zip of any entries, and pickles from a
// few opcodes.

const encoder = new TextEncoder();

function little(size: number, value: number): number[] {
  return Array.from({ length: size }, (_, i) => Math.floor(value / 256 ** i) % 256);
}

/** An archive of stored entries. `method` and `flags` go into the directory as they are; checksums are zero. */
export function zipBytes(entries: readonly (readonly [string, Uint8Array])[], method = 0, flags = 0): Uint8Array {
  const bytes: number[] = [];
  const directory: number[] = [];
  for (const [name, data] of entries) {
    const text = encoder.encode(name);
    const start = bytes.length;
    const sizes = [...little(4, data.length), ...little(4, data.length), ...little(2, text.length)];
    const common = [...little(2, 20), ...little(2, flags), ...little(2, method), ...little(8, 0), ...sizes];
    bytes.push(...little(4, 0x04034b50), ...common, ...little(2, 0), ...text, ...data);
    directory.push(
      ...little(4, 0x02014b50),
      ...little(2, 20),
      ...common,
      ...little(12, 0),
      ...little(4, start),
      ...text,
    );
  }
  const end = [...little(4, 0x06054b50), ...little(4, 0), ...little(2, entries.length), ...little(2, entries.length)];
  return Uint8Array.from([
    ...bytes,
    ...directory,
    ...end,
    ...little(4, directory.length),
    ...little(4, bytes.length),
    ...little(2, 0),
  ]);
}

/** A torch file of one folder from its pickle and its storages by key. */
export function torchBytes(
  pickle: readonly number[],
  storages: Readonly<Record<string, Uint8Array>> = {},
  order = 'little',
): Uint8Array {
  return zipBytes([
    ['archive/data.pkl', Uint8Array.from(pickle)],
    ['archive/byteorder', encoder.encode(order)],
    ...Object.entries(storages).map(([key, data]) => [`archive/data/${key}`, data] as const),
  ]);
}

export const text = (value: string): number[] => [
  0x58,
  ...little(4, encoder.encode(value).length),
  ...encoder.encode(value),
];
export const int = (value: number): number[] => [0x4a, ...little(4, value)];
export const tuple = (...items: number[][]): number[] => [0x28, ...items.flat(), 0x74];
export const global = (module: string, name: string): number[] => [0x63, ...encoder.encode(`${module}\n${name}\n`)];
export const orderedDict: number[] = [...global('collections', 'OrderedDict'), 0x29, 0x52];

/** A dictionary of pickled values, as a whole pickle. */
export function dictPickle(items: readonly (readonly [string, number[]])[]): number[] {
  return [0x80, 2, ...orderedDict, 0x28, ...items.flatMap(([key, value]) => [...text(key), ...value]), 0x75, 0x2e];
}

/** torch._utils._rebuild_tensor_v2 over storage `key` of `count` values. */
export function tensorPickle(
  storageClass: string,
  key: string,
  count: number,
  offset: number,
  shape: readonly number[],
  strides: readonly number[],
): number[] {
  const storage = [...tuple(text('storage'), global('torch', storageClass), text(key), text('cpu'), int(count)), 0x51];
  const args = [storage, int(offset), tuple(...shape.map(int)), tuple(...strides.map(int)), [0x89], orderedDict];
  return [...global('torch._utils', '_rebuild_tensor_v2'), ...tuple(...args), 0x52];
}
