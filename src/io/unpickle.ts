// A restricted unpickler for what torch.save writes (protocol 2): dictionaries, tuples, plain values and tensors. A
// pickle is a program, and this one is untrusted: opcodes and globals outside of the lists below are refused, nothing
// is called, and no storage is read here.
// Source: CPython's Lib/pickletools.py for the opcodes, torch/serialization.py (persistent_id) and torch/_utils.py for
// what they carry.

import { FormatError } from './errors.js';
import type { PlainDType } from './storedDType.js';
import { decodeUtf8 } from './strictJson.js';
import { shorten } from './tensorFile.js';

/** A storage the pickle refers to: `count` values of `dtype` in the archive's entry `data/KEY`. */
export class PickledStorage {
  readonly dtype: PlainDType;
  readonly key: string;
  readonly count: number;

  constructor(dtype: PlainDType, key: string, count: number) {
    this.dtype = dtype;
    this.key = key;
    this.count = count;
  }
}

/** A tensor: a strided view of a storage; offset and strides count values. Not checked against the storage yet. */
export class PickledTensor {
  readonly storage: PickledStorage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];

  constructor(storage: PickledStorage, offset: number, shape: readonly number[], strides: readonly number[]) {
    this.storage = storage;
    this.offset = offset;
    // Copies: the pickle can still reach the lists it gave.
    this.shape = [...shape];
    this.strides = [...strides];
  }
}

/** What a pickle can hold. Containers may refer to themselves: walk them with care. */
export type Pickled =
  null | boolean | number | string | Pickled[] | Map<Pickled, Pickled> | PickledStorage | PickledTensor | PickledGlobal;

class PickledGlobal {
  readonly kind: 'dict' | 'tensor' | 'typed tensor' | 'parameter' | 'storage' | 'untyped storage' | 'type';
  readonly dtype: PlainDType | undefined;
  /** What torch calls a type. */
  readonly torchType: string | undefined;

  constructor(kind: PickledGlobal['kind'], dtype?: PlainDType, torchType?: string) {
    this.kind = kind;
    this.dtype = dtype;
    this.torchType = torchType;
  }
}

/** Every global that is understood. */
const globals: ReadonlyMap<string, PickledGlobal> = new Map([
  ['collections.OrderedDict', new PickledGlobal('dict')],
  ['torch._utils._rebuild_tensor_v2', new PickledGlobal('tensor')],
  // Tensors of types that have no storage class of their own, float8 among them: known only to be refused by name.
  ['torch._utils._rebuild_tensor_v3', new PickledGlobal('typed tensor')],
  ['torch.storage.UntypedStorage', new PickledGlobal('untyped storage')],
  ['torch._utils._rebuild_parameter', new PickledGlobal('parameter')],
  ['torch.FloatStorage', new PickledGlobal('storage', 'F32')],
  ['torch.HalfStorage', new PickledGlobal('storage', 'F16')],
  ['torch.BFloat16Storage', new PickledGlobal('storage', 'BF16')],
  ['torch.DoubleStorage', new PickledGlobal('storage', 'F64')],
  ['torch.LongStorage', new PickledGlobal('storage', 'I64')],
  ['torch.IntStorage', new PickledGlobal('storage', 'I32')],
  ['torch.ShortStorage', new PickledGlobal('storage', 'I16')],
  ['torch.CharStorage', new PickledGlobal('storage', 'I8')],
  ['torch.ByteStorage', new PickledGlobal('storage', 'U8')],
  ['torch.BoolStorage', new PickledGlobal('storage', 'BOOL')],
]);

const maxRank = 32;

const isWhole = (value: Pickled): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
const isWholeList = (value: Pickled): value is number[] =>
  Array.isArray(value) && value.length <= maxRank && value.every(isWhole);

/** Runs the pickle in `bytes` and returns the object it leaves. FormatError for whatever is not in the lists above. */
export function unpickle(bytes: Uint8Array, sourceName: string): Pickled {
  return new Unpickler(bytes, sourceName).run();
}

class Unpickler {
  private at = 0;
  /** The current stack; opening a mark sets it aside on `outer`. */
  private stack: Pickled[] = [];
  private readonly outer: Pickled[][] = [];
  private readonly memo = new Map<number, Pickled>();
  private readonly bytes: Uint8Array;
  private readonly sourceName: string;
  private readonly view: DataView;

  constructor(bytes: Uint8Array, sourceName: string) {
    this.bytes = bytes;
    this.sourceName = sourceName;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  private fault(text: string): FormatError {
    return new FormatError(this.sourceName, `pickle byte ${this.at}: ${text}`);
  }

  private take(length: number): number {
    if (length > this.bytes.byteLength - this.at) throw this.fault(`truncated: expected ${length} more bytes`);
    const start = this.at;
    this.at += length;
    return start;
  }

  private byte(): number {
    return this.bytes[this.take(1)];
  }

  private u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  private pop(): Pickled {
    const value = this.stack.pop();
    if (value === undefined) throw this.fault('takes a value from an empty stack');
    return value;
  }

  private popMany(count: number): Pickled[] {
    if (this.stack.length < count) throw this.fault('takes a value from an empty stack');
    return this.stack.splice(this.stack.length - count, count);
  }

  /** The values above the last mark, which is closed. */
  private popMark(): Pickled[] {
    const above = this.stack;
    const below = this.outer.pop();
    if (!below) throw this.fault('closes a mark that is not open');
    this.stack = below;
    return above;
  }

  private line(): string {
    const end = this.bytes.indexOf(10, this.at);
    if (end < 0 || end - this.at > 200) throw this.fault('expected a short line of text');
    const start = this.take(end + 1 - this.at);
    return decodeUtf8(this.bytes.subarray(start, end), this.sourceName, 'a name in the pickle');
  }

  private memoize(index: number): void {
    if (this.stack.length === 0) throw this.fault('memoizes a value of an empty stack');
    this.memo.set(index, this.stack[this.stack.length - 1]);
  }

  private recall(index: number): Pickled {
    const value = this.memo.get(index);
    if (value === undefined) throw this.fault(`recalls memo ${index}, which is not set`);
    return value;
  }

  run(): Pickled {
    if (this.byte() !== 0x80 || this.byte() !== 2) throw this.fault('expected a pickle of protocol 2');
    for (;;) {
      const opcode = this.byte();
      if (opcode === 0x2e) break; // STOP
      this.step(opcode);
    }
    if (this.outer.length || this.stack.length !== 1)
      throw this.fault(`ends with ${this.stack.length} values, expected one`);
    return this.stack[0];
  }

  private step(opcode: number): void {
    const stack = this.stack;
    switch (opcode) {
      case 0x28: // MARK
        this.outer.push(stack);
        this.stack = [];
        return;
      case 0x4e: // NONE
        stack.push(null);
        return;
      case 0x88: // NEWTRUE
        stack.push(true);
        return;
      case 0x89: // NEWFALSE
        stack.push(false);
        return;
      case 0x4b: // BININT1
        stack.push(this.byte());
        return;
      case 0x4d: // BININT2
        stack.push(this.view.getUint16(this.take(2), true));
        return;
      case 0x4a: // BININT
        stack.push(this.view.getInt32(this.take(4), true));
        return;
      case 0x8a: // LONG1
        stack.push(this.long());
        return;
      case 0x47: // BINFLOAT
        stack.push(this.view.getFloat64(this.take(8), false));
        return;
      case 0x58: // BINUNICODE
        stack.push(this.text(this.u32()));
        return;
      case 0x29: // EMPTY_TUPLE
      case 0x5d: // EMPTY_LIST
        stack.push([]);
        return;
      case 0x7d: // EMPTY_DICT
        stack.push(new Map());
        return;
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        stack.push(this.popMany(opcode - 0x84));
        return;
      case 0x74: {
        // TUPLE
        const items = this.popMark();
        this.stack.push(items);
        return;
      }
      case 0x61: // APPEND
        this.append([this.pop()]);
        return;
      case 0x65: // APPENDS
        this.append(this.popMark());
        return;
      case 0x73: // SETITEM
        this.setItems(this.popMany(2));
        return;
      case 0x75: // SETITEMS
        this.setItems(this.popMark());
        return;
      case 0x71: // BINPUT
        this.memoize(this.byte());
        return;
      case 0x72: // LONG_BINPUT
        this.memoize(this.u32());
        return;
      case 0x68: // BINGET
        stack.push(this.recall(this.byte()));
        return;
      case 0x6a: // LONG_BINGET
        stack.push(this.recall(this.u32()));
        return;
      case 0x63: // GLOBAL
        stack.push(this.global());
        return;
      case 0x51: // BINPERSID
        stack.push(this.storage(this.pop()));
        return;
      case 0x52: {
        // REDUCE
        const args = this.pop();
        stack.push(this.reduce(this.pop(), args));
        return;
      }
      case 0x62: // BUILD: attributes of a dictionary, `_metadata` of a state dict; they carry no weights
        this.pop();
        if (!(stack[stack.length - 1] instanceof Map))
          throw this.fault('sets attributes on something that is not a dictionary');
        return;
      default:
        throw this.fault(`opcode 0x${opcode.toString(16)} is not allowed`);
    }
  }

  private text(length: number): string {
    const start = this.take(length);
    return decodeUtf8(this.bytes.subarray(start, this.at), this.sourceName, 'a string in the pickle');
  }

  /** Little-endian two's complement of any length; only values that a number holds exactly. */
  private long(): number {
    const length = this.byte();
    const start = this.take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.bytes[start + i]);
    const number = Number(BigInt.asIntN(length * 8, value));
    if (!Number.isSafeInteger(number)) throw this.fault('holds an integer beyond 2^53');
    return number;
  }

  private append(items: Pickled[]): void {
    const list = this.stack[this.stack.length - 1];
    if (!Array.isArray(list)) throw this.fault('appends to something that is not a list');
    for (const item of items) list.push(item);
  }

  private setItems(items: Pickled[]): void {
    const dict = this.stack[this.stack.length - 1];
    if (!(dict instanceof Map)) throw this.fault('sets items of something that is not a dictionary');
    if (items.length % 2) throw this.fault('sets items from a key without a value');
    for (let i = 0; i < items.length; i += 2) dict.set(items[i], items[i + 1]);
  }

  private global(): PickledGlobal {
    const name = `${this.line()}.${this.line()}`;
    if (/^torch\.(?:b?float|complex|u?int|bits)\w*$/.test(name)) return new PickledGlobal('type', undefined, name);
    const found = globals.get(name);
    if (!found) throw this.fault(`the global '${shorten(name)}' is not allowed`);
    return found;
  }

  /** ('storage', torch.XStorage, key, location, count) */
  private storage(id: Pickled): Pickled {
    if (Array.isArray(id) && id.length === 5 && id[0] === 'storage') {
      const [, type, key, , count] = id;
      if (type instanceof PickledGlobal && type.dtype && typeof key === 'string' && isWhole(count)) {
        return new PickledStorage(type.dtype, key, count);
      }
      if (type instanceof PickledGlobal && type.kind === 'untyped storage') return type;
    }
    throw this.fault('refers to something that is not a storage');
  }

  private reduce(callable: Pickled, args: Pickled): Pickled {
    if (!(callable instanceof PickledGlobal) || !Array.isArray(args))
      throw this.fault('calls something that is not a known global');
    if (callable.kind === 'dict' && args.length === 0) return new Map();
    if (callable.kind === 'parameter' && args[0] instanceof PickledTensor) return args[0];
    if (callable.kind === 'tensor' && args.length >= 4) {
      const [storage, offset, shape, strides] = args;
      if (storage instanceof PickledStorage && isWhole(offset) && isWholeList(shape) && isWholeList(strides)) {
        if (shape.length === strides.length) return new PickledTensor(storage, offset, shape, strides);
      }
    }
    const type = args.find((arg): arg is PickledGlobal => arg instanceof PickledGlobal && arg.kind === 'type');
    if (callable.kind === 'typed tensor' && type) {
      const known = [...globals.values()].flatMap(({ dtype }) => dtype ?? []).join(', ');
      throw this.fault(`a tensor has the type ${type.torchType ?? ''}, which is not read; known: ${known}`);
    }
    throw this.fault(`calls a known global (${callable.kind}) with arguments that do not fit it`);
  }
}
