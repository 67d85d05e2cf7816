// Writes messages of Protocol Buffers for tests.

export type MessageField = readonly [number: number, value: bigint | number | string | Uint8Array];

/** A message: bigints as varints, numbers as f32, texts and bytes with their length. */
export function message(...fields: readonly MessageField[]): Uint8Array {
  const bytes: number[] = [];
  const varint = (value: bigint): void => {
    let rest = BigInt.asUintN(64, value);
    for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
    bytes.push(Number(rest));
  };
  for (const [number, value] of fields) {
    const tag = (wireType: number): void => varint(BigInt(number * 8 + wireType));
    if (typeof value === 'bigint') {
      tag(0);
      varint(value);
    } else if (typeof value === 'number') {
      tag(5);
      bytes.push(...new Uint8Array(Float32Array.of(value).buffer));
    } else {
      const data = typeof value === 'string' ? new TextEncoder().encode(value) : value;
      tag(2);
      varint(BigInt(data.length));
      bytes.push(...data);
    }
  }
  return Uint8Array.from(bytes);
}
