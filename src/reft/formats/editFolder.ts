// Folders of edits in any format this project reads: our own, pyreft's, AdapterHub's. Which it is, is told from the
// files (Node).

import { FormatError } from '../../io/errors.js';
import { nodeOnly } from '../../io/nodeOnly.js';
import type { CausalLM } from '../../models/causalLM.js';
import {
  adapterConfigFile,
  adapterFileNames,
  adapterFromFiles,
  adapterModelFile,
  type LoadReftOptions,
} from '../adapterFiles.js';
import type { ReftModel } from '../reftModel.js';
import { adapterHubConfigFile, adapterHubFromFiles, adapterHubWeightFiles, isAdapterHub } from './adapterHub.js';
import {
  parsePyreftConfig,
  pyreftConfigFile,
  pyreftFileNames,
  pyreftFromFiles,
  type PyreftOptions,
} from './pyreftFolder.js';

export type EditFormat = 'reft' | 'pyreft' | 'adapterhub';

export interface EditFolder {
  readonly reft: ReftModel;
  readonly format: EditFormat;
}

/**
 * The edits of a folder (Node). `options.pyreft` says what pyreft's files leave open.
 * @throws FormatError for a folder of none of the formats, and for whatever is wrong with its files
 */
export async function loadEditFolder(
  base: CausalLM,
  directory: string,
  options: LoadReftOptions & { pyreft?: PyreftOptions } = {},
): Promise<EditFolder> {
  nodeOnly('loadEditFolder', 'use adapterFromFiles, pyreftFromFiles or adapterHubFromFiles');
  const { listFolder, readFolder } = await import('../adapterFilesNode.js');
  const { readSaved } = await import('../savedFilesNode.js');
  const names = new Set(await listFolder(directory));
  if (names.has(adapterConfigFile) && names.has(adapterModelFile)) {
    return {
      format: 'reft',
      reft: await adapterFromFiles(base, await readSaved(directory, adapterFileNames), {
        source: directory,
        ...options,
      }),
    };
  }
  if (names.has(adapterHubConfigFile)) {
    const found = adapterHubWeightFiles.filter(name => names.has(name)).slice(0, 1);
    const files = await readFolder(directory, [adapterHubConfigFile, ...found]);
    if (found.length > 0 && isAdapterHub(parseLoosely(files.get(adapterHubConfigFile) as Uint8Array))) {
      return { format: 'adapterhub', reft: await adapterHubFromFiles(base, files, directory) };
    }
  }
  if (names.has(pyreftConfigFile) && [...names].some(name => name.startsWith('intkey_'))) {
    const config = parsePyreftConfig(
      (await readFolder(directory, [pyreftConfigFile])).get(pyreftConfigFile) as Uint8Array,
      `${directory}/${pyreftConfigFile}`,
    );
    return {
      format: 'pyreft',
      reft: await pyreftFromFiles(
        base,
        await readFolder(directory, pyreftFileNames(config)),
        options.pyreft,
        directory,
      ),
    };
  }
  throw new FormatError(
    directory,
    `holds no edits: expected ${adapterConfigFile} with ${adapterModelFile}, ${pyreftConfigFile} with intkey_*.bin (pyreft), ` +
      `or ${adapterHubConfigFile} with ${adapterHubWeightFiles.join(' or ')} (AdapterHub)`,
  );
}

function parseLoosely(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}
