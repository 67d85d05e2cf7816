// The page: what a person does becomes requests to the worker, and its replies become what is shown. No model code is
// here.

import lighthouse from '../../lighthouse.jsonl?raw';
import type { ExampleText, Reply, Request } from './messages.js';
import { drawLosses } from './plot.js';

const element = <T extends Element>(id: string): T => document.getElementById(id) as unknown as T;
const input = (id: string): HTMLInputElement => element(id);
const [status, note, trainingStatus] = ['status', 'note', 'training-status'].map(id => element<HTMLElement>(id));
const [trainingFields, askingFields] = ['training-fields', 'asking-fields'].map(id => element<HTMLFieldSetElement>(id));
const [train, stop, download, ask] = ['train', 'stop', 'download', 'ask'].map(id => element<HTMLButtonElement>(id));
const [loading, trained] = ['loading', 'trained'].map(id => element<HTMLProgressElement>(id));
const plot = element<SVGElement>('plot');

const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' });
const send = (request: Request): void => {
  worker.postMessage(request);
  if (request.type === 'stop') return;
  note.hidden = true;
  setBusy(true);
};

let device = '';
let hasModel = false;
let hasEdits = false;
let busy = 0;
const losses: number[] = [];

/** Requests are answered in order; each ends with 'idle'. */
function setBusy(begins: boolean): void {
  busy += begins ? 1 : -1;
  const working = busy > 0;
  train.disabled = working;
  ask.disabled = working;
  stop.disabled = !working;
  download.disabled = working || !hasEdits;
  trainingFields.disabled = !hasModel;
  askingFields.disabled = !hasModel;
}

function warn(message: string): void {
  note.textContent = message;
  note.hidden = false;
}

/** The rows of `npm start`. */
const examples = lighthouse
  .trim()
  .split('\n')
  .map((line): ExampleText => {
    const { instruction, output } = JSON.parse(line) as { instruction: string; output: string };
    return { prompt: instruction, completion: output };
  });

function addRow({ prompt, completion }: ExampleText = { prompt: '', completion: '' }): void {
  const row = document.createElement('div');
  row.className = 'row';
  const field = (label: string, value: string): HTMLInputElement => {
    const made = document.createElement('input');
    Object.assign(made, { type: 'text', required: true, value, placeholder: label });
    made.setAttribute('aria-label', label);
    return made;
  };
  const remove = document.createElement('button');
  Object.assign(remove, { type: 'button', textContent: '×', title: 'Remove this example' });
  remove.setAttribute('aria-label', 'Remove this example');
  remove.addEventListener('click', () => {
    row.remove();
  });
  row.append(field('Prompt', prompt), field('Answer to learn', completion), remove);
  element('rows').append(row);
}

function readRows(): ExampleText[] {
  return [...element('rows').children].map(row => {
    const [prompt, completion] = [...row.querySelectorAll('input')].map(field => field.value);
    return { prompt, completion };
  });
}

/** An adapter is a zip; anything else is a model. */
function take(files: readonly File[]): void {
  const adapter = files.find(f => /\.zip$/i.test(f.name));
  if (adapter) return send({ type: 'open adapter', file: adapter });
  if (files.length === 0) return;
  const chosen =
    document.querySelector<HTMLInputElement>('input[name=device]:checked')?.value === 'cpu' ? 'cpu' : 'webgpu';
  status.textContent = `Opening ${files.map(f => f.name).join(', ')}`;
  send({ type: 'load', files, device: chosen });
}

/** Files of a drop, those of dropped folders too. */
async function droppedFiles(transfer: DataTransfer): Promise<File[]> {
  const fileOf = (entry: FileSystemFileEntry): Promise<File> =>
    new Promise((resolve, reject) => {
      entry.file(resolve, reject);
    });
  const entriesOf = (entry: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> =>
    new Promise((resolve, reject) => {
      entry.createReader().readEntries(resolve, reject);
    });
  const walk = async (entry: FileSystemEntry): Promise<File[]> => {
    if (entry.isFile) return [await fileOf(entry as FileSystemFileEntry)];
    return (await Promise.all((await entriesOf(entry as FileSystemDirectoryEntry)).map(walk))).flat();
  };
  // Entries are there only until the event is over, so they are all asked for at once.
  const entries = [...transfer.items].map(item => item.webkitGetAsEntry());
  if (entries.some(entry => entry === null)) return [...transfer.files];
  return (await Promise.all(entries.map(entry => walk(entry as FileSystemEntry)))).flat();
}

function answer(sides: readonly ('before' | 'after')[]): void {
  for (const side of sides)
    element(side).textContent = side === 'after' && !hasEdits ? 'Train, or drop an adapter, first.' : '…';
  send({
    type: 'answer',
    prompt: input('prompt').value,
    strength: input('strength').valueAsNumber,
    longest: input('longest').valueAsNumber,
    sides,
  });
}

const drop = element<HTMLElement>('drop');
for (const type of ['dragover', 'dragleave', 'drop'] as const) {
  document.addEventListener(type, event => {
    event.preventDefault();
    drop.classList.toggle('over', type === 'dragover');
    if (type === 'drop' && event.dataTransfer)
      droppedFiles(event.dataTransfer).then(take, (error: unknown) => {
        warn(String(error));
      });
  });
}
input('files').addEventListener('change', () => {
  take([...(input('files').files ?? [])]);
  input('files').value = '';
});
element('add-row').addEventListener('click', () => {
  addRow();
});
element('training').addEventListener('submit', event => {
  event.preventDefault();
  losses.length = 0;
  trained.hidden = false;
  trained.value = 0;
  trainingStatus.textContent = 'Preparing the examples';
  const layers = input('layers').value.split(',').map(Number);
  const settings = {
    layers,
    rank: input('rank').valueAsNumber,
    epochs: input('epochs').valueAsNumber,
    learningRate: input('rate').valueAsNumber,
  };
  send({ type: 'train', examples: readRows(), settings });
});
stop.addEventListener('click', () => {
  send({ type: 'stop' });
});
download.addEventListener('click', () => {
  send({ type: 'save' });
});
element('asking').addEventListener('submit', event => {
  event.preventDefault();
  answer(['before', 'after']);
});
input('strength').addEventListener('input', () => {
  element('strength-value').textContent = input('strength').valueAsNumber.toFixed(1);
});
input('strength').addEventListener('change', () => {
  if (hasEdits && busy === 0) answer(['after']);
});

function show(message: Reply): void {
  switch (message.type) {
    case 'device':
      ({ device } = message);
      if (message.fallback) {
        warn(`WebGPU is not there, so the CPU is used: ${message.fallback}`);
        (document.querySelector('input[name=device][value=cpu]') as HTMLInputElement).checked = true;
      }
      break;
    case 'loading':
      loading.hidden = false;
      loading.value = message.total > 0 ? message.done / message.total : 0;
      break;
    case 'model': {
      const { name, parameters, layers } = message;
      [hasModel, hasEdits] = [true, false];
      status.textContent = `${name}: ${parameters.toLocaleString('en')} parameters in ${layers} layers, on the ${device}.`;
      input('layers').value = [...new Set([Math.floor(layers / 3), Math.floor((2 * layers) / 3)])].join(', ');
      trainingStatus.textContent = 'Nothing trained yet.';
      break;
    }
    case 'step':
      losses.push(message.loss);
      drawLosses(plot, losses, message.total);
      trained.value = message.index / message.total;
      trainingStatus.textContent = `Step ${message.index} of ${message.total}, loss ${message.loss.toFixed(3)}, ${message.seconds.toFixed(2)} s a step`;
      break;
    case 'edits': {
      hasEdits = true;
      const how = { trained: 'Trained', stopped: 'Stopped early', adapter: 'Adapter opened' }[message.from];
      trainingStatus.textContent = `${how}: ${message.summary.replaceAll('\n', '; ')}`;
      break;
    }
    case 'answer':
      element(message.side).textContent = message.text === '' ? '(an empty answer)' : message.text;
      break;
    case 'adapter': {
      const link = document.createElement('a');
      link.href = URL.createObjectURL(new Blob([message.zip], { type: 'application/zip' }));
      link.download = message.name;
      link.click();
      setTimeout(() => {
        URL.revokeObjectURL(link.href);
      }, 10_000);
      break;
    }
    case 'warning':
      warn(message.message);
      break;
    case 'error':
      warn(message.message);
      if (!hasModel) status.textContent = 'No model yet.';
      break;
    case 'idle':
      loading.hidden = true;
      setBusy(false);
      break;
  }
}
worker.addEventListener('message', ({ data }: MessageEvent<Reply>) => {
  show(data);
});
worker.addEventListener('error', event => {
  warn(`the worker failed: ${event.message}`);
});

for (const example of examples) addRow(example);
drawLosses(plot, [], 1);
