// A server for pages under test, on a free port of this machine: folders of files below a prefix each, with or without
// the headers that isolate a page from other origins (which threads need). It lists a folder's files as JSON at its
// prefix. Not for anything but tests.

import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
};

export interface PageServer {
  /** Where pages are isolated, by COOP and COEP. */
  readonly isolated: string;
  /** The same files without those headers. */
  readonly plain: string;
  close(): Promise<void>;
}

async function serveOne(
  folders: Readonly<Record<string, string>>,
  isolate: boolean,
): Promise<{ origin: string; close: () => Promise<void> }> {
  const answer = async (url: string, response: ServerResponse): Promise<void> => {
    const asked = decodeURIComponent(new URL(url, 'http://localhost').pathname);
    const prefix = Object.keys(folders).find(p => asked.startsWith(p));
    const folder = prefix === undefined ? undefined : path.resolve(folders[prefix]);
    const file = folder === undefined ? undefined : path.join(folder, asked.slice((prefix as string).length));
    if (
      !folder ||
      !file ||
      (file !== folder && file !== `${folder}${path.sep}` && !file.startsWith(`${folder}${path.sep}`))
    )
      return void response.writeHead(404).end();
    const found = await stat(file).catch(() => undefined);
    if (found?.isDirectory()) {
      const entries = await readdir(file, { recursive: true, withFileTypes: true });
      const names = entries
        .filter(e => e.isFile())
        .map(e =>
          path
            .relative(folder, path.join(e.parentPath ?? e.path, e.name))
            .split(path.sep)
            .join('/'),
        );
      return void response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(names));
    }
    if (!found?.isFile()) return void response.writeHead(404).end();
    response.writeHead(200, {
      'content-type': types[path.extname(file)] ?? 'application/octet-stream',
      'content-length': found.size,
    });
    createReadStream(file)
      .on('error', () => response.destroy())
      .pipe(response);
  };
  const server = createServer((request, response) => {
    response.setHeader('cache-control', 'no-store');
    if (isolate) {
      response.setHeader('cross-origin-opener-policy', 'same-origin');
      response.setHeader('cross-origin-embedder-policy', 'require-corp');
      response.setHeader('cross-origin-resource-policy', 'same-origin');
    }
    answer(request.url ?? '/', response).catch((error: unknown) => {
      response.writeHead(500).end(String(error));
    });
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const close = (): Promise<void> =>
    new Promise(resolve => {
      server.closeAllConnections();
      server.close(() => resolve());
    });
  return { origin: `http://localhost:${(server.address() as AddressInfo).port}`, close };
}

/** `folders` by the prefix of their addresses, '/cases/' say. */
export async function servePages(folders: Readonly<Record<string, string>>): Promise<PageServer> {
  const [isolated, plain] = await Promise.all([serveOne(folders, true), serveOne(folders, false)]);
  return {
    isolated: isolated.origin,
    plain: plain.origin,
    close: async () => void (await Promise.all([isolated.close(), plain.close()])),
  };
}
