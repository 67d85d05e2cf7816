// Bundles for browsers, made by Vite: of the tests' pages from src/, and of what users write against dist/. Node's
// files of the library are left out as package.json's "browser" field says it for dist/.

import { build, type Plugin } from 'vite';

/** src/**\/*Node.ts as empty modules: what the "browser" field does for dist/. */
export const withoutNodeFiles: Plugin = {
  name: 'reft-without-node-files',
  enforce: 'pre',
  load: id => (/\/src\/.*Node\.ts$/.test(id) ? 'export {};' : null),
};

/** A page of ours, for tests: from `html` files below `root` into `outDir`. */
export async function bundlePages(root: string, outDir: string, pages: readonly string[]): Promise<void> {
  await build({
    root,
    configFile: false,
    logLevel: 'error',
    base: './',
    plugins: [withoutNodeFiles],
    worker: { format: 'es', plugins: () => [withoutNodeFiles] },
    build: {
      outDir,
      emptyOutDir: true,
      target: 'es2022',
      minify: false,
      modulePreload: false,
      rolldownOptions: { input: [...pages] },
    },
  });
}

/** A Vite app as its own configuration builds it. */
export async function bundleApp(root: string, outDir: string): Promise<void> {
  await build({ root, logLevel: 'error', build: { outDir, emptyOutDir: true } });
}
