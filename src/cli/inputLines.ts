// Lines typed or piped in, as readline gives them, ended by line feeds alone. Since Node 22 readline also ends lines at
// U+2028 and U+2029, which are characters of a message; they go past it as two characters that no text has.

import { Transform } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import type { ReadStream } from 'node:tty';

/** Unicode's line and paragraph separators, and the noncharacters that stand for them on the way. */
const disguises: readonly (readonly [string, string])[] = [
  ['\u2028', '\uFDD0'],
  ['\u2029', '\uFDD1'],
];

export interface LineInput {
  /** What readline reads in place of the input. */
  readonly stream: Transform;
  /** A line as it was before readline read it. */
  restore(line: string): string;
  /** Lets the input go, so that it keeps the process alive no longer. */
  close(): void;
}

export function lineInput(input: NodeJS.ReadableStream & Partial<Pick<ReadStream, 'setRawMode'>>): LineInput {
  const decoder = new StringDecoder('utf8');
  const disguise = (text: string): string => disguises.reduce((t, [from, to]) => t.replaceAll(from, to), text);
  const stream = new Transform({
    transform: (chunk: Buffer, _, done) => {
      done(null, disguise(decoder.write(chunk)));
    },
    flush: done => {
      done(null, disguise(decoder.end()));
    },
  });
  // A terminal is told by readline to send key by key.
  if (input.setRawMode) Object.assign(stream, { isTTY: true, setRawMode: (raw: boolean) => input.setRawMode?.(raw) });
  input.pipe(stream);
  return {
    stream,
    restore: line => disguises.reduce((t, [to, from]) => t.replaceAll(from, to), line),
    close: () => {
      input.unpipe(stream);
      input.pause();
    },
  };
}
