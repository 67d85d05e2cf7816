// Where a command's words go. With --json stdout holds JSON lines and nothing else, and people read stderr; without it
// results go to stdout. Progress is always on stderr: a bar on a terminal, now and then a line elsewhere. What is said
// is the commands' business; that nothing in it
// steers a terminal or tells a password is seen to here.

import { SingleBar } from 'cli-progress';
import { printable, withoutControls, withoutSecrets } from '../io/printable.js';

export interface Progress {
  /** `value` of the total, and a few words on how it stands. */
  update(value: number, text?: string): void;
  stop(): void;
}

/** Seconds between two lines where there is no terminal. */
const lineEvery = 5;

export class Output {
  readonly json: boolean;

  constructor(json: boolean) {
    this.json = json;
  }

  /** One JSON line on stdout; nothing without --json. */
  event(event: string, fields: Readonly<Record<string, unknown>>): void {
    // JSON has the same escapes for what JSON.stringify leaves as it is.
    if (this.json) process.stdout.write(`${printable(JSON.stringify({ event, ...fields }))}\n`);
  }

  /** A line for people that belongs to the result. */
  say(text: string): void {
    (this.json ? process.stderr : process.stdout).write(`${forPeople(text)}\n`);
  }

  /** A line for people on the side. */
  note(text: string): void {
    process.stderr.write(`${forPeople(text)}\n`);
  }

  /** A piece of a text that is still growing, as it is but for a terminal; nothing with --json. */
  stream(text: string): void {
    if (!this.json) process.stdout.write(process.stdout.isTTY ? withoutControls(text) : text);
  }

  progress(label: string, total: number, format: (value: number) => string = String): Progress {
    return process.stderr.isTTY
      ? barProgress(printable(label), total, format)
      : lineProgress(printable(label), total, format);
  }
}

/** Secrets of the environment, should an error quote them. */
const forPeople = (text: string): string => printable(withoutSecrets(text, process.env['HF_TOKEN']));

function barProgress(label: string, total: number, format: (value: number) => string): Progress {
  const bar = new SingleBar({
    stream: process.stderr,
    hideCursor: true,
    barsize: 36,
    barCompleteChar: '━',
    barIncompleteChar: '─',
    etaBuffer: 5,
    fps: 8,
    gracefulExit: false,
    format: `${label}  {bar}  {done}/{all}  {text}  {eta_formatted}`,
  });
  bar.start(total, 0, { done: format(0), all: format(total), text: '' });
  return {
    update: (value, text = '') => {
      bar.update(value, { done: format(value), text });
    },
    stop: () => {
      bar.stop();
    },
  };
}

function lineProgress(label: string, total: number, format: (value: number) => string): Progress {
  let last = performance.now();
  let pending = '';
  let printed = false;
  const print = (): void => {
    if (pending) process.stderr.write(`${pending}\n`);
    pending = '';
    last = performance.now();
    printed = true;
  };
  return {
    update(value, text = '') {
      pending = `${label}  ${format(value)}/${format(total)}${text ? `  ${text}` : ''}`;
      if (performance.now() - last >= lineEvery * 1000) print();
    },
    // What was over before the first line was due needs none.
    stop: () => {
      if (printed) print();
    },
  };
}

/** 1234567 as "1.2 MB". */
export function bytesText(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** 134515008 as "134.5 M". */
export function countText(count: number): string {
  if (count < 1e5) return count.toLocaleString('en');
  return count < 1e6
    ? `${(count / 1e3).toFixed(1)} k`
    : count < 1e9
      ? `${(count / 1e6).toFixed(1)} M`
      : `${(count / 1e9).toFixed(2)} B`;
}
