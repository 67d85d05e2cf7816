// A state dict as torch.save writes it (zip form): names and contiguous tensors. Reading is torchBin.ts.
// Source: torch/serialization.py (_save) and Python's pickletools for the opcodes of protocol 2.

import { writeStoredZip } from './zipWrite.js';

export interface TorchBinEntry {
  readonly name: string;
  readonly dtype: 'F32' | 'I64';
  readonly shape: readonly number[];
  /** Row-major. */
  readonly data: Float32Array | BigInt64Array;
}

const storageNames = { F32: 'FloatStorage', I64: 'LongStorage' } as const;

/** The bytes of a .bin file that `torch.load(..., weights_only=True)` and `readTorchBin` read back. */
export function writeTorchBin(entries: readonly TorchBinEntry[]): Uint8Array {
  const files = new Map<string, Uint8Array>();
  const text = new TextEncoder();
  files.set('archive/data.pkl', pickle(entries));
  files.set('archive/byteorder', text.encode('little'));
  entries.forEach(({ name, dtype, shape, data }, i) => {
    const count = shape.reduce((a, b) => a * b, 1);
    if (data.length !== count || (dtype === 'F32') !== data instanceof Float32Array) {
      throw new RangeError(
        `torch file: '${name}' has ${data.length} numbers, expected ${count} of ${dtype} for [${shape.join(',')}]`,
      );
    }
    // Little-endian, as every machine WebAssembly runs on.
    files.set(`archive/data/${i}`, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  });
  files.set('archive/version', text.encode('3\n'));
  return writeStoredZip(files);
}

function pickle(entries: readonly TorchBinEntry[]): Uint8Array {
  const out: number[] = [0x80, 2]; // PROTO 2
  const text = new TextEncoder();
  const ascii = (s: string): void => void out.push(...text.encode(s));
  const global = (module: string, name: string): void => ascii(`c${module}\n${name}\n`);
  const uint32 = (n: number): void => void out.push(n & 255, (n >>> 8) & 255, (n >>> 16) & 255, (n >>> 24) & 255);
  const string = (s: string): void => {
    const bytes = text.encode(s);
    ascii('X');
    uint32(bytes.length);
    out.push(...bytes);
  };
  const integer = (n: number): void => {
    ascii('J');
    uint32(n);
  };
  const tuple = (items: readonly number[]): void => {
    ascii('(');
    items.forEach(integer);
    ascii('t');
  };
  const orderedDict = (): void => {
    global('collections', 'OrderedDict');
    ascii(')R');
  };
  orderedDict();
  ascii('(');
  entries.forEach(({ name, dtype, shape }, i) => {
    string(name);
    global('torch._utils', '_rebuild_tensor_v2');
    ascii('((');
    string('storage');
    global('torch', storageNames[dtype]);
    string(String(i));
    string('cpu');
    integer(shape.reduce((a, b) => a * b, 1));
    ascii('tQ'); // BINPERSID
    integer(0);
    tuple(shape);
    tuple(shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1)));
    out.push(0x89); // NEWFALSE: no gradient
    orderedDict();
    ascii('tR');
  });
  ascii('u.');
  return Uint8Array.from(out);
}
