// `npm run mutants`: applies each patch of tests/mutants/table.ts to a copy of the tree (never the checkout) and
// expects its tests to fail. First the same tests must pass unpatched, or their failing would say nothing. Ends with 1
// when a mutant survives, does not compile, or its line is no longer there. Arguments choose mutants by a part of their
// name or file.

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Mutant } from '../tests/mutants/mutant.js';
import { mutants } from '../tests/mutants/table.js';
import { copyTree, inParallel, runTsx } from './mutantTree.js';

const workers = 2;
const timeoutMs = 120_000;

interface Outcome {
  readonly passed: number;
  readonly failed: number;
  readonly timedOut: boolean;
  readonly output: string;
}

async function runTests(folder: string, { tests, only }: Pick<Mutant, 'tests' | 'only'>): Promise<Outcome> {
  const args = ['--test', '--test-reporter=tap', ...(only ? [`--test-name-pattern=${only}`] : []), ...tests];
  const gpu = tests.some(t => path.basename(t).startsWith('webgpu-'));
  const { output, timedOut } = await runTsx(folder, args, { timeoutMs, gpu });
  const lines = output.split('\n').map(line => line.trim());
  // With a pattern, tests that are left out count as skipped; a file that does not load is a failed test with the
  // file's name.
  const ran = lines.filter(
    line => /^(not )?ok \d+ - /.test(line) && !/# (SKIP|TODO)/i.test(line) && !/\.test\.ts$/.test(line),
  );
  const failed = ran.filter(line => line.startsWith('not ok')).length;
  return { passed: ran.length - failed, failed, timedOut, output };
}

/** The failed tests of a TAP report with the first lines of their errors. */
function failures(output: string): string {
  const blocks = output.split(/^(?=# Subtest:)/m).filter(block => /^not ok/m.test(block));
  return blocks.length > 0 ? blocks.map(block => block.slice(0, 1500)).join('') : output.slice(-1500);
}

const chosen = process.argv.slice(2);
const list =
  chosen.length === 0 ? mutants : mutants.filter(m => chosen.some(c => m.name.includes(c) || m.file.includes(c)));
const began = Date.now();
const folders = Array.from({ length: workers }, copyTree);
const problems: string[] = [];

try {
  if (list.length === 0) problems.push(`no mutant matches ${chosen.join(' ')}`);
  // Unpatched, each file once, with the patterns of all its mutants.
  const files = new Map<string, Set<string>>();
  for (const m of list) for (const t of m.tests) files.set(t, (files.get(t) ?? new Set()).add(m.only ?? ''));
  await inParallel(folders, [...files], async ([file, patterns], folder) => {
    const only = patterns.has('') ? undefined : [...patterns].join('|');
    const { passed, failed, timedOut, output } = await runTests(folder, { tests: [file], only });
    if (failed > 0 || timedOut || passed === 0) {
      problems.push(
        `${file} must pass before it can catch anything: ${passed} passed, ${failed} failed${timedOut ? ', timed out' : ''}\n${failures(output)}`,
      );
    }
    const names = output.split('\n').filter(line => /^\s*ok \d+ - /.test(line) && !/# SKIP/i.test(line));
    for (const pattern of patterns) {
      if (!names.some(name => new RegExp(pattern).test(name)))
        problems.push(`${file}: no test is called like '${pattern}'`);
    }
  });

  if (problems.length === 0) {
    let caught = 0;
    await inParallel(folders, list, async (mutant, folder) => {
      const target = path.join(folder, mutant.file);
      const original = readFileSync(target, 'utf8');
      const times = original.split(mutant.search).length - 1;
      let verdict: string;
      if (times !== 1) verdict = `does not apply: found ${times} times`;
      else {
        writeFileSync(
          target,
          original.replace(mutant.search, () => mutant.replace),
        );
        const { failed, passed, timedOut, output } = await runTests(folder, mutant);
        writeFileSync(target, original);
        if (failed > 0) verdict = `caught by ${failed} of ${failed + passed}`;
        else if (timedOut) verdict = 'caught: it never ended';
        else if (passed === 0) verdict = `does not load: ${/Error: .*/.exec(output)?.[0] ?? output.slice(-300)}`;
        else verdict = 'MISSED';
      }
      if (verdict.startsWith('caught')) caught++;
      else problems.push(`${mutant.file}: ${mutant.name}: ${verdict}`);
      console.log(`${verdict.padEnd(24)} ${mutant.file.padEnd(40)} ${mutant.name}`);
    });
    console.log(`\n${caught} of ${list.length} mutants caught in ${((Date.now() - began) / 1000).toFixed(0)} s`);
  }
} finally {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}
for (const problem of problems) console.error(`mutants: ${problem}`);
process.exitCode = problems.length > 0 ? 1 : 0;
