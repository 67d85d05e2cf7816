// `npm run bundle:sizes`: what the built package (dist/) weighs in a browser: everything, training, and applying an
// adapter only. Prints the sizes and writes docs/bundleSizes.md; `--check` writes nothing. Fails when a bundle reaches
// for Node, when applying brings the trainer along, or when a Node-only file of dist/ is missing in package.json's
// "browser" field.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build, type Rolldown } from 'vite';

const root = fileURLToPath(new URL('..', import.meta.url));

const opening = [
  'openCheckpoint',
  'loadCausalLM',
  'openGguf',
  'tokenizerFromGGUF',
  'tokenizerFromFiles',
  'blobSource',
  'openDevice',
];
const bundles: readonly { readonly name: string; readonly what: string; readonly code: string }[] = [
  { name: 'everything', what: "`export * from 'reft'`", code: "export * from 'reft';" },
  {
    name: 'train',
    what: 'open a model, train edits, save and load them, generate',
    code: `export { ${[...opening, 'getReftModel', 'ReftTrainer', 'parseRows', 'adapterToFiles', 'adapterFromFiles'].join(', ')} } from 'reft';`,
  },
  {
    name: 'apply',
    what: 'open a model and an adapter, generate',
    code: `export { ${[...opening, 'adapterFromFiles'].join(', ')} } from 'reft';`,
  },
];
/** Files of dist/ that nobody needs who only applies an adapter. */
const trainingOnly = /\/dist\/(reft\/(trainer\w*|checkpoint|reuse)|nn\/(optim|schedule)|data\/(collate|rows))\.js$/;

interface Size {
  readonly name: string;
  readonly what: string;
  /** Bytes minified and with gzip: of what is loaded at once, and of chunks loaded when they are needed. */
  readonly first: readonly [number, number];
  readonly later: readonly [number, number];
}

const problems: string[] = [];

async function measure({ name, what, code }: (typeof bundles)[number]): Promise<Size> {
  const id = `virtual:${name}`;
  const built = (await build({
    root,
    configFile: false,
    logLevel: 'error',
    publicDir: false,
    resolve: { alias: [{ find: /^reft$/, replacement: path.join(root, 'dist', 'index.js') }] },
    plugins: [
      {
        name: 'entry',
        resolveId: asked => (asked === id ? `\0${id}` : null),
        load: asked => (asked === `\0${id}` ? code : null),
      },
    ],
    build: {
      write: false,
      target: 'es2022',
      minify: true,
      modulePreload: false,
      rolldownOptions: { input: id, preserveEntrySignatures: 'strict' },
    },
  })) as Rolldown.RolldownOutput;
  const chunks = built.output.filter(part => part.type === 'chunk');
  // Modules of which something is left, and whatever is loaded from outside.
  const modules = chunks.flatMap(chunk =>
    Object.entries(chunk.modules)
      .filter(([, m]) => m.renderedLength > 0)
      .map(([file]) => file),
  );
  const outside = chunks
    .flatMap(chunk => [...chunk.imports, ...chunk.dynamicImports])
    .filter(file => !chunks.some(chunk => chunk.fileName === file));
  for (const file of outside) problems.push(`${name}: imports '${file}'`);
  for (const file of modules) {
    // Vite puts an empty module for a file that is left out, and one that names it for a module of Node.
    if (/Node\.js$|\/dist\/cli\/|__vite-browser-external:/.test(file))
      problems.push(`${name}: carries ${path.relative(root, file)}, which is for Node`);
    if (name === 'apply' && trainingOnly.test(file))
      problems.push(`${name}: carries ${path.relative(root, file)}, which is for training`);
  }
  for (const { code: text } of chunks)
    if (/\b(from|import|require)\s*\(?\s*["'`]node:\w/.test(text)) problems.push(`${name}: names a module of Node`);
  if (!modules.some(file => file.endsWith('/dist/models/causalLM.js')))
    problems.push(`${name}: has no model in it, so this check is blind`);
  const atOnce = new Set<string>();
  const add = (fileName: string): void => {
    const chunk = chunks.find(c => c.fileName === fileName);
    if (!chunk || atOnce.has(fileName)) return;
    atOnce.add(fileName);
    chunk.imports.forEach(add);
  };
  chunks
    .filter(chunk => chunk.isEntry)
    .forEach(chunk => {
      add(chunk.fileName);
    });
  const weigh = (first: boolean): [number, number] =>
    chunks
      .filter(chunk => atOnce.has(chunk.fileName) === first)
      .map(chunk => Buffer.from(chunk.code))
      .reduce(
        ([bytes, gzip], code): [number, number] => [bytes + code.length, gzip + gzipSync(code, { level: 9 }).length],
        [0, 0],
      );
  return { name, what, first: weigh(true), later: weigh(false) };
}

/** Node-only files that package.json does not leave out of browsers. */
function checkBrowserField(): void {
  const { browser = {} } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as {
    browser?: Record<string, unknown>;
  };
  const source = readdirSync(path.join(root, 'src'), { recursive: true, encoding: 'utf8' }).map(file =>
    file.split(path.sep).join('/'),
  );
  const nodeOnly = source
    .filter(file => file.endsWith('Node.ts') && !file.startsWith('cli/'))
    .map(file => `./dist/${file.slice(0, -3)}.js`);
  for (const file of nodeOnly)
    if (browser[file] !== false) problems.push(`package.json: "browser" lacks "${file}": false`);
  for (const file of Object.keys(browser))
    if (!nodeOnly.includes(file)) problems.push(`package.json: "browser" names ${file}, which is not there`);
}

checkBrowserField();
const sizes: Size[] = [];
for (const bundle of bundles) sizes.push(await measure(bundle));

const kilobytes = (bytes: number): string => `${(bytes / 1000).toFixed(0)} kB`;
const table = [
  '| bundle | what it can do | minified | gzip | on demand, minified | gzip |',
  '|---|---|---:|---:|---:|---:|',
  ...sizes.map(
    ({ name, what, first, later }) => `| ${[name, what, ...[...first, ...later].map(kilobytes)].join(' | ')} |`,
  ),
].join('\n');
console.log(table);
if (problems.length > 0) {
  for (const problem of problems) console.error(`bundle:sizes: ${problem}`);
  process.exitCode = 1;
} else if (!process.argv.includes('--check')) {
  const head = [
    '# Bundle sizes',
    '',
    'Of the built package in a browser, by Vite, with all that it depends on. Chunks on demand are loaded when they are needed: the WebGPU backend when it is',
    'opened (`everything` exports it, so has it at once), drawing when something is drawn. No bundle holds code for Node, and `apply` holds no trainer and no',
    'optimizer: `npm run bundle:sizes` checks both and writes this page.',
    '',
  ].join('\n');
  writeFileSync(path.join(root, 'docs', 'bundleSizes.md'), `${head}\n${table}\n`);
}
