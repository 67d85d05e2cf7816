// What the official library (safetensors 0.8.0) makes of headers and names, as it was run: accepted or refused here
// alike, but for names that are given twice, of which it takes the last.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { memorySource } from '../src/io/byteSource.js';
import { FormatError } from '../src/io/errors.js';
import { openSafetensors, writeSafetensors } from '../src/io/safetensors.js';
import type { TensorFile } from '../src/io/tensorFile.js';

/** A file of this header and eight bytes of data. */
function open(header: string): Promise<TensorFile> {
  const text = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + text.byteLength + 8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.byteLength), true);
  bytes.set(text, 8);
  return openSafetensors(memorySource(bytes, 'x.safetensors'));
}

const tensor = '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}';
const withFields = (fields: string): string => `{"a":{"dtype":"F32",${fields}}}`;

describe('headers', () => {
  const accepted: Record<string, string> = {
    'white space in front': ` \n\t\r{${tensor}}`,
    'white space behind': `{${tensor}} \n`,
    'white space inside': `{ "a" : { "dtype" : "F32", "shape" : [ 2 ],\n"data_offsets" : [ 0 , 8 ] } }`,
    'metadata that is null': `{"__metadata__":null,${tensor}}`,
    'metadata without entries': `{"__metadata__":{},${tensor}}`,
    'a field that is not known': withFields('"shape":[2],"data_offsets":[0,8],"more":[1.0,{"shape":[2.5e1]}]'),
    'a fraction spelled in a name': '{"1.0 shape [2.0]":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    'a tensor called shape': '{"shape":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
  };
  for (const [what, header] of Object.entries(accepted)) {
    test(`${what}: accepted`, async () => {
      const file = await open(header);
      assert.deepEqual(
        [...file.tensors.values()].map(t => [t.shape, t.byteLength]),
        [[[2], 8]],
      );
      assert.deepEqual(file.metadata, {});
    });
  }

  const refused: Record<string, [string, RegExp]> = {
    'a side written 2.0': [
      withFields('"shape":[2.0],"data_offsets":[0,8]'),
      /shape: expected whole numbers, it has 2\.0$/,
    ],
    'a side written 2e0': [
      withFields('"shape":[2e0],"data_offsets":[0,8]'),
      /shape: expected whole numbers, it has 2e0$/,
    ],
    'an offset written 8.0': [
      withFields('"shape":[2],"data_offsets":[0,8.0]'),
      /data_offsets: expected whole numbers, it has 8\.0$/,
    ],
    'an offset written -0': [
      withFields('"shape":[2],"data_offsets":[-0,8]'),
      /data_offsets: expected whole numbers, it has -0$/,
    ],
    'an escaped key': [
      withFields('"sh\\u0061pe":[2.0],"data_offsets":[0,8]'),
      /shape: expected whole numbers, it has 2\.0$/,
    ],
    'a byte order mark': [`\ufeff{${tensor}}`, /not valid JSON/],
    'zeros behind': [`{${tensor}}\0`, /not valid JSON/],
    'a list': ['[]', /must be a JSON object/],
    'metadata that is a list': [`{"__metadata__":[],${tensor}}`, /__metadata__ must be an object of strings/],
    'metadata with a null': [`{"__metadata__":{"x":null},${tensor}}`, /__metadata__ 'x' must be a string, it is null/],
    'three offsets': [withFields('"shape":[2],"data_offsets":[0,8,9]'), /data_offsets must be two whole numbers/],
    'a tensor that is null': ['{"a":null}', /tensor 'a': expected an object/],
  };
  for (const [what, [header, message]] of Object.entries(refused)) {
    test(`${what}: refused`, async () => {
      await assert.rejects(open(header), (error: Error) => error instanceof FormatError && message.test(error.message));
    });
  }
});

test('names are sorted by their bytes in UTF-8, as the official writer does', () => {
  const names = ['b', 'a', '\u{10000}', '\uffff', '\ue000', 'Z', '\u00e9', 'a.b', 'a-b', '7', '10'];
  const bytes = writeSafetensors(
    names.map(name => ({ name, dtype: 'F32', shape: [1], data: Float32Array.of(0) })),
    { '\u{10000}': 'v', '\uffff': 'v', b: 'v' },
  );
  const size = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = new TextDecoder().decode(bytes.subarray(8, 8 + size));
  const written = [...header.matchAll(/"([^"]*)":\{"dtype"/g)].map(([, name]) => name);
  assert.deepEqual(written, ['10', '7', 'Z', 'a', 'a-b', 'a.b', 'b', '\u00e9', '\ue000', '\uffff', '\u{10000}']);
  assert.match(header, /^\{"__metadata__":\{"b":"v","\uffff":"v","\u{10000}":"v"\},/u);
});

test('a name that is no valid Unicode is not written: the official reader refuses it', () => {
  assert.throws(
    () => writeSafetensors([{ name: 'x\ud800', dtype: 'F32', shape: [1], data: Float32Array.of(0) }]),
    /^TypeError: writeSafetensors: .*: the name is no valid Unicode$/,
  );
});
