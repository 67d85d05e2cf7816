// The page of the tests: runs a job here or in a worker when the runner asks, and hands its verdicts on. The library is
// loaded only then, so that the page can first watch what importing it does.

import type { Job, Verdict } from './jobs.js';

declare global {
  interface Window {
    /** The runner's. */
    report(verdict: Verdict): Promise<void>;
    runOnPage(job: Job): Promise<void>;
    runInWorker(job: Job): Promise<void>;
    watchImport(): Promise<string[]>;
  }
}

window.runOnPage = async job => {
  const { runJob } = await import('./jobs.js');
  await runJob(job, verdict => window.report(verdict));
};

window.runInWorker = job =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' });
    const end = (error?: Error): void => {
      worker.terminate();
      if (error) reject(error);
      else resolve();
    };
    let told = Promise.resolve();
    worker.onerror = event => {
      end(new Error(`the worker failed: ${event.message}`));
    };
    worker.onmessage = ({ data }: MessageEvent<{ verdict?: Verdict; done?: boolean; error?: string }>) => {
      const { verdict, done, error } = data;
      if (verdict) told = told.then(() => window.report(verdict));
      if (done)
        told.then(() => {
          end();
        }, end);
      if (error !== undefined) end(new Error(error));
    };
    worker.postMessage(job);
  });

/** Imports everything the library exports; the calls to WebGPU, WebAssembly and Worker made meanwhile. */
window.watchImport = async () => {
  const calls: string[] = [];
  const watch = (owner: object, name: string): void => {
    const real = Reflect.get(owner, name) as (...args: unknown[]) => unknown;
    Reflect.set(
      owner,
      name,
      new Proxy(real, {
        apply: (target, self, args) => (calls.push(name), Reflect.apply(target, self, args)),
        construct: (target, args, made) => (calls.push(`new ${name}`), Reflect.construct(target, args, made) as object),
      }),
    );
  };
  for (const name of ['Module', 'Instance', 'Memory', 'compile', 'instantiate', 'validate']) watch(WebAssembly, name);
  for (const name of ['Worker', 'SharedArrayBuffer'].filter(n => n in globalThis)) watch(globalThis, name);
  const gpu = Object.getOwnPropertyDescriptor(Navigator.prototype, 'gpu');
  if (gpu?.get) {
    const { get } = gpu;
    Object.defineProperty(Navigator.prototype, 'gpu', {
      ...gpu,
      get() {
        calls.push('navigator.gpu');
        return get.call(this) as unknown;
      },
    });
  }
  const library = await import('../../src/index.js');
  // All of it is asked for, so that the bundler leaves nothing out.
  if (Object.keys(library).length < 50) throw new Error('the library is not all there');
  const touched = [...calls];
  // The watch works: opening the CPU is seen.
  library.createCpuBackend();
  if (calls.length === touched.length) throw new Error('opening a backend went unseen');
  return touched;
};
