// What `npm test` runs: every tests/*.test.ts by name (a folder or a pattern that finds nothing would pass), and fails
// as well when fewer tests passed than recorded in tests/count.json, or when any was skipped or put off. `--record`
// writes the count; arguments that are not flags run those files alone, without the count.

import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { swiftShaderEnvironment } from './withSwiftShader.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const countFile = path.join(root, 'tests', 'count.json');
const args = process.argv.slice(2);
const record = args.includes('--record');
const unknown = args.find(a => a.startsWith('--') && a !== '--record');
if (unknown) stop(2, `${unknown} is not known; --record, or the names of test files`);

const all = readdirSync(path.join(root, 'tests'))
  .filter(name => name.endsWith('.test.ts'))
  .sort()
  .map(name => path.join('tests', name));
const asked = args.filter(a => !a.startsWith('--'));
// A name may be a part: `npm test engine-` runs tests/engine-*.test.ts.
const files = asked.length === 0 ? all : all.filter(file => asked.some(a => file.includes(a.replaceAll('*', ''))));
if (files.length === 0) stop(2, `no test files${asked.length > 0 ? ` match ${asked.join(' ')}` : ''}`);

function stop(code: number, why: string): never {
  console.error(`test: ${why}`);
  process.exit(code);
}

const tsx = createRequire(import.meta.url).resolve('tsx/cli');
/** A file that has not ended by then has failed: no file takes a tenth of it on two cores. */
const timeoutMs = 600_000;

interface Summary {
  readonly tests: number;
  readonly passed: number;
  readonly failed: number;
  readonly problems: readonly string[];
  /** No adapter, and none was required. */
  readonly withoutGpu: boolean;
}

/** Runs files in one process tree and reads the runner's closing lines. */
function run(list: readonly string[], env: Readonly<Record<string, string>>): Promise<Summary> {
  const child = spawn(
    process.execPath,
    [tsx, '--test', '--test-reporter=spec', '--test-concurrency=2', `--test-timeout=${timeoutMs}`, ...list],
    { cwd: root, stdio: ['inherit', 'pipe', 'inherit'], env: { ...process.env, ...env } },
  );
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    process.stdout.write(chunk);
    output += chunk.toString();
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  return new Promise(resolve =>
    child.on('close', (code, signal) => {
      // The summary comes before the list of failures: the last line of each kind counts.
      const summary = (what: string): number =>
        Number([...output.matchAll(new RegExp(`^(?:ℹ|#) ${what} (\\d+)`, 'gm'))].at(-1)?.[1] ?? NaN);
      const [tests, passed, failed] = ['tests', 'pass', 'fail'].map(summary);
      const [skipped, todo, cancelled] = ['skipped', 'todo', 'cancelled'].map(summary);
      const problems: string[] = [];
      if (code !== 0) problems.push(`the runner ended with ${signal ?? `code ${code}`}`);
      if (!(tests > 0)) problems.push('no test ran');
      if (skipped > 0 || todo > 0 || cancelled > 0)
        problems.push(`${skipped} skipped, ${todo} todo, ${cancelled} cancelled: every test must run`);
      resolve({ tests, passed, failed, problems, withoutGpu: output.includes('WebGPU is not tested') });
    }),
  );
}

// WebGPU's tests run beside a software adapter, in an environment of their own.
const onGpu = (file: string): boolean => path.basename(file).startsWith('webgpu-');
const groups = [
  { name: 'tests', files: files.filter(f => !onGpu(f)), env: {} },
  { name: 'webgpu', files: files.filter(onGpu), env: swiftShaderEnvironment() },
] as const;
const recorded = existsSync(countFile) ? (JSON.parse(readFileSync(countFile, 'utf8')) as Record<string, number>) : {};
const total = { tests: 0, passed: 0, failed: 0 };
const counts: Record<string, number> = {};
const problems: string[] = [];
for (const { name, files: list, env } of groups) {
  if (list.length === 0) continue;
  const result = await run(list, env);
  total.tests += result.tests;
  total.passed += result.passed;
  total.failed += result.failed;
  counts[name] = result.passed;
  problems.push(...result.problems);
  if (asked.length > 0 || record || result.withoutGpu) continue;
  if (!(result.passed >= (recorded[name] ?? Infinity))) {
    problems.push(
      `${name}: ${result.passed} passed, ${recorded[name]} are recorded in tests/count.json (npm test -- --record after removing some on purpose)`,
    );
  }
}
if (asked.length === 0 && record && problems.length === 0) writeFileSync(countFile, `${JSON.stringify(counts)}\n`);
// Again at the end, after any details of failures.
console.log(`\nℹ files ${files.length}\nℹ tests ${total.tests}\nℹ pass ${total.passed}\nℹ fail ${total.failed}`);
if (problems.length > 0) stop(1, problems.join('; '));
