// Lines of a conversation that is piped in: ended by line feeds, and by nothing else that Unicode calls a line's end.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { lineInput } from '../src/cli/inputLines.js';

test('U+2028 and U+2029 stay within a line, whatever readline makes of them', async () => {
  const source = new PassThrough();
  const input = lineInput(source);
  const passed: string[] = [];
  input.stream.on('data', (chunk: Buffer) => passed.push(chunk.toString()));
  const lines: string[] = [];
  const reader = createInterface({ input: input.stream, terminal: false });
  reader.on('line', line => lines.push(input.restore(line)));
  const bytes = Buffer.from('one\u2028two\nthree\u2029four 🤖\r\nfive');
  // Characters may come in parts.
  for (const byte of bytes) source.write(Buffer.of(byte));
  source.end();
  await once(reader, 'close');
  assert.deepEqual(lines, ['one\u2028two', 'three\u2029four 🤖', 'five']);
  assert.equal(/[\u2028\u2029]/.test(passed.join('')), false, 'readline sees neither');
});

test('a terminal is still told to send keys one by one, and closing lets the input go', () => {
  const modes: boolean[] = [];
  const source = Object.assign(new PassThrough(), {
    setRawMode: (raw: boolean) => {
      modes.push(raw);
    },
  });
  const input = lineInput(source as unknown as Parameters<typeof lineInput>[0]);
  (input.stream as unknown as { setRawMode(raw: boolean): void }).setRawMode(true);
  assert.deepEqual(modes, [true]);
  input.close();
  assert.equal(source.isPaused(), true);
  assert.equal(source.listenerCount('data'), 0);
});
