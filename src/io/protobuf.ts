// Messages of Protocol Buffers: their fields by number, one after the other, as the wire format has them
// (protobuf.dev/programming-guides/encoding). What a number stands for is the business of who reads a message.

import { FormatError } from './errors.js';

/** The value of a field: a whole number of 64 bits, an f32 or f64, or the bytes of a text or of a message inside. */
export type FieldValue =
  | { readonly kind: 'integer'; readonly value: bigint }
  | { readonly kind: 'float'; readonly value: number }
  | { readonly kind: 'bytes'; readonly value: Uint8Array };

export type Field = FieldValue & { readonly number: number };

/**
 * The fields of a message. Bytes share memory with it.
 * @param what the message, for errors
 * @throws FormatError where the bytes are no message
 */
export function* fieldsOfMessage(bytes: Uint8Array, source: string, what: string): Generator<Field> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = 0;
  const fault = (text: string): FormatError => new FormatError(source, `${what}, byte ${offset}: ${text}`);
  const take = (length: number): number => {
    if (length > bytes.length - offset) throw fault(`expected ${length} bytes, ${bytes.length - offset} are left`);
    offset += length;
    return offset - length;
  };
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[take(1)];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw fault('expected a number of at most ten bytes');
  };
  while (offset < bytes.length) {
    const tag = varint();
    const number = Number(tag >> 3n);
    switch (Number(tag & 7n)) {
      case 0:
        yield { number, kind: 'integer', value: varint() };
        break;
      case 1:
        yield { number, kind: 'float', value: view.getFloat64(take(8), true) };
        break;
      case 2: {
        const length = varint();
        if (length > BigInt(bytes.length)) throw fault(`field ${number} says it has ${length} bytes`);
        const start = take(Number(length));
        yield { number, kind: 'bytes', value: bytes.subarray(start, offset) };
        break;
      }
      case 5:
        yield { number, kind: 'float', value: view.getFloat32(take(4), true) };
        break;
      default:
        throw fault(`field ${number} is of wire type ${tag & 7n}, which is not read`);
    }
  }
}
