// The model's side of the app, off the page's thread: loads, trains, answers, saves. One request after another; 'stop'
// goes at once.

import {
  adapterFromFiles,
  adapterToFiles,
  createCpuBackend,
  getReftModel,
  loadCausalLM,
  openDevice,
  ReftTrainer,
  type Backend,
  type CausalLM,
  type CpuOptions,
  type ReftModel,
  type Row,
  type Tokenizer,
} from '../../../src/index.js';
import type { ExampleText, Reply, Request, Side } from './messages.js';
import { openModelFiles } from './modelFiles.js';
import { unzip, zip } from './zip.js';

interface Loaded {
  readonly backend: Backend;
  readonly model: CausalLM;
  readonly tokenizer: Tokenizer;
}

let loaded: Loaded | undefined;
let edits: ReftModel | undefined;
let stopping = new AbortController();

const reply = (message: Reply): void => {
  postMessage(message);
};

function need(): Loaded {
  if (!loaded) throw new Error('there is no model yet');
  return loaded;
}

/** Threads share memory, which only an isolated page may do. */
function openCpu(): Backend {
  const options: CpuOptions & { threads: number } = {
    threads: crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency) : 1,
  };
  return createCpuBackend(options);
}

async function openBackend(device: 'webgpu' | 'cpu'): Promise<Backend> {
  if (device === 'webgpu') {
    try {
      const backend = await openDevice('webgpu');
      reply({ type: 'device', device: 'WebGPU' });
      return backend;
    } catch (error) {
      reply({ type: 'device', device: 'CPU', fallback: (error as Error).message });
      return openCpu();
    }
  }
  reply({ type: 'device', device: 'CPU' });
  return openCpu();
}

/** The model before is freed with its tensors; a device stays open for the next. */
function unload(): void {
  for (const weight of loaded?.model.parameters() ?? []) weight.storage.dispose();
  loaded = undefined;
  edits = undefined;
}

async function load(files: readonly File[], device: 'webgpu' | 'cpu'): Promise<void> {
  const { checkpoint, tokenizer } = await openModelFiles(files);
  unload();
  const backend = await openBackend(device);
  const model = await loadCausalLM(checkpoint, {
    device: backend,
    progressCallback: ({ loaded: done, total }) => {
      reply({ type: 'loading', done, total });
    },
  });
  loaded = { backend, model, tokenizer };
  reply({ type: 'model', name: model.name, parameters: model.parameterCount, layers: model.config.layers });
}

/** A conversation where the model has a template for one, else the text as it is. */
const rowOf = ({ prompt, completion }: ExampleText, i: number, { tokenizer }: Loaded): Row =>
  tokenizer.chatTemplate === undefined
    ? { kind: 'completion', prompt, completion, where: `example ${i + 1}` }
    : { kind: 'chat', before: [{ role: 'user', content: prompt }], answer: completion, where: `example ${i + 1}` };

async function train({ examples, settings }: Request & { type: 'train' }): Promise<void> {
  const { model, tokenizer } = need();
  const { layers, rank, epochs, learningRate } = settings;
  const edited = { layers: [...layers], positions: 'l1', newTokens: 'all' } as const;
  const reft = getReftModel(model, { kind: 'loreft', ...edited, rank, identityStart: true });
  reft.onWarning = message => {
    reply({ type: 'warning', message });
  };
  const { signal } = stopping;
  const rows = examples.map((example, i) => rowOf(example, i, need()));
  const trainer = new ReftTrainer(reft, { tokenizer, rows, epochs, batchSize: 4, learningRate, signal });
  try {
    for await (const { index, total, loss, seconds } of trainer.steps())
      reply({ type: 'step', index, total, loss, seconds });
  } finally {
    trainer.dispose();
  }
  edits = reft;
  reply({ type: 'edits', summary: reft.summary(), from: signal.aborted ? 'stopped' : 'trained' });
}

async function answer(side: Side, { prompt, strength, longest }: Request & { type: 'answer' }): Promise<void> {
  const { model, tokenizer } = need();
  if (side === 'after' && !edits) return;
  const ids: number[] = [];
  const tell = (): void => {
    reply({ type: 'answer', side, text: tokenizer.decode(ids, { skipSpecialTokens: true }).trim() });
  };
  const start = tokenizer.chatTemplate === undefined ? tokenizer.encodePrompt(prompt) : tokenizer.chat(prompt).ids;
  const options = {
    maxNewTokens: longest,
    stopTokenIds: tokenizer.stopTokenIds,
    signal: stopping.signal,
    onToken: (_: number, id: number) => {
      ids.push(id);
      tell();
    },
  };
  for (const intervention of edits?.interventions ?? []) intervention.scale = strength;
  await (side === 'before' ? model : (edits as ReftModel)).generate(start, options);
  tell();
}

async function save(): Promise<void> {
  if (!edits) throw new Error('there are no edits yet');
  // The strength is the page's; an adapter is saved as it was trained.
  for (const intervention of edits.interventions) intervention.scale = 1;
  reply({ type: 'adapter', zip: zip(await adapterToFiles(edits)), name: 'adapter.zip' });
}

async function openAdapter(file: File): Promise<void> {
  const files = await unzip(new Uint8Array(await file.arrayBuffer()));
  edits = await adapterFromFiles(need().model, files, {
    source: file.name,
    onWarning: message => {
      reply({ type: 'warning', message });
    },
  });
  reply({ type: 'edits', summary: edits.summary(), from: 'adapter' });
}

async function handle(request: Request): Promise<void> {
  stopping = new AbortController();
  switch (request.type) {
    case 'load':
      return load(request.files, request.device);
    case 'train':
      return train(request);
    case 'answer':
      for (const side of request.sides) await answer(side, request);
      return;
    case 'save':
      return save();
    case 'open adapter':
      return openAdapter(request.file);
    case 'stop':
      return;
  }
}

let queue = Promise.resolve();
addEventListener('message', ({ data }: MessageEvent<Request>) => {
  if (data.type === 'stop') return stopping.abort();
  queue = queue
    .then(() => handle(data))
    .catch((error: unknown) => {
      if (!stopping.signal.aborted)
        reply({ type: 'error', message: error instanceof Error ? error.message : String(error) });
    })
    .then(() => {
      reply({ type: 'idle' });
    });
});
