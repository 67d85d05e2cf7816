// `npm run test:browser`: the library in a headless Chromium. Golden cases and training on WebGPU, golden cases on
// WebAssembly in a worker with and without cross-origin isolation, a page without WebGPU, importing without side
// effects, and the example app clicked through. `--only TEXT` runs the jobs whose name has it, `--limit SECONDS`
// (default 300) ends everything. Exit 0 when all passed, 1 when not, 2 bad usage.

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Browser, Page } from 'playwright-core';
import type { Job, Verdict } from '../../tests/browser/jobs.js';
import { globTest } from '../conformance/cases.js';
import { mainJob } from '../conformance/mainJob.js';
import { writeTinyFolder } from '../../tests/helpers/tinyFolder.js';
import { clickThrough, fallsBack } from './app.js';
import { bundleApp, bundlePages } from './bundle.js';
import { launchChromium } from './chromium.js';
import { servePages, type PageServer } from './server.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { values } = parseArgs({
  options: { only: { type: 'string', default: '' }, limit: { type: 'string', default: '300' } },
});
const limit = Number(values.limit);
if (!(limit > 0)) {
  console.error(`--limit: expected seconds, got '${values.limit}'`);
  process.exit(2);
}

const folder = mkdtempSync(path.join(tmpdir(), 'reft-browser-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
// Chromium ends with this process.
setTimeout(() => {
  console.error(`test:browser: not done after ${limit} s (while: ${running})`);
  process.exit(1);
}, 1000 * limit).unref();

const begin = performance.now();
const seconds = (from: number): string => `${((performance.now() - from) / 1000).toFixed(1)} s`;
const counts = { pass: 0, fail: 0, unsupported: 0 };
let running = 'starting';

function tell({ name, status, detail }: Verdict): void {
  counts[status]++;
  console.log(`  ${status.padEnd(11)}  ${name.padEnd(38)}  ${detail}`.trimEnd());
}

/** The first lines of an error. */
const explained = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).split('\n').slice(0, 8).join('\n');

/** Runs one job; what it throws is a failure of its own. */
async function job(name: string, body: () => Promise<void>): Promise<void> {
  if (!name.includes(values.only)) return;
  running = name;
  const from = performance.now();
  console.log(name);
  try {
    await body();
  } catch (error) {
    tell({ name, status: 'fail', detail: explained(error) });
  }
  console.log(`  ${seconds(from)}`);
}

interface PageOptions {
  /** Runs in the page before anything of it. */
  readonly before?: () => void;
}

/** Opens a page of the tests, and closes it after `body`. Uncaught errors on it are failures. */
async function onPage(
  browser: Browser,
  url: string,
  body: (page: Page) => Promise<void>,
  { before }: PageOptions = {},
): Promise<void> {
  const page = await browser.newPage();
  const errors: string[] = [];
  page.on('pageerror', error => errors.push(error.message));
  page.on('crash', () => errors.push('the page crashed'));
  try {
    if (before) await page.addInitScript(before);
    await page.goto(url);
    await body(page);
    if (errors.length > 0) throw new Error(errors.join('; '));
  } finally {
    await page.close();
  }
}

/** The verdicts of a job of tests/browser/jobs.ts. */
async function verdicts(page: Page, where: 'runOnPage' | 'runInWorker', request: Job): Promise<Verdict[]> {
  const all: Verdict[] = [];
  await page.exposeFunction('report', (verdict: Verdict) => {
    all.push(verdict);
    tell(verdict);
  });
  await page.waitForFunction(() => 'runOnPage' in window);
  await page.evaluate(([name, asked]) => window[name](asked), [where, request] as const);
  if (all.length === 0) throw new Error('nothing was checked');
  return all;
}

const reference = process.env['REFT_SHARED'] ?? path.join(root, '..', 'shared');
const goldenFolder = path.join(reference, 'fixtures', 'reference');
const golden = existsSync(goldenFolder);
const cases = golden ? goldenFolder : path.join(root, 'tests', 'fixtures', 'conformance');
const modelFolder = path.join(reference, 'models');
const models = existsSync(modelFolder) ? modelFolder : path.join(root, 'tests', 'fixtures', 'conformance');

/** The golden cases of the main job must be among what passed. */
function checkMainJob(all: readonly Verdict[]): void {
  if (!golden) return;
  const passed = all.filter(v => v.status === 'pass').map(v => v.name);
  const missing = mainJob.filter(glob => !passed.some(globTest(glob)));
  if (missing.length > 0) throw new Error(`of the main job's cases these did not pass: ${missing.join(', ')}`);
}

async function runAll(browser: Browser, server: PageServer): Promise<void> {
  const request = (kind: Job['kind'], device: Job['device']): Job => ({
    kind,
    device,
    cases: '/cases/',
    models: '/models/',
  });
  const isolation = async (page: Page, expected: boolean): Promise<void> => {
    const isolated = await page.evaluate(() => crossOriginIsolated);
    if (isolated !== expected) throw new Error(`crossOriginIsolated is ${isolated}, expected ${expected}`);
  };
  const page = (origin: string): string => `${origin}/tests/index.html`;

  await job('importing the library touches no device', () =>
    onPage(browser, page(server.isolated), async p => {
      await p.waitForFunction(() => 'watchImport' in window);
      const calls = await p.evaluate(() => window.watchImport());
      tell({
        name: 'no call of WebGPU, WebAssembly, Worker',
        status: calls.length === 0 ? 'pass' : 'fail',
        detail: calls.join(', '),
      });
    }),
  );
  await job('training on WebGPU gives the losses of the CPU', () =>
    onPage(browser, page(server.isolated), async p => {
      await verdicts(p, 'runInWorker', request('training', 'webgpu'));
    }),
  );
  await job('golden cases on WebGPU', () =>
    onPage(browser, page(server.isolated), async p => {
      checkMainJob(await verdicts(p, 'runOnPage', request('conformance', 'webgpu')));
    }),
  );
  await job('golden cases on WebAssembly with threads, in a worker of an isolated page', () =>
    onPage(browser, page(server.isolated), async p => {
      await isolation(p, true);
      checkMainJob(await verdicts(p, 'runInWorker', request('conformance', 'cpu')));
    }),
  );
  await job('golden cases on WebAssembly with unshared memory, in a worker of a page that is not isolated', () =>
    onPage(browser, page(server.plain), async p => {
      await isolation(p, false);
      checkMainJob(await verdicts(p, 'runInWorker', request('conformance', 'cpu')));
    }),
  );
  await job('a page without WebGPU', () =>
    onPage(
      browser,
      page(server.plain),
      async p => {
        await verdicts(p, 'runOnPage', request('no WebGPU', 'cpu'));
      },
      { before: hideWebGpu },
    ),
  );

  const model = await writeTinyFolder(path.join(folder, 'model'));
  const app = (origin: string): string => `${origin}/app/index.html`;
  const clicked =
    (name: string, body: (page: Page) => Promise<string>) =>
    async (p: Page): Promise<void> => {
      tell({ name, status: 'pass', detail: await body(p) });
    };
  await job('the example app on WebGPU', () =>
    onPage(
      browser,
      app(server.isolated),
      clicked('clicked through', p => clickThrough(p, model, 'webgpu')),
    ),
  );
  await job('the example app on the CPU', () =>
    onPage(
      browser,
      app(server.isolated),
      clicked('clicked through', p => clickThrough(p, model, 'cpu')),
    ),
  );
  await job('the example app without WebGPU', () =>
    onPage(
      browser,
      app(server.plain),
      clicked('falls back, and says so', p => fallsBack(p, model)),
      { before: hideWebGpu },
    ),
  );
}

/** Runs in the page: takes navigator.gpu from it and from its workers. */
function hideWebGpu(): void {
  delete (Navigator.prototype as { gpu?: unknown }).gpu;
  window.Worker = class extends Worker {
    constructor(url: string | URL, options?: WorkerOptions) {
      const address = new URL(url, document.baseURI).href;
      super(
        URL.createObjectURL(
          new Blob([`import ${JSON.stringify(address)};\ndelete WorkerNavigator.prototype.gpu;`], {
            type: 'text/javascript',
          }),
        ),
        options,
      );
    }
  };
}

let browser: Browser | undefined;
let server: PageServer | undefined;
try {
  running = 'bundling';
  await bundlePages(path.join(root, 'tests', 'browser'), path.join(folder, 'tests'), ['index.html']);
  await bundleApp(path.join(root, 'examples', 'browser'), path.join(folder, 'app'));
  server = await servePages({
    '/app/': path.join(folder, 'app'),
    '/tests/': path.join(folder, 'tests'),
    '/cases/': cases,
    '/models/': models,
  });
  browser = await launchChromium();
  console.log(
    `Chromium ${browser.version()}, golden cases of ${golden ? 'the reference' : 'tests/fixtures'}, ready after ${seconds(begin)}`,
  );
  await runAll(browser, server);
} catch (error) {
  tell({ name: running, status: 'fail', detail: explained(error) });
} finally {
  await browser?.close();
  await server?.close();
}
console.log(
  `browser: ${counts.pass} passed, ${counts.fail} failed, ${counts.unsupported} unsupported, ${seconds(begin)}`,
);
process.exitCode = counts.pass > 0 && counts.fail === 0 ? 0 : 1;
