// safetensors: files of the official library, round trips, sharded indexes, partial reads, and one clear error for each
// broken rule.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { writeFileAtomic } from '../src/io/atomicWriteNode.js';
import { blobSource, fileSource, memorySource } from '../src/io/byteSource.js';
import type { ByteSource } from '../src/io/byteSource.js';
import { FormatError } from '../src/io/errors.js';
import { openSafetensors, openShardedSafetensors, writeSafetensors } from '../src/io/safetensors.js';
import type { SafetensorsEntry } from '../src/io/safetensors.js';
import { plainArrays, viewStored } from '../src/io/storedDType.js';
import type { PlainDType } from '../src/io/storedDType.js';
import { join } from './helpers/mutate.js';

const fixture = (name: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`fixtures/io/${name}`, import.meta.url)));
const open = (bytes: Uint8Array, name = 'x.safetensors') => openSafetensors(memorySource(bytes, name));

/** A file from header text and data, whatever they say. */
function raw(header: string, dataBytes: number, length?: bigint): Uint8Array {
  const text = new TextEncoder().encode(header);
  const head = new Uint8Array(8);
  new DataView(head.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  return join(head, text, new Uint8Array(dataBytes));
}

for (const name of ['prefix.safetensors', 'vanilla.safetensors']) {
  test(`${name} of the official library reads, and writing it again gives the same bytes`, async () => {
    const bytes = fixture(name);
    const file = await open(bytes);
    const entries: SafetensorsEntry[] = [];
    for (const tensor of file.tensors.values()) {
      const dtype = tensor.dtype as PlainDType;
      entries.push({
        name: tensor.name,
        dtype,
        shape: tensor.shape,
        data: viewStored(dtype, await file.readBytes(tensor.name)),
      });
    }
    assert.deepEqual(writeSafetensors(entries.reverse(), file.metadata as Record<string, string>), bytes);
  });
}

test('values, shapes and metadata of the official library', async () => {
  const adapter = await open(fixture('prefix.safetensors'));
  assert.deepEqual(adapter.metadata, { format: 'pt' });
  assert.deepEqual(adapter.tensors.get('prompt_embeddings')?.shape, [5, 128]);
  const run = await open(fixture('vanilla.safetensors'));
  const base = await run.readInt32('base');
  assert.equal(base.length, 14);
  assert.ok(
    base.every(id => id >= 0 && id < 128),
    'base.every(id => id >= 0 && id < 128)',
  );
  await assert.rejects(run.readInt32('logits'), /tensor 'logits' is F32, expected whole numbers/);
});

const dtypes = Object.keys(plainArrays) as PlainDType[];

test('any tensors come back as they were written, in any order, all aligned', async () => {
  const entry = fc.record({
    name: fc.string({ unit: 'grapheme' }).filter(name => name !== '__metadata__'),
    dtype: fc.constantFrom(...dtypes),
    shape: fc.array(fc.nat(4), { maxLength: 3 }),
    fill: fc.nat(255),
  });
  const metadata = fc.dictionary(fc.string(), fc.string());
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(entry, { selector: item => item.name, maxLength: 6 }),
      metadata,
      async (items, meta) => {
        const entries = items.map(({ name, dtype, shape, fill }) => {
          const count = shape.reduce((product, side) => product * side, 1);
          const bytes = Uint8Array.from(
            { length: count * plainArrays[dtype].BYTES_PER_ELEMENT },
            (_, i) => (fill + i * 7) & 255,
          );
          return { name, dtype, shape, data: viewStored(dtype, bytes) };
        });
        const bytes = writeSafetensors(entries, meta);
        assert.deepEqual(writeSafetensors([...entries].reverse(), meta), bytes);
        const file = await open(bytes);
        assert.deepEqual({ ...file.metadata }, { ...meta });
        assert.equal(file.tensors.size, entries.length);
        for (const { name, dtype, shape, data } of entries) {
          const stored = file.tensors.get(name);
          assert.ok(stored, 'stored');
          assert.deepEqual([stored.dtype, stored.shape, stored.byteOffset % data.BYTES_PER_ELEMENT], [dtype, shape, 0]);
          assert.deepEqual(viewStored(dtype, await file.readBytes(name)), data);
        }
      },
    ),
    { seed: Number(process.env['FC_SEED'] ?? 1), numRuns: 100 },
  );
});

test('a tensor called __proto__ is a tensor like any other', async () => {
  const file = await open(writeSafetensors([{ name: '__proto__', dtype: 'I32', shape: [1], data: Int32Array.of(5) }]));
  assert.deepEqual([...(await file.readInt32('__proto__'))], [5]);
  assert.equal(({} as Record<string, unknown>)['dtype'], undefined);
});

test('each type converts to f32, f64 and i32', async () => {
  const file = await open(
    writeSafetensors([
      { name: 'F32', dtype: 'F32', shape: [3], data: Float32Array.of(0.1, -0, NaN) },
      { name: 'F64', dtype: 'F64', shape: [2], data: Float64Array.of(0.1, 1e300) },
      { name: 'F16', dtype: 'F16', shape: [6], data: Uint16Array.of(0x3c00, 0xc100, 0x0001, 0x7bff, 0xfc00, 0x8000) },
      { name: 'BF16', dtype: 'BF16', shape: [3], data: Uint16Array.of(0x3f80, 0xc020, 0x7f80) },
      { name: 'I64', dtype: 'I64', shape: [3], data: BigInt64Array.of(-5n, 2n ** 31n - 1n, -(2n ** 31n)) },
      { name: 'wide', dtype: 'I64', shape: [2], data: BigInt64Array.of(0n, 2n ** 31n) },
      { name: 'I32', dtype: 'I32', shape: [2], data: Int32Array.of(-3, 2 ** 31 - 1) },
      { name: 'I16', dtype: 'I16', shape: [2], data: Int16Array.of(-3, 32767) },
      { name: 'I8', dtype: 'I8', shape: [2], data: Int8Array.of(-128, 127) },
      { name: 'U8', dtype: 'U8', shape: [2], data: Uint8Array.of(0, 255) },
      { name: 'BOOL', dtype: 'BOOL', shape: [2], data: Uint8Array.of(0, 1) },
    ]),
  );
  const expected: Record<string, number[]> = {
    F32: [Math.fround(0.1), -0, NaN],
    F64: [0.1, 1e300],
    F16: [1, -2.5, 2 ** -24, 65504, -Infinity, -0],
    BF16: [1, -2.5, Infinity],
    I64: [-5, 2 ** 31 - 1, -(2 ** 31)],
    wide: [0, 2 ** 31],
    I32: [-3, 2 ** 31 - 1],
    I16: [-3, 32767],
    I8: [-128, 127],
    U8: [0, 255],
    BOOL: [0, 1],
  };
  for (const [name, values] of Object.entries(expected)) {
    assert.deepEqual(await file.readFloat64(name), Float64Array.from(values), name);
    assert.deepEqual(await file.readFloat32(name), Float32Array.from(values), name);
    if (/^[IUB]\w*$/.test(name) && name !== 'BF16')
      assert.deepEqual(await file.readInt32(name), Int32Array.from(values), name);
  }
  await assert.rejects(file.readInt32('wide'), /tensor 'wide' holds 2147483648 at 1, outside of the 32-bit range/);
});

test('reads touch only the bytes they need, in chunks, and ask again for a moving destination', async () => {
  const count = 3_000_000;
  const data = Float32Array.from({ length: count }, (_, i) => i % 1021);
  const bytes = writeSafetensors([
    { name: 'big', dtype: 'F32', shape: [3, 1_000_000], data },
    { name: 'small', dtype: 'F32', shape: [2], data: Float32Array.of(1, 2) },
  ]);
  const reads: number[] = [];
  const inner = memorySource(bytes, 'big.safetensors');
  const source: ByteSource = {
    name: inner.name,
    size: inner.size,
    read: async (offset, length) => (reads.push(length), inner.read(offset, length)),
    close: async () => {},
  };
  const file = await openSafetensors(source);
  await file.readFloat32('small');
  assert.ok(reads.reduce((sum, length) => sum + length) < 1000, `read ${reads} bytes`);
  let memory = new Float32Array(count + 8);
  let asked = 0;
  const result = await file.readFloat32('big', () => {
    asked++;
    // What a growing WebAssembly memory does: the same contents in a new buffer, the old one gone.
    const moved = memory.slice();
    memory.fill(NaN);
    memory = moved;
    return memory.subarray(8);
  });
  assert.ok(
    asked > 3 && reads.every(length => length <= 4 * 2 ** 20),
    'asked > 3 && reads.every(length => length <= 4 * 2 ** 20)',
  );
  assert.deepEqual(result, data);
  await assert.rejects(
    file.readFloat32('small', new Float32Array(3)),
    /reading 'small' \[2\] into 3 values, expected 2/,
  );
});

test('a missing tensor is refused with near names', async () => {
  const file = await open(fixture('prefix.safetensors'));
  const message = /x\.safetensors: has no tensor 'prompt_embedding'; near it: 'prompt_embeddings'/;
  await assert.rejects(file.readFloat32('prompt_embedding'), message);
  await assert.rejects(file.readBytes('entirely else'), FormatError);
});

test('memory, Blob and file sources give the same, and refuse reads outside', async () => {
  const bytes = fixture('vanilla.safetensors');
  const folder = await mkdtemp(joinPath(tmpdir(), 'reft-io-'));
  try {
    const path = joinPath(folder, 'a.safetensors');
    await writeFile(path, bytes);
    for (const source of [
      memorySource(bytes, 'm'),
      blobSource(new Blob([bytes.slice().buffer]), 'b'),
      await fileSource(path),
    ]) {
      assert.equal(source.size, bytes.length);
      assert.deepEqual(await source.read(100, 50), bytes.subarray(100, 150));
      await assert.rejects(source.read(bytes.length - 4, 8), /truncated: expected 8 bytes at offset/);
      await assert.rejects(source.read(-1, 2), FormatError);
      await assert.rejects(source.read(0.5, 2), FormatError);
      const file = await openSafetensors(source);
      assert.deepEqual(await file.readBytes('logits'), await (await open(bytes)).readBytes('logits'));
      await file.close();
    }
    await assert.rejects(fileSource(folder), /is a folder/);
    await assert.rejects(fileSource(joinPath(folder, 'none')), /ENOENT/);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('a file that shrinks after opening is truncated, not padded', async () => {
  const folder = await mkdtemp(joinPath(tmpdir(), 'reft-io-'));
  try {
    const path = joinPath(folder, 'a.safetensors');
    await writeFile(path, fixture('vanilla.safetensors'));
    const file = await openSafetensors(await fileSource(path));
    await writeFile(path, fixture('vanilla.safetensors').subarray(0, 2000));
    await assert.rejects(file.readFloat32('logits'), /truncated: expected \d+ bytes at offset \d+, \d+ came/);
    await file.close();
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('types whose numbers are not read stand in the list, and are refused when they are asked for', async () => {
  for (const [dtype, shape, bytes] of [
    ['U16', [3], 6],
    ['U32', [3], 12],
    ['U64', [3], 24],
    ['C64', [1], 8],
    ['F8_E4M3', [2, 2], 4],
    ['F8_E5M2', [5], 5],
    ['F8_E8M0', [5], 5],
    ['F6_E2M3', [4], 3],
    ['F6_E3M2', [8], 6],
    ['F4', [6], 3],
  ] as const) {
    const file = await open(raw(JSON.stringify({ a: { dtype, shape, data_offsets: [0, bytes] } }), bytes));
    assert.deepEqual(file.tensors.get('a')?.shape, shape, dtype);
    assert.equal((await file.readBytes('a')).length, bytes, dtype);
    for (const read of [file.readFloat32, file.readFloat64, file.readInt32]) {
      await assert.rejects(
        read('a'),
        (error: Error) =>
          error instanceof FormatError &&
          error.message.endsWith(`: tensor 'a' is ${dtype}, whose numbers are not read`),
        dtype,
      );
    }
    await assert.rejects(
      open(raw(JSON.stringify({ a: { dtype, shape, data_offsets: [0, bytes + 1] } }), bytes + 1)),
      /takes \d+ bytes, its place in the file has/,
      dtype,
    );
  }
});

test('broken files are refused with what was expected', async () => {
  const one = (fields: string): string => `{"a":{${fields}}}`;
  const good = '"dtype":"F32","shape":[2],"data_offsets":[0,8]';
  const cases: [Uint8Array, RegExp][] = [
    [new Uint8Array(3), /truncated: expected 8 bytes at offset 0, the file has 3/],
    [raw('{}', 0, 1n << 63n), /the header says it is 9223372036854775808 bytes long, expected 2 to 2/],
    [raw('{}', 200_000, 200_000_000n), /the header says it is 200000000 bytes long/],
    [raw('\ufeff{}', 0), /not valid JSON/],
    [raw('{"a"', 0), /not valid JSON/],
    [join(raw('{"', 0, 4n), Uint8Array.of(0xff, 0x22)), /not valid UTF-8/],
    [raw(`{"a":{${good}},"a":{${good}}}`, 8), /has the key 'a' twice/],
    [raw(`{"a":{${good}},"\\u0061":{${good}}}`, 8), /has the key 'a' twice/],
    [raw(one(`${good},"dtype":"F32"`), 8), /has the key 'dtype' twice/],
    [raw('{"a":5}', 0), /tensor 'a': expected an object/],
    [raw(one('"dtype":"F8_E4","shape":[2],"data_offsets":[0,2]'), 2), /dtype "F8_E4" is not one of F32, F16/],
    [raw(one('"dtype":"toString","shape":[2],"data_offsets":[0,2]'), 2), /dtype "toString" is not one of/],
    [raw(one('"dtype":"F32","shape":[-2],"data_offsets":[0,8]'), 8), /a side is -2/],
    [raw(one('"dtype":"F32","shape":[1.5],"data_offsets":[0,8]'), 8), /shape: expected whole numbers, it has 1\.5/],
    [raw(one('"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]'), 8), /more than 2\^53 values/],
    [raw(one('"dtype":"F32","shape":[3],"data_offsets":[0,8]'), 8), /takes 12 bytes, its place in the file has 8/],
    [raw(one('"dtype":"F32","shape":[2],"data_offsets":[8,0]'), 8), /must rise and stay within the 8 bytes/],
    [raw(one('"dtype":"F32","shape":[2],"data_offsets":[0,16]'), 8), /stay within the 8 bytes/],
    [
      raw(one('"dtype":"F32","shape":[2],"data_offsets":[4,12]'), 12),
      /starts at data byte 4, expected 0: it leaves a hole/,
    ],
    [
      raw(`{"a":{${good}},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12),
      /starts at data byte 4, expected 8: it overlaps/,
    ],
    [raw(one(good), 9), /has \d+ bytes, its tensors end at \d+/],
    [raw('{"__metadata__":{"a":1}}', 0), /__metadata__ 'a' must be a string, it is 1/],
    [raw('{"__metadata__":"a"}', 0), /__metadata__ must be an object of strings/],
  ];
  for (const [bytes, message] of cases) {
    await assert.rejects(open(bytes, 'broken'), (error: Error) => {
      assert.ok(error instanceof FormatError, String(error));
      assert.match(error.message, message);
      assert.match(error.message, /^broken: /);
      return true;
    });
  }
});

test('wrong arguments of the writer are TypeErrors', () => {
  const data = Float32Array.of(1, 2);
  const entry = { name: 'a', dtype: 'F32' as const, shape: [2], data };
  assert.throws(() => writeSafetensors([entry, entry]), /given twice/);
  assert.throws(() => writeSafetensors([{ ...entry, shape: [3] }]), /data has 2 values, expected 3/);
  assert.throws(
    () => writeSafetensors([{ ...entry, dtype: 'F16' }]),
    /data must be a Uint16Array, it is a Float32Array/,
  );
  assert.throws(() => writeSafetensors([{ ...entry, name: '__metadata__' }]), /reserved/);
});

const shards: Record<string, Uint8Array> = {
  'one.safetensors': writeSafetensors([{ name: 'a', dtype: 'F32', shape: [1], data: Float32Array.of(1) }]),
  'two.safetensors': writeSafetensors([{ name: 'b', dtype: 'I32', shape: [2], data: Int32Array.of(2, 3) }]),
};

function openIndex(index: unknown, closed: string[] = []) {
  const bytes = new TextEncoder().encode(JSON.stringify(index));
  return openShardedSafetensors(memorySource(bytes, 'index.json'), async name => {
    if (!shards[name]) throw new Error(`no file ${name}`);
    return { ...memorySource(shards[name], name), close: async () => void closed.push(name) };
  });
}

test('a sharded model reads as one file and closes every shard', async () => {
  const closed: string[] = [];
  const file = await openIndex(
    { metadata: { total_size: 12 }, weight_map: { a: 'one.safetensors', b: 'two.safetensors' } },
    closed,
  );
  assert.deepEqual([...file.tensors.keys()], ['a', 'b']);
  assert.deepEqual(file.metadata, { total_size: 12 });
  assert.deepEqual([...(await file.readFloat32('a')), ...(await file.readInt32('b'))], [1, 2, 3]);
  await assert.rejects(file.readFloat32('c'), /has no tensor 'c'/);
  await file.close();
  assert.deepEqual(closed, ['one.safetensors', 'two.safetensors']);
});

test('broken indexes are refused and leave nothing open', async () => {
  const closed: string[] = [];
  const misplaced = openIndex({ weight_map: { a: 'one.safetensors', x: 'two.safetensors' } }, closed);
  await assert.rejects(misplaced, /puts 'x' into two\.safetensors, which does not have it/);
  assert.deepEqual(closed, ['one.safetensors', 'two.safetensors']);
  for (const fileName of [
    '../one.safetensors',
    '/etc/one.safetensors',
    'a\\b.safetensors',
    'one.bin',
    '.safetensors',
    5,
    null,
  ]) {
    await assert.rejects(
      openIndex({ weight_map: { a: fileName } }),
      /must name a \.safetensors file of the same folder/,
    );
  }
  await assert.rejects(
    openIndex({ weight_map: { a: 'three.safetensors' } }),
    /its shard three\.safetensors cannot be opened \(no file/,
  );
  await assert.rejects(openIndex({ weight_map: [] }), /weight_map must be an object/);
  await assert.rejects(openIndex([]), /must be a JSON object/);
});

test('writeFileAtomic replaces a file whole, and a failure leaves nothing behind', async () => {
  const folder = await mkdtemp(joinPath(tmpdir(), 'reft-io-'));
  try {
    const path = joinPath(folder, 'adapter.safetensors');
    await writeFileAtomic(path, 'old');
    await writeFileAtomic(path, Uint8Array.of(1, 2, 3));
    assert.deepEqual([...(await readFile(path))], [1, 2, 3]);
    await assert.rejects(writeFileAtomic(joinPath(folder, 'none', 'x'), 'text'), /ENOENT/);
    await assert.rejects(writeFileAtomic(folder, 'text'));
    assert.deepEqual(await readdir(folder), ['adapter.safetensors']);
  } finally {
    await rm(folder, { recursive: true });
  }
});
