// Tables, limits and borders of file formats: every type number, every kind of metadata, the last value that is taken
// and the first that is not. Archives are read back byte for byte.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { blobSource, checkRange, memorySource, readIntoBuffer } from '../src/io/byteSource.js';
import { openGguf } from '../src/io/gguf.js';
import { partNames } from '../src/io/ggufSplit.js';
import {
  decodeFloat32,
  decodeFloat64,
  decodeInt32,
  isFloatDType,
  isOpaqueDType,
  isPlainDType,
  measure,
  storageUnit,
  storedToFloat32,
  viewStored,
} from '../src/io/storedDType.js';
import { shorten } from '../src/io/tensorFile.js';
import { readTorchBin, type TorchTensor } from '../src/io/torchBin.js';
import { writeTorchBin } from '../src/io/torchBinWrite.js';
import { readStoredZip } from '../src/io/zipStored.js';
import { crc32, writeStoredZip } from '../src/io/zipWrite.js';
import { packingOf, repackRows } from '../src/io/packedRows.js';
import { ggufBytes, type GgufSpec, type GgufValue } from './helpers/ggufBytes.js';
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

const rejected = (run: Promise<unknown>, message: string): Promise<void> =>
  assert.rejects(run, (error: Error) => {
    assert.equal(`${error.name}: ${error.message}`, message);
    return true;
  });
const refused = (run: () => unknown, message: string): void => {
  assert.throws(run, (error: Error) => {
    assert.equal(`${error.name}: ${error.message}`, message);
    return true;
  });
};
const gguf = (spec: Partial<GgufSpec>, name = 'x.gguf') =>
  openGguf(memorySource(ggufBytes({ metadata: [], tensors: [], ...spec }), name));

describe('GGUF', () => {
  test('every type by its number, and its size', async () => {
    const types: readonly (readonly [number, string, number, number])[] = [
      [0, 'F32', 256, 1024],
      [1, 'F16', 256, 512],
      [2, 'Q4_0', 256, 144],
      [3, 'Q4_1', 256, 160],
      [6, 'Q5_0', 256, 176],
      [7, 'Q5_1', 256, 192],
      [8, 'Q8_0', 256, 272],
      [12, 'Q4_K', 256, 144],
      [13, 'Q5_K', 256, 176],
      [14, 'Q6_K', 256, 210],
      [24, 'I8', 256, 256],
      [25, 'I16', 256, 512],
      [26, 'I32', 256, 1024],
      [27, 'I64', 256, 2048],
      [28, 'F64', 256, 2048],
      [30, 'BF16', 256, 512],
    ];
    const tensors = types.map(([type, name, side, bytes]) => ({
      name,
      sides: [side],
      type,
      data: new Uint8Array(bytes),
    }));
    const file = await gguf({ tensors });
    for (const [, name, side, bytes] of types) {
      const tensor = file.tensors.get(name)!;
      assert.deepEqual([tensor.dtype, tensor.shape, tensor.byteLength], [name, [side], bytes], name);
      if (!name.startsWith('I')) assert.equal((await file.readFloat32(name)).length, side, name);
    }
    const readable = types.map(([, name]) => name).join(', ');
    for (const [type, name] of [
      [9, 'Q8_1'],
      [10, 'Q2_K'],
      [11, 'Q3_K'],
      [15, 'Q8_K'],
      [16, 'IQ2_XXS'],
      [17, 'IQ2_XS'],
      [18, 'IQ3_XXS'],
      [19, 'IQ1_S'],
      [20, 'IQ4_NL'],
      [21, 'IQ3_S'],
      [22, 'IQ2_S'],
      [23, 'IQ4_XS'],
      [29, 'IQ1_M'],
      [34, 'TQ1_0'],
      [35, 'TQ2_0'],
      [39, 'MXFP4'],
      [4, 'number 4'],
      [5, 'number 5'],
      [31, 'number 31'],
      [99, 'number 99'],
    ] as const)
      await rejected(
        gguf({ tensors: [{ name: 'w', sides: [256, 2], type, data: new Uint8Array(64) }] }),
        `FormatError: x.gguf: tensor 'w' [2,256] has the type ${name}; types that can be read: ${readable}`,
      );
  });

  test('metadata of every kind, at the ends of their ranges', async () => {
    const entries: [string, GgufValue, unknown][] = [
      ['u8', { type: 'u8', value: 255 }, 255],
      ['i8', { type: 'i8', value: -128 }, -128],
      ['u16', { type: 'u16', value: 65535 }, 65535],
      ['i16', { type: 'i16', value: -32768 }, -32768],
      ['u32', { type: 'u32', value: 4294967295 }, 4294967295],
      ['i32', { type: 'i32', value: -2147483648 }, -2147483648],
      ['f32', { type: 'f32', value: 0.1 }, Math.fround(0.1)],
      ['f64', { type: 'f64', value: 0.1 }, 0.1],
      ['yes', { type: 'bool', value: true }, true],
      ['no', { type: 'bool', value: false }, false],
      ['u64', { type: 'u64', value: 2n ** 53n - 1n }, 2 ** 53 - 1],
      ['large', { type: 'u64', value: 2n ** 53n }, 2n ** 53n],
      ['larger', { type: 'i64', value: -1n }, -1],
      ['i64', { type: 'i64', value: -(2n ** 53n) }, -(2n ** 53n)],
      ['unsigned', { type: 'u64', value: -1n }, 2n ** 64n - 1n],
      ['text', { type: 'string', value: 'é'.repeat(12) }, 'é'.repeat(12)],
      ['ascii24', { type: 'string', value: 'a'.repeat(24) }, 'a'.repeat(24)],
      ['ascii25', { type: 'string', value: 'a'.repeat(25) }, 'a'.repeat(25)],
      ['del', { type: 'string', value: '\x7f\x80' }, '\x7f\x80'],
      ['list', { type: 'array', of: 'i16', value: [1, -1] }, [1, -1]],
      ['flags', { type: 'array', of: 'bool', value: [true, false] }, [true, false]],
      ['empty', { type: 'array', of: 'f64', value: [] }, []],
    ];
    const file = await gguf({ metadata: entries.map(([key, value]) => [key, value]) });
    for (const [key, , value] of entries) assert.deepEqual(file.metadata[key], value, key);
  });

  test('limits: four sides, names of 1024 bytes, keys of 65,535, a million of each, alignments of powers of two', async () => {
    const tensor = (name: string, sides: (number | bigint)[]) => ({ name, sides, type: 0, data: new Uint8Array(4) });
    assert.deepEqual((await gguf({ tensors: [tensor('n'.repeat(1024), [1, 1, 1, 1])] })).tensors.size, 1);
    await rejected(
      gguf({ tensors: [tensor('n'.repeat(1025), [1])] }),
      'FormatError: x.gguf: says it has 1025 bytes in the name of tensor 0, expected at most 1024',
    );
    await rejected(
      gguf({ tensors: [tensor('n', [1, 1, 1, 1, 1])] }),
      "FormatError: x.gguf: tensor 'n' has 5 dimensions, expected at most 4",
    );
    await rejected(
      gguf({ tensors: [tensor('n', [2n ** 48n + 1n])] }),
      `FormatError: x.gguf: says it has ${2 ** 48 + 1} values along side 0 of 'n', expected at most ${2 ** 48}`,
    );
    const flag = { type: 'bool', value: true } as const;
    assert.ok((await gguf({ metadata: [['k'.repeat(65_535), flag]] })).metadata, 'the longest key');
    await rejected(
      gguf({ metadata: [['k'.repeat(65_536), flag]] }),
      'FormatError: x.gguf: says it has 65536 bytes in metadata key 0, expected at most 65535',
    );
    for (const [what, spec] of [
      ['tensors', { tensorCount: 1_000_001n }],
      ['metadata keys', { keyCount: 1_000_001n }],
    ] as const)
      await rejected(gguf(spec), `FormatError: x.gguf: says it has 1000001 ${what}, expected at most 1000000`);
    for (const spec of [{ tensorCount: 1_000_000n }, { keyCount: 1_000_000n }])
      await assert.rejects(gguf(spec), /x\.gguf: truncated: the header is not complete after \d+ bytes/);
    await rejected(
      gguf({ metadata: [['a', { type: 'array', of: 'u8', value: [], count: 8_000_001n }]] }),
      "FormatError: x.gguf: says it has 8000001 values in metadata 'a', expected at most 8000000",
    );
    // What one array has used, the next cannot.
    await rejected(
      gguf({
        metadata: [
          ['a', { type: 'array', of: 'u8', value: [1, 2, 3] }],
          ['b', { type: 'array', of: 'u8', value: [], count: 7_999_998n }],
        ],
      }),
      "FormatError: x.gguf: says it has 7999998 values in metadata 'b', expected at most 7999997",
    );
    for (const value of [1, 2, 65_536]) {
      const file = await gguf({ alignment: value, metadata: [['general.alignment', { type: 'u32', value }]] });
      assert.equal(file.metadata['general.alignment'], value);
    }
    for (const value of [0, 3, 131_072])
      await rejected(
        gguf({ metadata: [['general.alignment', { type: 'u32', value }]] }),
        `FormatError: x.gguf: general.alignment must be a power of two up to 65536, it is ${value}`,
      );
    for (const [version, says] of [
      [1, 'version 1'],
      [4, 'version 4'],
      [3 * 2 ** 24, 'big-endian'],
    ] as const)
      await rejected(
        gguf({ version }),
        `FormatError: x.gguf: expected little-endian GGUF version 2 or 3, it is ${says}`,
      );
    assert.ok(await gguf({ version: 2 }), 'version 2');
    await rejected(
      openGguf(memorySource(new TextEncoder().encode('GGUX0000'), 'x.gguf')),
      'FormatError: x.gguf: expected the four letters GGUF first, the first number is 0x58554747',
    );
  });

  test('names of the parts of a split file', () => {
    assert.deepEqual(partNames('a/m-00001-of-00003.gguf'), [
      'a/m-00001-of-00003.gguf',
      'a/m-00002-of-00003.gguf',
      'a/m-00003-of-00003.gguf',
    ]);
    for (const name of ['m-00002-of-00003.gguf', 'm.gguf', 'm-0001-of-0003.gguf', 'm-00001-of-00003.bin'])
      assert.deepEqual(partNames(name), [name]);
    assert.deepEqual(partNames('M-00001-of-00011.GGUF').at(-1), 'M-00011-of-00011.gguf');
  });

  test('parts that do not belong together', async () => {
    const part = (no: number, count: number, name: string): Promise<Uint8Array> =>
      Promise.resolve(
        ggufBytes({
          metadata: [
            ['split.no', { type: 'u16', value: no }],
            ['split.count', { type: 'u16', value: count }],
          ],
          tensors: [{ name, sides: [1], type: 0, data: Uint8Array.of(0, 0, 128, 63 + no) }],
        }),
      );
    const open = async (name: string, no: number, count: number, others: Record<string, Uint8Array> = {}) =>
      openGguf(memorySource(await part(no, count, 'a'), name), async wanted => {
        await Promise.resolve();
        const bytes = others[wanted];
        if (!bytes) throw new Error(`no ${wanted}`);
        return memorySource(bytes, wanted);
      });
    const names = ['m-00001-of-00002.gguf', 'm-00002-of-00002.gguf'] as const;
    const joined = await open(names[0], 0, 2, { [names[1]]: await part(1, 2, 'b') });
    assert.deepEqual([...joined.tensors.keys()], ['a', 'b']);
    assert.deepEqual([...(await joined.readFloat32('a')), ...(await joined.readFloat32('b'))], [1, 4]);
    await rejected(
      open(names[1], 1, 2),
      `FormatError: ${names[1]}: is part 2 of 2 of a split model; open the first one, m-00001-of-00002.gguf`,
    );
    await rejected(
      open('other.gguf', 1, 2),
      'FormatError: other.gguf: is part 2 of 2 of a split model; open the first one, NAME-00001-of-...',
    );
    for (const name of ['other.gguf', 'm-00001-of-00003.gguf', 'm-00002-of-00002.gguf'])
      await rejected(
        open(name, 0, 2),
        `FormatError: ${name}: is part 1 of 2 of a split model; its name must end in -00001-of-00002.gguf, so that the others are found`,
      );
    await assert.rejects(
      open(names[0], 0, 2),
      /m-00001-of-00002\.gguf: .*m-00002-of-00002\.gguf.*no m-00002-of-00002\.gguf/,
    );
    for (const [no, count] of [
      [0, 2],
      [1, 3],
    ] as const)
      await assert.rejects(open(names[0], 0, 2, { [names[1]]: await part(no, count, 'b') }), /m-0000[12]-of-00002/);
    await assert.rejects(open(names[0], 0, 2, { [names[1]]: await part(1, 2, 'a') }), /'a'/, 'a tensor twice');
  });
});

describe('stored numbers', () => {
  test('sizes of all types', () => {
    assert.deepEqual(
      (
        [
          'F32',
          'F16',
          'BF16',
          'F64',
          'I64',
          'I32',
          'I16',
          'I8',
          'U8',
          'BOOL',
          'U16',
          'U32',
          'U64',
          'C64',
          'F8_E4M3',
          'F8_E5M2',
          'F8_E8M0',
          'F6_E2M3',
          'F6_E3M2',
          'F4',
          'Q8_0',
          'Q4_K',
        ] as const
      ).map(dtype => [storageUnit(dtype).values, storageUnit(dtype).bytes]),
      [
        [1, 4],
        [1, 2],
        [1, 2],
        [1, 8],
        [1, 8],
        [1, 4],
        [1, 2],
        [1, 1],
        [1, 1],
        [1, 1],
        [1, 2],
        [1, 4],
        [1, 8],
        [1, 8],
        [1, 1],
        [1, 1],
        [1, 1],
        [4, 3],
        [4, 3],
        [2, 1],
        [32, 34],
        [256, 144],
      ],
    );
    assert.deepEqual(
      [isOpaqueDType('U16'), isOpaqueDType('F32'), isOpaqueDType('toString'), isOpaqueDType(1)],
      [true, false, false, false],
    );
    assert.deepEqual(
      [isPlainDType('F32'), isPlainDType('U16'), isPlainDType('toString'), isPlainDType(undefined)],
      [true, false, false, false],
    );
    assert.deepEqual(
      [isFloatDType('F16'), isFloatDType('Q4_0'), isFloatDType('I8'), isFloatDType('U16')],
      [true, true, false, false],
    );
  });

  test('shapes that hold too much, or no whole blocks', () => {
    assert.deepEqual(measure('F32', []), { count: 1, byteLength: 4 });
    assert.deepEqual(measure('F32', [0, 5]), { count: 0, byteLength: 0 });
    assert.deepEqual(measure('Q4_0', [2, 64]), { count: 128, byteLength: 72 });
    assert.equal(measure('Q4_0', [64, 2]), 'the last side must be a multiple of the 32 weights of a Q4_0 block');
    assert.equal(measure('Q4_0', []), 'the last side must be a multiple of the 32 weights of a Q4_0 block');
    assert.deepEqual(measure('F4', [4]), { count: 4, byteLength: 2 });
    for (const side of [-1, 1.5, 2 ** 53, NaN])
      assert.equal(measure('F32', [side]), `a side is ${side}, expected a whole number from 0`);
    assert.equal(measure('U8', [2 ** 27, 2 ** 26]), 'holds more than 2^53 values');
    assert.equal(measure('F32', [2 ** 26, 2 ** 25]), 'takes more than 2^53 bytes');
    assert.deepEqual(measure('U8', [2 ** 26, 2 ** 26]), { count: 2 ** 52, byteLength: 2 ** 52 });
  });

  test('each plain type as f32, f64 and i32, from a place in the middle', () => {
    const raw = Uint8Array.of(1, 0, 0xfe, 0xff, 0, 0, 0, 0x80);
    assert.deepEqual([...viewStored('I16', raw)], [1, -2, 0, -32768]);
    const odd = new Uint8Array(9);
    odd.set(raw, 1);
    assert.deepEqual([...viewStored('I16', odd.subarray(1))], [1, -2, 0, -32768], 'copied where it is not aligned');
    const f32 = new Float32Array(6);
    decodeFloat32('I16', raw, f32, 1);
    assert.deepEqual([...f32], [0, 1, -2, 0, -32768, 0]);
    decodeFloat32('BF16', Uint8Array.of(0x80, 0x3f), f32, 5);
    assert.deepEqual([...f32], [0, 1, -2, 0, -32768, 1]);
    decodeFloat32('F16', Uint8Array.of(0, 0xc0), f32, 0);
    decodeFloat32('I64', Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 255), f32, 2);
    decodeFloat32('F32', Uint8Array.of(0, 0, 64, 64), f32, 3);
    assert.deepEqual([...f32], [-2, 1, -1, 3, -32768, 1]);
    const f64 = new Float64Array(3);
    decodeFloat64('BF16', Uint8Array.of(0x80, 0x3f), f64, 1);
    decodeFloat64('U8', Uint8Array.of(200), f64, 2);
    assert.deepEqual([...f64], [0, 1, 200]);
    const i32 = new Int32Array(3);
    assert.equal(decodeInt32('I64', new Uint8Array(BigInt64Array.of(-5n, 2147483647n).buffer), i32, 1), undefined);
    assert.equal(decodeInt32('U8', Uint8Array.of(200), i32, 0), undefined);
    assert.deepEqual([...i32], [200, -5, 2147483647]);
    assert.equal(
      decodeInt32('I64', new Uint8Array(BigInt64Array.of(0n, 2147483648n).buffer), i32, 5),
      'holds 2147483648 at 6, outside of the 32-bit range',
    );
    for (const dtype of ['F32', 'BF16', 'Q8_0'] as const)
      assert.equal(
        decodeInt32(dtype, new Uint8Array(0), i32, 0),
        `is ${dtype}, expected whole numbers (I64, I32, I16, I8, U8, BOOL)`,
      );
    assert.deepEqual([...storedToFloat32('F16', Uint16Array.of(0x3c00, 0xbc00))], [1, -1]);
  });

  test('matrices that stay packed', () => {
    assert.equal(packingOf({ dtype: 'F16', shape: [3, 2] }), 'f16');
    assert.equal(packingOf({ dtype: 'F16', shape: [3, 1] }), undefined);
    assert.equal(packingOf({ dtype: 'F16', shape: [4] }), undefined);
    assert.equal(packingOf({ dtype: 'F32', shape: [3, 2] }), undefined);
    assert.equal(packingOf({ dtype: 'Q5_0', shape: [1, 32] }), undefined);
    // Two rows of three halves each take eight bytes.
    const out = new Uint8Array(16);
    const halves = new Uint8Array(Uint16Array.of(1, 2, 3, 4, 5, 6).buffer);
    assert.equal(repackRows('F16', 'f16', halves, 3, out), undefined);
    assert.deepEqual([...new Uint16Array(out.buffer)], [1, 2, 3, 0, 4, 5, 6, 0]);
    assert.equal(
      repackRows('F16', 'f16', new Uint8Array(Uint16Array.of(0xfbff, 0x7bff).buffer), 2, new Uint8Array(4)),
      undefined,
      'the largest finite numbers',
    );
    for (const word of [0x7c00, 0xfc00, 0x7e00])
      assert.equal(
        repackRows('F16', 'f16', new Uint8Array(Uint16Array.of(1, word).buffer), 2, new Uint8Array(4)),
        'holds an f16 number that is not finite',
      );
    // A row of two blocks: weights first, then both scales.
    const block = (d: number, m: number): number[] => [d, m, ...Array.from({ length: 8 }, (_, i) => 100 * d + i)];
    const made = new Uint8Array(40);
    assert.equal(
      repackRows('Q4_1', 'q4_1', new Uint8Array(Uint16Array.from([...block(1, 2), ...block(3, 4)]).buffer), 64, made),
      undefined,
    );
    assert.deepEqual([...new Uint16Array(made.buffer)], [...block(1, 2).slice(2), ...block(3, 4).slice(2), 1, 2, 3, 4]);
    assert.equal(
      repackRows(
        'Q8_0',
        'q8_0',
        new Uint8Array(Uint16Array.from([0x7c00, ...new Array<number>(16).fill(0)]).buffer),
        32,
        new Uint8Array(36),
      ),
      'holds an f16 number that is not finite',
    );
    assert.equal(
      repackRows(
        'Q8_0',
        'q8_0',
        new Uint8Array(Uint16Array.from([0x7bff, ...new Array<number>(16).fill(0x7fff)]).buffer),
        32,
        new Uint8Array(36),
      ),
      undefined,
      'weights may be any',
    );
  });

  test('a text that is not trusted is cut', () => {
    assert.equal(shorten('x'.repeat(80)), 'x'.repeat(80));
    assert.equal(shorten('x'.repeat(81)), `${'x'.repeat(80)}...`);
    assert.equal(shorten('abcd', 3), 'abc...');
  });
});

describe('sources of bytes', () => {
  test('ranges', async () => {
    const source = { name: 's', size: 4 };
    for (const [offset, length] of [
      [0, 4],
      [4, 0],
      [3, 1],
      [0, 0],
    ] as const)
      assert.doesNotThrow(() => checkRange(source, offset, length));
    for (const [offset, length] of [
      [0, 5],
      [4, 1],
      [-1, 1],
      [0, -1],
      [0.5, 1],
      [0, 0.5],
      [NaN, 1],
    ] as const)
      refused(
        () => checkRange(source, offset, length),
        `FormatError: s: truncated: expected ${length} bytes at offset ${offset}, the file has 4 bytes`,
      );
    const bytes = Uint8Array.of(1, 2, 3, 4);
    for (const made of [memorySource(bytes, 'm'), blobSource(new Blob([bytes]), 'b')]) {
      assert.equal(made.size, 4);
      assert.deepEqual([...(await made.read(1, 2))], [2, 3]);
      const target = new Uint8Array(2);
      await readIntoBuffer(made, 2, target);
      assert.deepEqual([...target], [3, 4]);
      await rejected(
        made.read(3, 2),
        `FormatError: ${made.name}: truncated: expected 2 bytes at offset 3, the file has 4 bytes`,
      );
    }
    const short = { size: 4, slice: () => new Blob([Uint8Array.of(1)]) } as unknown as Blob;
    await rejected(
      blobSource(short, 'b').read(0, 2),
      'FormatError: b: truncated: expected 2 bytes at offset 0, 1 came',
    );
  });
});

describe('archives', () => {
  test('checksums and headers, field by field', async () => {
    assert.equal(crc32(new TextEncoder().encode('123456789')), 0xcbf43926);
    assert.equal(crc32(new Uint8Array(0)), 0);
    const bytes = writeStoredZip(
      new Map([
        ['a', Uint8Array.of(1, 2, 3)],
        ['é', new Uint8Array(0)],
      ]),
    );
    const view = new DataView(bytes.buffer);
    const u16 = (at: number): number => view.getUint16(at, true);
    const u32 = (at: number): number => view.getUint32(at, true);
    const shared = (at: number) => [
      u16(at),
      u16(at + 2),
      u16(at + 4),
      u16(at + 6),
      u16(at + 8),
      u32(at + 10),
      u32(at + 14),
      u32(at + 18),
      u16(at + 22),
      u16(at + 24),
    ];
    const [first, second] = [
      [20, 0x800, 0, 0, 0x21, 0x55bc801d, 3, 3, 1, 0],
      [20, 0x800, 0, 0, 0x21, 0, 0, 0, 2, 0],
    ];
    assert.equal(u32(0), 0x04034b50);
    assert.deepEqual(shared(4), first);
    assert.deepEqual([...bytes.subarray(30, 34)], [0x61, 1, 2, 3]);
    assert.equal(u32(34), 0x04034b50);
    assert.deepEqual(shared(38), second);
    assert.deepEqual([...bytes.subarray(64, 66)], [0xc3, 0xa9]);
    assert.deepEqual([u32(66), u16(70), u32(66 + 42)], [0x02014b50, 20, 0]);
    assert.deepEqual(shared(72), first);
    assert.deepEqual([bytes[66 + 46], u32(113), u16(117), u32(113 + 42)], [0x61, 0x02014b50, 20, 34]);
    assert.deepEqual(shared(119), second);
    const end = 113 + 48;
    assert.deepEqual(
      [u32(end), u16(end + 4), u16(end + 6), u16(end + 8), u16(end + 10), u32(end + 12), u32(end + 16), u16(end + 20)],
      [0x06054b50, 0, 0, 2, 2, 95, 66, 0],
    );
    assert.equal(bytes.length, end + 22);
    assert.deepEqual(
      [...(await readStoredZip(memorySource(bytes, 'z'))).values()],
      [
        { name: 'a', byteOffset: 31, byteLength: 3 },
        { name: 'é', byteOffset: 66, byteLength: 0 },
      ],
    );
    const many = new Map(Array.from({ length: 0xffff }, (_, i) => [String(i), new Uint8Array(0)]));
    assert.throws(
      () => writeStoredZip(many),
      /^RangeError: zip: 65535 entries of \d+ bytes need zip64, which is not written$/,
    );
    many.delete('0');
    assert.ok(writeStoredZip(many).length > 0, '65,534 entries');
  });

  test('every field of an archive that is wrong', async () => {
    const good = zipBytes([['a', Uint8Array.of(1, 2, 3)]]);
    const read = (bytes: Uint8Array) => readStoredZip(memorySource(bytes, 'z'));
    assert.equal((await read(good)).get('a')?.byteOffset, 31);
    const directory = 34;
    const end = directory + 47;
    assert.equal(good.length, end + 22);
    const changed = (...changes: (readonly [at: number, value: number])[]): Uint8Array => {
      const bytes = good.slice();
      for (const [at, value] of changes) bytes[at] = value;
      return bytes;
    };
    const at = (bytes: Uint8Array, message: string) => rejected(read(bytes), `FormatError: z: zip: ${message}`);
    const several = 'is one part of several, only whole archives are read';
    await at(changed([end + 4, 1]), several);
    await at(changed([end + 6, 1]), several);
    await at(changed([end + 8, 2]), several);
    await at(
      changed([end + 10, 0xff], [end + 11, 0xff]),
      'needs zip64 (over 4 GiB or 65,534 entries), which is not read',
    );
    const all = (from: number) => [0, 1, 2, 3].map(i => [from + i, 255] as const);
    await at(changed(...all(end + 12)), 'needs zip64 (over 4 GiB or 65,534 entries), which is not read');
    await at(changed(...all(end + 16)), 'needs zip64 (over 4 GiB or 65,534 entries), which is not read');
    await at(changed([end + 16, 35]), 'the directory (47 bytes at 35) does not fit before its end record');
    await at(changed([end + 12, 46]), 'directory entry 0 runs over the end of the directory');
    await at(changed([end + 12, 45]), 'expected the directory entry 0 of 1 at directory byte 0');
    await at(changed([directory, 0]), 'expected the directory entry 0 of 1 at directory byte 0');
    await at(changed([end + 8, 2], [end + 10, 2]), 'expected the directory entry 1 of 2 at directory byte 47');
    await at(changed([end + 8, 0], [end + 10, 0]), 'the directory has 47 bytes, its entries take 0');
    await at(changed([directory + 8, 1]), "entry 'a' is encrypted");
    await at(changed([directory + 10, 8]), "entry 'a' is compressed (method 8), only stored entries are read");
    await at(changed([directory + 20, 2]), "entry 'a' is compressed (method 0), only stored entries are read");
    await at(changed(...all(directory + 20), ...all(directory + 24)), "entry 'a' needs zip64, which is not read");
    await at(changed(...all(directory + 42)), "entry 'a' needs zip64, which is not read");
    await at(changed([directory + 42, 5]), "entry 'a' starts at byte 5, the entries end at 34");
    await at(changed([directory + 42, 4]), "entry 'a' has no local header at byte 4");
    await at(changed([0, 0]), "entry 'a' has no local header at byte 0");
    await at(
      changed([directory + 20, 4], [directory + 24, 4]),
      "entry 'a' takes 4 bytes from 31, the entries end at 34",
    );
    await at(changed([directory + 46, 255]), 'the name of entry 0 is not valid UTF-8');
    await at(good.subarray(0, good.length - 1), 'expected an archive, it has no end record');
    await at(new Uint8Array(21), 'expected an archive, it has no end record');
    // A comment behind the end record.
    const commented = new Uint8Array(good.length + 3);
    commented.set(good);
    commented[end + 20] = 3;
    assert.equal((await read(commented)).size, 1);
    await at(
      zipBytes([
        ['a', Uint8Array.of(1)],
        ['a', Uint8Array.of(2)],
      ]),
      "has the entry 'a' twice",
    );
    // Two entries in one place.
    const two = zipBytes([
      ['a', Uint8Array.of(1, 2, 3)],
      ['b', Uint8Array.of(4)],
    ]);
    two[two.length - 22 - 47 + 42] = 0;
    await at(two, "entry 'a' overlaps another one");
  });
});

describe("torch's files", () => {
  test('are read back as they were written', async () => {
    const entries = [
      { name: 'w', dtype: 'F32' as const, shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) },
      { name: 'rank 0', dtype: 'F32' as const, shape: [], data: Float32Array.of(-1.5) },
      { name: 'ids', dtype: 'I64' as const, shape: [2], data: BigInt64Array.of(-1n, 2n ** 40n) },
      { name: 'deep', dtype: 'F32' as const, shape: [1, 2, 1], data: Float32Array.of(7, 8) },
      { name: 'empty', dtype: 'F32' as const, shape: [0, 3], data: new Float32Array(0) },
    ];
    const bytes = writeTorchBin(entries);
    const read = await readTorchBin(memorySource(bytes, 'x.bin'));
    assert.deepEqual(
      [...read].map(([name, tensor]) => ({ name, ...(tensor as TorchTensor) })),
      entries,
    );
    const zip = await readStoredZip(memorySource(bytes, 'x.bin'));
    assert.deepEqual(
      [...zip.keys()],
      ['archive/data.pkl', 'archive/byteorder', ...entries.map((_, i) => `archive/data/${i}`), 'archive/version'],
    );
    const entry = (name: string): string => {
      const { byteOffset, byteLength } = zip.get(name)!;
      return new TextDecoder('latin1').decode(bytes.subarray(byteOffset, byteOffset + byteLength));
    };
    assert.deepEqual([entry('archive/byteorder'), entry('archive/version')], ['little', '3\n']);
    // The pickle, opcode by opcode: what pickletools shows of torch.save.
    const string = (s: string): string => `X${String.fromCharCode(s.length, 0, 0, 0)}${s}`;
    const whole = (n: number): string => `J${String.fromCharCode(n, 0, 0, 0)}`;
    const dict = 'ccollections\nOrderedDict\n)R';
    assert.equal(
      entry('archive/data.pkl').slice(0, 170),
      (
        `\x80\x02${dict}(${string('w')}ctorch._utils\n_rebuild_tensor_v2\n((${string('storage')}ctorch\nFloatStorage\n` +
        `${string('0')}${string('cpu')}${whole(6)}tQ${whole(0)}(${whole(2)}${whole(3)}t(${whole(3)}${whole(1)}t\x89${dict}tR`
      ).slice(0, 170),
    );
    assert.ok(entry('archive/data.pkl').endsWith(`t\x89${dict}tRu.`), 'the end');
    refused(
      () => writeTorchBin([{ ...entries[0], data: Float32Array.of(1) }]),
      "RangeError: torch file: 'w' has 1 numbers, expected 6 of F32 for [2,3]",
    );
    refused(
      () => writeTorchBin([{ ...entries[0], data: BigInt64Array.from([1n, 2n, 3n, 4n, 5n, 6n]) }]),
      "RangeError: torch file: 'w' has 6 numbers, expected 6 of F32 for [2,3]",
    );
    refused(
      () => writeTorchBin([{ ...entries[2], data: Float32Array.of(1, 2) }]),
      "RangeError: torch file: 'ids' has 2 numbers, expected 2 of I64 for [2]",
    );
  });

  test('storages of every class', async () => {
    for (const [storage, dtype, size] of [
      ['FloatStorage', 'F32', 4],
      ['HalfStorage', 'F16', 2],
      ['BFloat16Storage', 'BF16', 2],
      ['DoubleStorage', 'F64', 8],
      ['LongStorage', 'I64', 8],
      ['IntStorage', 'I32', 4],
      ['ShortStorage', 'I16', 2],
      ['CharStorage', 'I8', 1],
      ['ByteStorage', 'U8', 1],
      ['BoolStorage', 'BOOL', 1],
    ] as const) {
      const bytes = torchBytes(dictPickle([['w', tensorPickle(storage, '0', 2, 0, [2], [1])]]), {
        '0': new Uint8Array(2 * size),
      });
      const read = (await readTorchBin(memorySource(bytes, 'x.bin'))).get('w') as TorchTensor;
      assert.deepEqual([read.dtype, read.shape, read.data.byteLength], [dtype, [2], 2 * size], storage);
    }
  });

  test('plain values of every opcode', async () => {
    const read = async (value: number[]): Promise<unknown> =>
      (await readTorchBin(memorySource(torchBytes(dictPickle([['v', value]])), 'x.bin'))).get('v');
    assert.equal(await read([0x4e]), null);
    assert.deepEqual([await read([0x88]), await read([0x89])], [true, false]);
    assert.deepEqual(
      [await read([0x4b, 200]), await read([0x4d, 1, 2]), await read([0x4a, 255, 255, 255, 255])],
      [200, 513, -1],
    );
    assert.deepEqual([await read([0x8a, 0]), await read([0x8a, 1, 255]), await read([0x8a, 2, 0, 1])], [0, -1, 256]);
    assert.equal(await read([0x8a, 7, 255, 255, 255, 255, 255, 255, 31]), 2 ** 53 - 1);
    await assert.rejects(read([0x8a, 7, 0, 0, 0, 0, 0, 0, 32]), /pickle byte \d+: holds an integer beyond 2\^53$/);
    assert.equal(await read([0x47, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]), 1.5);
    assert.equal(await read(text('é')), 'é');
    // Memos: a value is put down and taken up again, by a short and a long number.
    const recalled = dictPickle([
      ['a', [...int(5), 0x71, 3]],
      ['b', [0x68, 3]],
      ['c', [...int(6), 0x72, 4, 1, 0, 0]],
      ['d', [0x6a, 4, 1, 0, 0]],
    ]);
    assert.deepEqual(Object.fromEntries(await readTorchBin(memorySource(torchBytes(recalled), 'x.bin'))), {
      a: 5,
      b: 5,
      c: 6,
      d: 6,
    });
  });

  test('pickles that make no sense', async () => {
    const fails = (pickle: number[], message: RegExp): Promise<void> =>
      assert.rejects(readTorchBin(memorySource(torchBytes(pickle), 'x.bin')), (error: Error) => {
        assert.match(error.message, message);
        assert.equal(error.name, 'FormatError');
        return true;
      });
    await fails([0x80, 3, 0x2e], /pickle byte 2: expected a pickle of protocol 2$/);
    await fails([0x80, 2, 0x2e], /ends with 0 values, expected one$/);
    await fails([0x80, 2, 0x4e, 0x4e, 0x2e], /ends with 2 values, expected one$/);
    await fails([0x80, 2, 0x4e, 0x28, 0x2e], /ends with 0 values, expected one$/);
    await fails([0x80, 2, 0x4e], /truncated: expected 1 more bytes$/);
    await fails([0x80, 2, 0x74, 0x2e], /closes a mark that is not open$/);
    await fails([0x80, 2, 0x85, 0x2e], /takes a value from an empty stack$/);
    await fails([0x80, 2, 0x61, 0x2e], /takes a value from an empty stack$/);
    await fails([0x80, 2, 0x71, 0, 0x2e], /memoizes a value of an empty stack$/);
    await fails([0x80, 2, 0x68, 9, 0x2e], /recalls memo 9, which is not set$/);
    await fails([0x80, 2, 0x4e, 0x4e, 0x61, 0x2e], /appends to something that is not a list$/);
    await fails([0x80, 2, 0x4e, 0x4e, 0x4e, 0x73, 0x2e], /sets items of something that is not a dictionary$/);
    await fails([0x80, 2, 0x7d, 0x28, 0x4e, 0x75, 0x2e], /sets items from a key without a value$/);
    await fails([0x80, 2, 0x4e, 0x4e, 0x62, 0x2e], /sets attributes on something that is not a dictionary$/);
    await fails([0x80, 2, 0x4e, 0x51, 0x2e], /refers to something that is not a storage$/);
    await fails([0x80, 2, 0x4e, 0x29, 0x52, 0x2e], /calls something that is not a known global$/);
    await fails(
      [0x80, 2, ...global('collections', 'OrderedDict'), 0x4e, 0x52, 0x2e],
      /calls something that is not a known global$/,
    );
    await fails([0x80, 2, ...global('os', 'system'), 0x2e], /the global 'os\.system' is not allowed$/);
    await fails([0x80, 2, 0x63, ...new Array<number>(201).fill(0x61), 10, 0x2e], /expected a short line of text$/);
    await fails([0x80, 2, 0x99, 0x2e], /opcode 0x99 is not allowed$/);
    await fails(
      [0x80, 2, ...global('collections', 'OrderedDict'), ...tuple(int(1)), 0x52, 0x2e],
      /calls a known global \(dict\) with arguments that do not fit it$/,
    );
    await fails([0x80, 2, 0x4e, 0x2e], /expected a dictionary of tensors$/);
    await fails([0x80, 2, 0x7d, 0x28, ...int(1), 0x4e, 0x75, 0x2e], /expected a dictionary with strings as keys$/);
    await fails(dictPickle([['v', orderedDict]]), /'v' must be a tensor or a plain value, it is neither$/);
  });
});
