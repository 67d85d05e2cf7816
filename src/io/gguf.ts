// GGUF files, versions 2 and 3: every tensor's name, type, shape and place are checked against the file's real size
// before anything is read. Shapes come out row-major (outermost first, as torch has them), names and values as the file
// has them: llama.cpp's converter permutes the rows of q and k in llama architectures for its interleaved RoPE, and
// undoing that is the model loader's job, not this file's.

import { fileSource, type ByteSource } from './byteSource.js';
import { FormatError } from './errors.js';
import { HeaderGoesOn, parseGgufHeader } from './ggufMetadata.js';
import type { GgufHeader, GgufTensorInfo } from './ggufMetadata.js';
import { joinParts, partCount } from './ggufSplit.js';
import type { OpenSibling } from './safetensors.js';
import { measure } from './storedDType.js';
import type { StoredDType } from './storedDType.js';
import { shorten, tensorFileOver } from './tensorFile.js';
import type { StoredTensor, TensorFile } from './tensorFile.js';

/** ggml's numbers of the types that can be read (enum ggml_type in ggml.h). */
const readable: ReadonlyMap<number, StoredDType> = new Map([
  [0, 'F32'],
  [1, 'F16'],
  [2, 'Q4_0'],
  [3, 'Q4_1'],
  [6, 'Q5_0'],
  [7, 'Q5_1'],
  [8, 'Q8_0'],
  [12, 'Q4_K'],
  [13, 'Q5_K'],
  [14, 'Q6_K'],
  [24, 'I8'],
  [25, 'I16'],
  [26, 'I32'],
  [27, 'I64'],
  [28, 'F64'],
  [30, 'BF16'],
]);

/** Known types that cannot be read, so that the error can call them by name. */
const unreadable: ReadonlyMap<number, string> = new Map([
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
]);

/** The header is read in growing pieces, from the first to at most the second of these. */
const firstPiece = 4 * 2 ** 20;
const maxHeaderBytes = 256 * 2 ** 20;

/**
 * Opens a GGUF file, or all parts of a split one (ggufSplit.ts) by their first, for which `openSibling` opens the
 * others. `metadata` holds its keys as plain values (`tokenizer.ggml.tokens` is a string[]).
 * Refused with a FormatError: unknown or unsupported types, names twice, data that is unaligned, overlapping, with
 * holes, or does not end with the file. Takes over `source`: closed with the file, and when opening fails.
 */
export async function openGguf(source: ByteSource, openSibling?: OpenSibling): Promise<TensorFile> {
  const file = await openPart(source);
  if (partCount(file) === 1) return file;
  return joinParts(file, async name => {
    if (!openSibling) throw new Error('files beside it are not at hand');
    return openPart(await openSibling(name));
  });
}

/** The same by a path (Node), beside which further parts lie. */
export async function openGgufFile(path: string): Promise<TensorFile> {
  return openGguf(await fileSource(path), name => fileSource(path.replace(/[^/\\]*$/, name)));
}

async function openPart(source: ByteSource): Promise<TensorFile> {
  try {
    const header = await readHeader(source);
    return tensorFileOver(source, 'gguf', placeTensors(source, header), header.metadata);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function readHeader(source: ByteSource): Promise<GgufHeader> {
  const most = Math.min(source.size, maxHeaderBytes);
  for (let length = Math.min(firstPiece, most); ; length = Math.min(length * 4, most)) {
    const bytes = await source.read(0, length);
    try {
      return parseGgufHeader(bytes, source.name);
    } catch (error) {
      if (!(error instanceof HeaderGoesOn)) throw error;
      if (length < most) continue;
      throw new FormatError(source.name, `truncated: the header is not complete after ${most} bytes`, { cause: error });
    }
  }
}

const alignUp = (offset: number, alignment: number): number => Math.ceil(offset / alignment) * alignment;

/** Where each tensor is, in the order of the file, all checks done. */
function placeTensors(source: ByteSource, header: GgufHeader): Map<string, StoredTensor> {
  const alignment = readAlignment(source.name, header.metadata);
  const dataStart = alignUp(header.byteLength, alignment);
  const placed = header.tensorInfos.map(info => placeTensor(source, info, dataStart));
  // As ggml demands: each tensor starts at the first aligned byte after the one before it.
  const ordered = [...placed].sort((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  let end = dataStart;
  for (const tensor of ordered) {
    const expected = dataStart + alignUp(end - dataStart, alignment);
    if (tensor.byteOffset !== expected) {
      const unaligned = (tensor.byteOffset - dataStart) % alignment !== 0;
      const what = unaligned
        ? 'is not aligned'
        : tensor.byteOffset < end
          ? 'overlaps the tensor before it'
          : 'leaves a hole before it';
      const where = `starts at data byte ${tensor.byteOffset - dataStart}, expected ${expected - dataStart} (alignment ${alignment})`;
      throw new FormatError(source.name, `tensor '${shorten(tensor.name)}' ${where}: it ${what}`);
    }
    end = tensor.byteOffset + tensor.byteLength;
  }
  const longest = placed.length ? dataStart + alignUp(end - dataStart, alignment) : dataStart;
  if (placed.length && (source.size < end || source.size > longest)) {
    throw new FormatError(source.name, `has ${source.size} bytes, its tensors end at ${end}`);
  }
  return new Map(placed.map(tensor => [tensor.name, tensor]));
}

function readAlignment(sourceName: string, metadata: Readonly<Record<string, unknown>>): number {
  const alignment = Object.hasOwn(metadata, 'general.alignment') ? metadata['general.alignment'] : 32;
  if (typeof alignment === 'number' && alignment >= 1 && alignment <= 65_536 && Number.isInteger(Math.log2(alignment)))
    return alignment;
  throw new FormatError(
    sourceName,
    `general.alignment must be a power of two up to 65536, it is ${shorten(String(alignment))}`,
  );
}

function placeTensor(source: ByteSource, info: GgufTensorInfo, dataStart: number): StoredTensor {
  const what = `tensor '${shorten(info.name)}' [${[...info.sides].reverse()}]`;
  const dtype = readable.get(info.type);
  if (!dtype) {
    const type = unreadable.get(info.type) ?? `number ${info.type}`;
    throw new FormatError(
      source.name,
      `${what} has the type ${type}; types that can be read: ${[...readable.values()].join(', ')}`,
    );
  }
  const shape = [...info.sides].reverse();
  const size = measure(dtype, shape);
  if (typeof size === 'string') throw new FormatError(source.name, `${what} ${dtype}: ${size}`);
  const byteOffset = dataStart + info.offset;
  if (byteOffset + size.byteLength > source.size) {
    const range = `bytes ${byteOffset} to ${byteOffset + size.byteLength}`;
    throw new FormatError(source.name, `truncated: ${what} ${dtype} takes ${range}, the file has ${source.size} bytes`);
  }
  return { name: info.name, dtype, shape, byteOffset, byteLength: size.byteLength };
}
