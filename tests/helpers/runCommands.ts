// Runs several command lines of `reft` one after the other in one process: a JSON list of argument lists on stdin
// becomes a JSON list of { code, stdout, stderr } on stdout. A list that begins with `< TEXT` is given that text as its
// standard input. Starting a process for each would be most of a test's time.

import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { run } from '../../src/cli/program.js';

const commands = JSON.parse(await text(process.stdin)) as string[][];
const writeOut = process.stdout.write.bind(process.stdout);
const results = [];
for (const command of commands) {
  const [input, args] = command[0]?.startsWith('< ') ? [command[0].slice(2), command.slice(1)] : ['', command];
  Object.defineProperty(process, 'stdin', { value: Readable.from([input]), configurable: true });
  const result = { code: 0, stdout: '', stderr: '' };
  process.stdout.write = (chunk: string | Uint8Array): boolean => {
    result.stdout += String(chunk);
    return true;
  };
  process.stderr.write = (chunk: string | Uint8Array): boolean => {
    result.stderr += String(chunk);
    return true;
  };
  result.code = await run(args);
  results.push(result);
}
writeOut(JSON.stringify(results));
