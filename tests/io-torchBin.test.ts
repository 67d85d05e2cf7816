// torch zip files: real ones as pyreft saves them, against the values of the run that made them, and pickles that must
// be refused.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { memorySource } from '../src/io/byteSource.js';
import { FormatError } from '../src/io/errors.js';
import { storedToFloat32 } from '../src/io/storedDType.js';
import { readTorchBin } from '../src/io/torchBin.js';
import type { TorchTensor } from '../src/io/torchBin.js';
import { bytesOf } from './helpers/ggufBytes.js';
import {
  dictPickle,
  global,
  int,
  orderedDict,
  tensorPickle,
  text,
  torchBytes,
  tuple,
  zipBytes,
} from './helpers/torchBytes.js';

const fixture = (name: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`fixtures/io/${name}`, import.meta.url)));
const read = (bytes: Uint8Array) => readTorchBin(memorySource(bytes, 'x.bin'));

interface Expected {
  readonly file: string;
  readonly key: string;
  readonly dtype: string;
  readonly shape: number[];
  readonly values: [number, number][];
}

const expected = JSON.parse(new TextDecoder().decode(fixture('expected.json'))) as Expected[];

for (const file of new Set(expected.map(entry => entry.file))) {
  test(`${file} as pyreft saved it`, async () => {
    const values = await read(fixture(file));
    for (const { key, dtype, shape, values: probes } of expected.filter(entry => entry.file === file)) {
      const tensor = values.get(key) as TorchTensor;
      assert.deepEqual([tensor.dtype, tensor.shape], [dtype, shape], key);
      const data = storedToFloat32(tensor.dtype, tensor.data);
      assert.equal(
        data.length,
        shape.reduce((product, side) => product * side, 1),
      );
      // The run's values were kept in f32 by another path than the file's; bfloat16 keeps 8 bits.
      const tolerance = dtype === 'BF16' ? 2 ** -8 : 1e-6;
      for (const [index, value] of probes) {
        assert.ok(Math.abs(data[index] - value) <= tolerance, `${key}[${index}]: ${data[index]}, expected ${value}`);
      }
    }
  });
}

test('rank 0, 64-bit integers and the ignored _metadata', async () => {
  const values = await read(fixture('consreft.bin'));
  assert.deepEqual(
    [...values.keys()],
    [
      'learned_source',
      'embed_dim',
      'interchange_dim',
      'rotate_layer.parametrizations.weight.original',
      'rotate_layer.parametrizations.weight.0.base',
    ],
  );
  assert.deepEqual(values.get('embed_dim'), { dtype: 'I64', shape: [], data: BigInt64Array.of(48n) });
});

test('a column-major base is orthonormal once it is row-major', async () => {
  const { data } = (await read(fixture('consreft.bin'))).get(
    'rotate_layer.parametrizations.weight.0.base',
  ) as TorchTensor;
  const base = data as Float32Array;
  for (let i = 0; i < 48; i += 7) {
    for (let j = 0; j < 48; j += 5) {
      let dot = 0;
      for (let k = 0; k < 48; k++) dot += base[i * 48 + k] * base[j * 48 + k];
      assert.ok(Math.abs(dot - (i === j ? 1 : 0)) < 1e-5, 'Math.abs(dot - (i === j ? 1 : 0)) < 1e-5');
    }
  }
});

const six = bytesOf(Float32Array.of(1, 2, 3, 4, 5, 6));

test('offsets, strides, shared storages and plain values', async () => {
  const values = await read(
    torchBytes(
      dictPickle([
        ['rows', tensorPickle('FloatStorage', '0', 6, 0, [2, 3], [3, 1])],
        ['columns', tensorPickle('FloatStorage', '0', 6, 0, [3, 2], [1, 3])],
        ['part', tensorPickle('FloatStorage', '0', 6, 2, [3], [1])],
        ['step', tensorPickle('FloatStorage', '0', 6, 1, [2], [3])],
        ['one', tensorPickle('FloatStorage', '0', 6, 5, [], [])],
        ['none', tensorPickle('FloatStorage', '0', 6, 0, [0, 3], [3, 1])],
        ['flags', tensorPickle('BoolStorage', '1', 2, 0, [2], [1])],
        ['count', int(-7)],
        ['rate', [0x47, 0x3f, 0xb9, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a]],
        ['long', [0x8a, 5, 0, 0, 0, 0, 1]],
        ['name', text('wörld')],
        ['yes', [0x88]],
        ['nothing', [0x4e]],
      ]),
      { 0: six, 1: Uint8Array.of(0, 1) },
    ),
  );
  const f32 = (shape: number[], ...numbers: number[]) => ({ dtype: 'F32', shape, data: Float32Array.from(numbers) });
  assert.deepEqual(Object.fromEntries(values), {
    rows: f32([2, 3], 1, 2, 3, 4, 5, 6),
    columns: f32([3, 2], 1, 4, 2, 5, 3, 6),
    part: f32([3], 3, 4, 5),
    step: f32([2], 2, 5),
    one: f32([], 6),
    none: f32([0, 3]),
    flags: { dtype: 'BOOL', shape: [2], data: Uint8Array.of(0, 1) },
    count: -7,
    rate: 0.1,
    long: 2 ** 32,
    name: 'wörld',
    yes: true,
    nothing: null,
  });
});

async function refused(bytes: Uint8Array, message: RegExp): Promise<void> {
  await assert.rejects(read(bytes), (error: Error) => {
    assert.ok(error instanceof FormatError, String(error));
    assert.match(error.message, message);
    return true;
  });
}

const withTensor = (count: number, offset: number, shape: number[], strides: number[], storage = six): Uint8Array =>
  torchBytes(dictPickle([['t', tensorPickle('FloatStorage', '0', count, offset, shape, strides)]]), { 0: storage });

test('pickles that do anything else are refused', async () => {
  const value = (pickle: number[]): Uint8Array => torchBytes(dictPickle([['x', pickle]]));
  await refused(
    value([...global('os', 'system'), ...tuple(text('true')), 0x52]),
    /the global 'os\.system' is not allowed/,
  );
  await refused(value([...global('torch', 'load'), 0x29, 0x52]), /the global 'torch\.load' is not allowed/);
  await refused(value([...global('builtins', 'getattr'), 0x29, 0x52]), /is not allowed/);
  await refused(value([0x69, 0x6f, 0x73, 10]), /opcode 0x69 is not allowed/); // INST
  await refused(value([0x93]), /opcode 0x93 is not allowed/); // STACK_GLOBAL
  await refused(value([0x81]), /opcode 0x81 is not allowed/); // NEWOBJ
  await refused(value([...int(5), 0x29, 0x52]), /calls something that is not a known global/);
  await refused(value([...global('torch', 'FloatStorage'), 0x29, 0x52]), /with arguments that do not fit/);
  await refused(value([...global('torch._utils', '_rebuild_tensor_v2'), 0x29, 0x52]), /with arguments that do not fit/);
  await refused(value([...global('collections', 'OrderedDict')]), /'x' must be a tensor or a plain value/);
  await refused(value(orderedDict), /'x' must be a tensor or a plain value/);
  await refused(value([...tuple(text('storage')), 0x51]), /not a storage/);
  await refused(value([0x68, 9]), /recalls memo 9, which is not set/);
  await refused(value([0x61]), /appends to something|empty stack/);
  await refused(value([0x58, 0xff, 0xff, 0xff, 0x7f]), /truncated/);
  await refused(value([0x8a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1]), /beyond 2\^53/);
  await refused(torchBytes([0x80, 4, 0x2e]), /expected a pickle of protocol 2/);
  await refused(torchBytes([0x80, 2, 0x2e]), /ends with 0 values/);
  await refused(torchBytes([0x80, 2, 0x74, 0x2e]), /closes a mark that is not open/);
  await refused(torchBytes([0x80, 2, ...int(5), 0x2e]), /expected a dictionary of tensors/);
  await refused(torchBytes([0x80, 2, ...orderedDict, ...int(1), ...int(2), 0x73, 0x2e]), /strings as keys/);
});

test('tensors of float8 and other types that are not read are refused by the name of the type', async () => {
  // data.pkl of torch.save({'a.weight': torch.zeros(2).to(torch.float8_e4m3fn)}), torch 2.13.
  const pickle =
    'gAJ9cQBYCAAAAGEud2VpZ2h0cQFjdG9yY2guX3V0aWxzCl9yZWJ1aWxkX3RlbnNvcl92MwpxAigoWAcAAABzdG9yYWdlcQNjdG9yY2guc3RvcmFn' +
    'ZQpVbnR5cGVkU3RvcmFnZQpxBFgBAAAAMHEFWAMAAABjcHVxBksCdHEHUUsASwKFcQhLAYVxCYljY29sbGVjdGlvbnMKT3JkZXJlZERpY3QKcQop' +
    'UnELY3RvcmNoCmZsb2F0OF9lNG0zZm4KcQx0cQ1ScQ5zLg==';
  const bytes = [...Buffer.from(pickle, 'base64')];
  const message = /a tensor has the type torch\.float8_e4m3fn, which is not read; known: F32, F16, BF16, F64, I64/;
  await refused(torchBytes(bytes, { 0: new Uint8Array(2) }), message);
  const other = Buffer.from(pickle, 'base64').toString('latin1').replace('float8_e4m3fn', 'uint32');
  await refused(
    torchBytes([...Buffer.from(other, 'latin1')], { 0: new Uint8Array(2) }),
    /has the type torch\.uint32, which/,
  );
});

test('a dictionary that holds itself, and lists changed after use, do no harm', async () => {
  const self = [0x80, 2, 0x7d, 0x71, 0, ...text('me'), 0x68, 0, 0x73, 0x2e];
  await refused(torchBytes(self), /'me' must be a tensor or a plain value/);
  // The shape's list is memoized, used for a tensor, and grown later: the tensor keeps the shape it was made with.
  const shape = [0x5d, 0x71, 1, ...int(6), 0x61];
  const storage = [...tuple(text('storage'), global('torch', 'FloatStorage'), text('0'), text('cpu'), int(6)), 0x51];
  const args = tuple(storage, int(0), shape, tuple(int(1)), [0x89], orderedDict);
  const tensor = [...global('torch._utils', '_rebuild_tensor_v2'), ...args, 0x52];
  const grown = [0x80, 2, 0x7d, ...text('t'), ...tensor, 0x73, 0x68, 1, ...int(1 << 30), 0x61, 0x62, 0x2e];
  assert.deepEqual(((await read(torchBytes(grown, { 0: six }))).get('t') as TorchTensor).shape, [6]);
});

test('tensors outside of their storage are refused', async () => {
  await refused(withTensor(6, 0, [7], [1]), /reach value 6 of a storage of 6/);
  await refused(withTensor(6, 1, [2, 3], [3, 1]), /reach value 6/);
  await refused(withTensor(6, 0, [2, 2], [5, 1]), /reach value 6/);
  await refused(withTensor(6, 0, [1 << 30], [0]), /more values than its storage of 6 \(an expanded tensor\)/);
  await refused(withTensor(5, 0, [5], [1]), /of 5 F32 takes 20 bytes, the archive has 24/);
  await refused(withTensor(6, 0, [2, 3], [1]), /arguments that do not fit/);
  await refused(withTensor(6, 0, [-1], [1]), /arguments that do not fit/);
  const missing = dictPickle([['t', tensorPickle('FloatStorage', '7', 6, 0, [6], [1])]]);
  await refused(torchBytes(missing, { 0: six }), /storage '7' is not in the archive/);
  const two = dictPickle([
    ['a', tensorPickle('FloatStorage', '0', 6, 0, [6], [1])],
    ['b', tensorPickle('IntStorage', '0', 6, 0, [6], [1])],
  ]);
  await refused(torchBytes(two, { 0: six }), /is used as F32 and as I32/);
});

test('many strided views of one storage cannot multiply memory', async () => {
  const side = 128;
  const storage = new Uint8Array(4 * side * side);
  const transposed = tensorPickle('FloatStorage', '0', side * side, 0, [side, side], [1, side]);
  const views = Array.from({ length: 300 }, (_, i) => [`t${i}`, transposed] as const);
  await refused(torchBytes(dictPickle(views), { 0: storage }), /several times the size of the file/);
});

test('archives that are not plain stored zips are refused', async () => {
  const pickle = Uint8Array.from(dictPickle([]));
  assert.equal((await read(zipBytes([['a/data.pkl', pickle]]))).size, 0);
  await refused(new Uint8Array(10), /no end record/);
  await refused(zipBytes([['a/data.pkl', pickle]], 8), /is compressed \(method 8\)/);
  await refused(zipBytes([['a/data.pkl', pickle]], 0, 1), /is encrypted/);
  await refused(
    zipBytes([
      ['a/data.pkl', pickle],
      ['a/data.pkl', pickle],
    ]),
    /has the entry 'a\/data\.pkl' twice/,
  );
  await refused(
    zipBytes([
      ['a/data.pkl', pickle],
      ['b/data.pkl', pickle],
    ]),
    /found 2/,
  );
  await refused(zipBytes([['data.pkl', pickle]]), /found 0/);
  await refused(torchBytes(dictPickle([]), {}, 'big'), /expected byteorder 'little', it is 'big'/);
  const cut = fixture('loreft.bin');
  await refused(cut.slice(0, -30), /no end record|zip/);
  const overlap = zipBytes([
    ['a/data.pkl', pickle],
    ['a/other', pickle],
  ]);
  // Both directory entries point at the first local header.
  const second = overlap.lastIndexOf(0x50, overlap.length - 23 - 40);
  new DataView(overlap.buffer).setUint32(second + 42, 0, true);
  await refused(overlap, /overlaps another one/);
});
