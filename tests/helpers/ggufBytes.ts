// Writes small GGUF files for tests, sound or broken on purpose: every field that a reader must check can be
// overridden.

type GgufScalar = number | bigint | boolean | string;

export type GgufValue =
  | {
      readonly type: 'u8' | 'i8' | 'u16' | 'i16' | 'u32' | 'i32' | 'f32' | 'f64' | 'u64' | 'i64';
      readonly value: number | bigint;
    }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'array'; readonly of: string; readonly value: readonly GgufScalar[]; readonly count?: bigint };

export interface GgufTensorSpec {
  readonly name: string;
  /** Innermost side first, as the file has them. */
  readonly sides: readonly (number | bigint)[];
  readonly type: number;
  readonly data: Uint8Array;
  readonly offset?: bigint;
}

export interface GgufSpec {
  readonly version?: number;
  readonly alignment?: number;
  readonly tensorCount?: bigint;
  readonly keyCount?: bigint;
  readonly metadata: readonly (readonly [string, GgufValue])[];
  readonly tensors: readonly GgufTensorSpec[];
}

const valueTypes = ['u8', 'i8', 'u16', 'i16', 'u32', 'i32', 'f32', 'bool', 'string', 'array', 'u64', 'i64', 'f64'];

/** The bytes of a GGUF file; data is laid out one tensor after the other, padded to the alignment (32 unless given). */
export function ggufBytes(spec: GgufSpec): Uint8Array {
  const bytes: number[] = [];
  const push = (size: number, write: (view: DataView) => void): void => {
    const view = new DataView(new ArrayBuffer(size));
    write(view);
    bytes.push(...new Uint8Array(view.buffer));
  };
  const u32 = (value: number): void => push(4, view => view.setUint32(0, value, true));
  const u64 = (value: number | bigint): void => push(8, view => view.setBigUint64(0, BigInt(value), true));
  const text = (value: string): void => {
    const encoded = new TextEncoder().encode(value);
    u64(encoded.length);
    bytes.push(...encoded);
  };
  const writeValue = (entry: GgufValue): void => {
    switch (entry.type) {
      case 'string':
        return text(entry.value);
      case 'array':
        u32(valueTypes.indexOf(entry.of));
        u64(entry.count ?? entry.value.length);
        for (const value of entry.value) writeValue({ type: entry.of, value } as GgufValue);
        return;
      case 'bool':
        return void bytes.push(entry.value ? 1 : 0);
      case 'u64':
      case 'i64':
        return push(8, view => view.setBigInt64(0, BigInt(entry.value), true));
      case 'f64':
        return push(8, view => view.setFloat64(0, Number(entry.value), true));
      case 'f32':
        return push(4, view => view.setFloat32(0, Number(entry.value), true));
      default: {
        const size = Number(entry.type.slice(1)) / 8;
        return push(size, view => {
          for (let i = 0; i < size; i++) view.setUint8(i, Number(entry.value) >> (8 * i));
        });
      }
    }
  };

  const alignment = spec.alignment ?? 32;
  const pad = (): void => {
    while (bytes.length % alignment) bytes.push(0);
  };
  bytes.push(...new TextEncoder().encode('GGUF'));
  u32(spec.version ?? 3);
  u64(spec.tensorCount ?? spec.tensors.length);
  u64(spec.keyCount ?? spec.metadata.length);
  for (const [key, value] of spec.metadata) {
    text(key);
    u32(valueTypes.indexOf(value.type));
    writeValue(value);
  }
  let offset = 0;
  for (const tensor of spec.tensors) {
    text(tensor.name);
    u32(tensor.sides.length);
    for (const side of tensor.sides) u64(side);
    u32(tensor.type);
    u64(tensor.offset ?? offset);
    offset += Math.ceil(tensor.data.byteLength / alignment) * alignment;
  }
  for (const tensor of spec.tensors) {
    pad();
    bytes.push(...tensor.data);
  }
  pad();
  return Uint8Array.from(bytes);
}

/** Bytes of numbers in a typed array. */
export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength).slice();
}

/** A small sound file: five tensors of five types and metadata of every kind. */
export function smallGguf(): GgufSpec {
  const block = (size: number, count: number): Uint8Array => {
    const data = Uint8Array.from({ length: size * count }, (_, i) => (i * 37 + 11) & 255);
    for (let i = 0; i < count; i++) data.set([0x66, 0x2e], i * size); // scale 0.1 in f16
    return data;
  };
  return {
    metadata: [
      ['general.architecture', { type: 'string', value: 'llama' }],
      ['general.alignment', { type: 'u32', value: 32 }],
      ['llama.block_count', { type: 'u32', value: 1 }],
      ['llama.rope.freq_base', { type: 'f32', value: 10000 }],
      ['test.i8', { type: 'i8', value: -5 }],
      ['test.u16', { type: 'u16', value: 65535 }],
      ['test.f64', { type: 'f64', value: 0.1 }],
      ['test.u64', { type: 'u64', value: 1n << 60n }],
      ['test.i64', { type: 'i64', value: -7n }],
      ['test.flag', { type: 'bool', value: true }],
      ['tokenizer.ggml.tokens', { type: 'array', of: 'string', value: ['<s>', 'Ġhello', 'wörld', '😀', ''] }],
      ['tokenizer.ggml.scores', { type: 'array', of: 'f32', value: [0, -1, -2, -3.5, 4] }],
      ['tokenizer.ggml.token_type', { type: 'array', of: 'i32', value: [3, 1, 1, 1, -1] }],
    ],
    tensors: [
      { name: 'token_embd.weight', sides: [32, 3], type: 8, data: block(34, 3) },
      { name: 'norm', sides: [4], type: 0, data: bytesOf(Float32Array.of(1, -2.5, 3, 0.1)) },
      { name: 'blk.0.a.weight', sides: [64, 2], type: 3, data: block(20, 4) },
      { name: 'blk.0.b.weight', sides: [32, 1], type: 2, data: block(18, 1) },
      {
        name: 'half',
        sides: [3, 2],
        type: 1,
        data: bytesOf(Uint16Array.of(0x3c00, 0xc000, 0x7bff, 1, 0x8000, 0x7c00)),
      },
    ],
  };
}
