// Lays a case of tests/fixtures/cases out in a temporary folder, with the files that are kept compressed in its
// `blobs/`.

import { cp, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';

const cases = fileURLToPath(new URL('../fixtures/cases', import.meta.url));

/**
 * The path of a folder that holds the case `name` ("01-qwen2-window-layers"), whole. It is a copy: tests may write in
 * it.
 */
export async function caseFolder(name: string): Promise<string> {
  const links = JSON.parse(await readFile(join(cases, 'blobs/links.json'), 'utf8')) as Record<string, string>;
  const mine = Object.entries(links).filter(([file]) => file.startsWith(`${name}/`));
  const folder = await mkdtemp(join(tmpdir(), `reft-${name}-`));
  await cp(join(cases, name), folder, { recursive: true }).catch((error: unknown) => {
    if (mine.length === 0) throw error;
  });
  for (const [file, blob] of mine) {
    const target = join(folder, file.slice(name.length + 1));
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, gunzipSync(await readFile(join(cases, 'blobs', `${blob}.gz`))));
  }
  return folder;
}
