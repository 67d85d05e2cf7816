// A GGUF model split over several files, as llama.cpp's gguf-split and large models on the hub are:
// NAME-00001-of-00003.gguf holds the metadata and the first tensors, the others the rest. Reading one file is gguf.ts's
// work. Source: llama.cpp, llama_split_path in src/llama.cpp and tools/gguf-split.

import { FormatError } from './errors.js';
import { joinTensorFiles, shorten, type TensorFile } from './tensorFile.js';

/** The name of the first part, of one that is counted from 1, and of a model without its part. */
const partPattern = /-(\d{5})-of-(\d{5})\.gguf$/i;
const partName = (first: string, part: number): string =>
  first.replace(partPattern, (_, __, count: string) => `-${String(part).padStart(5, '0')}-of-${count}.gguf`);

/** The file names of all parts, by the name of the first: itself alone where it names no other. */
export function partNames(first: string): string[] {
  const [, part, count] = partPattern.exec(first) ?? [];
  if (count === undefined || Number(part) !== 1) return [first];
  return Array.from({ length: Number(count) }, (_, i) => partName(first, i + 1));
}

/** How many parts a file's metadata says there are; 1 for a whole file. */
export const partCount = (file: TensorFile): number => Number(file.metadata['split.count'] ?? 1);

/** True where the metadata of `part`, the `number`th from 1, fits `count` parts. */
const isPart = ({ metadata }: TensorFile, number: number, count: number): boolean =>
  Number(metadata['split.no']) === number - 1 && Number(metadata['split.count']) === count;

/**
 * All parts as one file, by their first one; `openPart` opens another by its file name. Takes over `first` and the
 * others, as `openGguf` does. FormatError for a part that is missing, that does not belong to the first, or that was
 * given for it.
 */
export async function joinParts(
  first: TensorFile,
  openPart: (fileName: string) => Promise<TensorFile>,
): Promise<TensorFile> {
  const parts = [first];
  const count = partCount(first);
  const fail = (text: string, options?: { cause: unknown }): never => {
    throw new FormatError(first.name, text, options);
  };
  try {
    const fileName = first.name.replace(/^.*[/\\]/, '');
    const number = Number(first.metadata['split.no']) + 1;
    const named = partPattern.exec(fileName);
    const what = `is part ${number} of ${count} of a split model`;
    if (number !== 1) fail(`${what}; open the first one, ${named ? partName(fileName, 1) : 'NAME-00001-of-...'}`);
    if (Number(named?.[1]) !== 1 || Number(named?.[2]) !== count) {
      const ending = `-00001-of-${String(count).padStart(5, '0')}.gguf`;
      fail(`${what}; its name must end in ${ending}, so that the others are found`);
    }
    for (const [i, name] of partNames(fileName).entries()) {
      if (i === 0) continue;
      const part = await openPart(name).catch((cause: unknown) => {
        if (cause instanceof Error && cause.name === 'AbortError') throw cause;
        return fail(
          `${what}, and ${name} cannot be opened (${cause instanceof Error ? cause.message : String(cause)})`,
          { cause },
        );
      });
      parts.push(part);
      if (!isPart(part, i + 1, count)) fail(`${what}, but ${name} is not its part ${i + 1}`);
    }
    const owner = new Map<string, TensorFile>();
    for (const part of parts) {
      for (const tensor of part.tensors.keys()) {
        if (owner.has(tensor)) fail(`its parts have the tensor '${shorten(tensor)}' twice`);
        owner.set(tensor, part);
      }
    }
    const total = first.metadata['split.tensors.count'];
    if (total !== undefined && Number(total) !== owner.size)
      fail(`has ${owner.size} tensors in its ${count} parts, expected ${String(total)}`);
    return joinTensorFiles(first.name, owner, parts, first.metadata);
  } catch (error) {
    await Promise.all(parts.map(part => part.close()));
    throw error;
  }
}
