// Golden cases over HTTP, for the checks of scripts/conformance in a browser: a folder as scripts/browser/server.ts
// serves it.

import { memorySource, type ByteSource } from '../../src/io/byteSource.js';
import { openCheckpoint } from '../../src/models/auto.js';
import { readJson, type CaseFiles } from '../../scripts/conformance/files.js';

/** The bytes of an address. @throws Error naming it and the status */
export async function fetchSource(url: string): Promise<ByteSource> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: status ${response.status}`);
  return memorySource(new Uint8Array(await response.arrayBuffer()), url);
}

/** Paths of the files below an address. */
export async function listFiles(url: string): Promise<string[]> {
  const source = await fetchSource(url);
  return JSON.parse(new TextDecoder().decode(await source.read(0, source.size))) as string[];
}

/** `url` ends with '/'. Models are folders of it. */
export function httpFiles(url: string): CaseFiles {
  // Names of pyreft's files have a '#'.
  const address = (path: string): string => url + path.split('/').map(encodeURIComponent).join('/');
  const open = (path: string): Promise<ByteSource> => fetchSource(address(path));
  const json = (path: string): Promise<unknown> => readJson(open(path), address(path));
  return {
    name: url,
    list: () => listFiles(url),
    open,
    json,
    async model(name) {
      const config = await json(`${name}/config.json`);
      return {
        key: name,
        config,
        open: async () => openCheckpoint(await open(`${name}/model.safetensors`), config),
        tokenizer: () => Promise.reject(new Error(`model '${name}': cases with texts are not for browsers`)),
      };
    },
  };
}
