// Writes small binary models of marian for tests, sound or broken on purpose.

export interface MarianItem {
  readonly name: string;
  readonly type: number;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
  /** The bytes that the table says the item has. */
  readonly dataBytes?: bigint;
}

export interface MarianSpec {
  readonly version?: bigint;
  readonly count?: bigint;
  /** The bytes between the shapes and the data. */
  readonly padding?: bigint;
  readonly items: readonly MarianItem[];
}

export const marianTypes = { int8: 0x0101, f32: 0x0404, intgemm8: 0x4101 } as const;

/** The bytes of a model. Data starts on a multiple of 256. */
export function marianBytes({ version = 1n, count, padding, items }: MarianSpec): Uint8Array {
  const bytes: number[] = [];
  const u64 = (value: bigint): void => {
    const view = new DataView(new ArrayBuffer(8));
    view.setBigUint64(0, value, true);
    bytes.push(...new Uint8Array(view.buffer));
  };
  const names = items.map(item => new TextEncoder().encode(`${item.name}\0`));
  u64(version);
  u64(count ?? BigInt(items.length));
  items.forEach((item, i) => {
    u64(BigInt(names[i].length));
    u64(BigInt(item.type));
    u64(BigInt(item.shape.length));
    u64(item.dataBytes ?? BigInt(item.data.length));
  });
  for (const name of names) bytes.push(...name);
  for (const { shape } of items) bytes.push(...new Uint8Array(Int32Array.from(shape).buffer));
  const gap = (256 - ((bytes.length + 8) % 256)) % 256;
  u64(padding ?? BigInt(gap));
  bytes.push(...new Array<number>(gap).fill(0));
  for (const { data } of items) bytes.push(...data);
  return Uint8Array.from(bytes);
}

/** Bytes padded as marian pads an item's. */
export function padded(...parts: readonly ArrayBufferView[]): Uint8Array {
  const bytes = parts.flatMap(part => [...new Uint8Array(part.buffer, part.byteOffset, part.byteLength)]);
  return Uint8Array.from({ length: Math.ceil(bytes.length / 256) * 256 }, (_, i) => bytes[i] ?? 0);
}

/** A quantised matrix: the stored whole numbers, row after row, and the multiplier behind them. */
export function intgemm8(
  name: string,
  shape: readonly number[],
  values: readonly number[],
  multiplier: number,
): MarianItem {
  return { name, type: marianTypes.intgemm8, shape, data: padded(Int8Array.from(values), floatBytes(multiplier)) };
}

export function floats(name: string, shape: readonly number[], values: readonly number[]): MarianItem {
  return { name, type: marianTypes.f32, shape, data: padded(Float32Array.from(values)) };
}

/** The configuration: a text that a zero byte ends. */
export function settings(text: string): MarianItem {
  const data = new TextEncoder().encode(`${text}\0`);
  return { name: 'special:model.yml', type: marianTypes.int8, shape: [data.length], data };
}

/** An f32 at any place: those of intgemm stand behind any number of bytes. */
function floatBytes(value: number): Uint8Array {
  return new Uint8Array(Float32Array.of(value).buffer);
}

/** An embedding of four words and a matrix of two inputs and three outputs, with its bias. */
export function smallMarian(): MarianItem[] {
  return [
    intgemm8('Wemb', [4, 2], [1, 2, 3, 4, 5, 6, -7, 127], 4),
    // Stored as [outputs, inputs].
    intgemm8('encoder_l1_ffn_W1', [2, 3], [10, 20, 30, 40, 50, -60], 10),
    floats('encoder_l1_ffn_b1', [1, 3], [0.5, -1, 2]),
    settings('type: transformer\ndim-emb: 2\ndim-vocabs:\n  - 4\n  - 4\ntied-embeddings-all: true\n'),
  ];
}
