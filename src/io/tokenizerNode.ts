// Reads the tokenizer files of a Hugging Face folder. Node only; what the files mean is in tokenizerJson.ts.

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { FormatError } from './errors.js';
import { readTextBounded, type FileKind } from './openFileNode.js';
import type { Tokenizer } from './tokenizer.js';
import { tokenizerFromFiles } from './tokenizerJson.js';

/**
 * The tokenizer in a folder with a `tokenizer.json`.
 * @throws FormatError when there is none or a file is not what its format says
 */
export async function tokenizerFromFolder(folder: string): Promise<Tokenizer> {
  const path = join(folder, 'tokenizer.json');
  const tokenizerJson = await readIfThere(path, 'vocabulary');
  if (tokenizerJson === undefined) throw new FormatError(path, 'expected a tokenizer.json, found none');
  return tokenizerFromFiles(
    {
      tokenizerJson,
      tokenizerConfig: await readIfThere(join(folder, 'tokenizer_config.json')),
      specialTokensMap: await readIfThere(join(folder, 'special_tokens_map.json')),
      generationConfig:
        (await readIfThere(join(folder, 'generation_config.json'))) ?? (await readIfThere(join(folder, 'config.json'))),
      chatTemplate: await readIfThere(join(folder, 'chat_template.jinja')),
    },
    path,
  );
}

async function readIfThere(path: string, kind: FileKind = 'settings'): Promise<string | undefined> {
  const isThere = await stat(path).then(
    () => true,
    () => false,
  );
  return isThere ? readTextBounded(path, kind) : undefined;
}
