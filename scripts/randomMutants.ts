// `npm run mutants:random -- [--count 200] [--seed 1] [--in src] [--not PART,PART] [--patience 60] [--out FILE]`: how
// many of some random small changes the tests notice. It draws mutants over the sources (scripts/mutations.ts), finds
// by a run of all tests which files reach which of them, and then runs those files, the likeliest first, until one
// fails. Tests on WebGPU are left out. A mutant that nothing notices is listed with its line: a test is missing, or the
// change makes no difference, which only a person can tell. The score is not judged here.

import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Random } from '../src/tensor/threefry.js';
import { mutated, mutationsOf, type Mutation } from './mutations.js';
import { copyTree, inParallel, root, runTsx } from './mutantTree.js';

interface Mutant extends Mutation {
  readonly id: number;
  readonly file: string;
}

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '200' },
    seed: { type: 'string', default: '1' },
    in: { type: 'string', default: 'src' },
    not: { type: 'string', default: 'src/backends' },
    out: { type: 'string' },
    workers: { type: 'string', default: '2' },
    patience: { type: 'string', default: '60' },
  },
});
const leftOut = values.not.split(',').filter(Boolean);
/** Most seconds of tests for one mutant that nothing has noticed yet: more on a busy machine. */
const patienceSeconds = Number(values.patience);

const sources = values.in
  .split(',')
  .flatMap(part =>
    part.endsWith('.ts')
      ? [part]
      : readdirSync(path.join(root, part), { recursive: true, encoding: 'utf8' }).map(file =>
          path.posix.join(part, file.replaceAll('\\', '/')),
        ),
  )
  .filter(file => file.endsWith('.ts') && !leftOut.some(part => file.startsWith(part)))
  .sort();
const all = sources.flatMap(file =>
  mutationsOf(file, readFileSync(path.join(root, file), 'utf8')).map(mutation => ({ ...mutation, file })),
);
const random = new Random(Number(values.seed), 0);
const drawn: Mutant[] = [];
for (let left = [...all]; drawn.length < Number(values.count) && left.length > 0;) {
  const [mutation] = left.splice(Math.floor(random.next() * left.length), 1);
  // One mutant a line, so that a line with many places does not count many times.
  left = left.filter(other => other.file !== mutation.file || other.line !== mutation.line);
  drawn.push({ ...mutation, id: drawn.length });
}
if (drawn.length === 0) throw new Error(`nothing to mutate in ${values.in}`);
console.log(`${drawn.length} of ${all.length} mutants in ${sources.length} files`);

/** Each mutant's function reports that it was entered, in this process and in those that it starts. */
function placeProbes(folder: string, preload: string): void {
  writeFileSync(
    preload,
    `import { appendFileSync } from 'node:fs';
const seen = new Set();
globalThis.reachedMutant = id => { if (!seen.has(id)) { seen.add(id); appendFileSync(process.env.REACHED_FILE, id + '\\n'); } };
`,
  );
  for (const file of new Set(drawn.map(m => m.file))) {
    let code = readFileSync(path.join(folder, file), 'utf8');
    const here = drawn.filter(m => m.file === file).sort((a, b) => (b.body ?? Infinity) - (a.body ?? Infinity));
    for (const { id, body } of here) {
      const probe = ` globalThis.reachedMutant?.(${id});`;
      code = body === null ? `${code}\n${probe}` : code.slice(0, body) + probe + code.slice(body);
    }
    writeFileSync(path.join(folder, file), code);
  }
}

interface TestFile {
  readonly file: string;
  readonly seconds: number;
  readonly reached: ReadonlySet<number>;
}

const began = Date.now();
const folders = Array.from({ length: Number(values.workers) }, copyTree);
const scratch = mkdtempSync(path.join(tmpdir(), 'reached-'));
const survivors: (Mutant & { readonly why: string })[] = [];
let caught = 0;
try {
  const preload = path.join(scratch, 'reached.mjs');
  const originals = new Map(
    [...new Set(drawn.map(m => m.file))].map(file => [file, readFileSync(path.join(root, file), 'utf8')]),
  );
  for (const folder of folders) placeProbes(folder, preload);
  const testFiles: TestFile[] = [];
  const names = readdirSync(path.join(root, 'tests'))
    .filter(name => name.endsWith('.test.ts') && !name.startsWith('webgpu-'))
    .sort();
  await inParallel(folders, names, async (name, folder) => {
    const reachedFile = path.join(scratch, `${name}.ids`);
    appendFileSync(reachedFile, '');
    const start = Date.now();
    const { code, output } = await runTsx(folder, [path.join('tests', name)], {
      timeoutMs: 600_000,
      env: { NODE_OPTIONS: `--import=${preload}`, REACHED_FILE: reachedFile },
    });
    if (code !== 0) console.error(`tests/${name} fails without a mutant and is left out:\n${output.slice(-1500)}`);
    else {
      const reached = new Set(readFileSync(reachedFile, 'utf8').split('\n').filter(Boolean).map(Number));
      testFiles.push({ file: path.join('tests', name), seconds: (Date.now() - start) / 1000, reached });
    }
  });
  for (const folder of folders) for (const [file, code] of originals) writeFileSync(path.join(folder, file), code);
  console.log(`${testFiles.length} test files in ${((Date.now() - began) / 1000).toFixed(0)} s`);

  await inParallel(folders, drawn, async (mutant, folder) => {
    const words = mutant.file
      .replace(/\.ts$/, '')
      .split(/[/\\]|(?=[A-Z])/)
      .map(word => word.toLowerCase())
      .filter(word => word.length > 2 && word !== 'src');
    const nearness = ({ file }: TestFile): number => words.filter(word => file.toLowerCase().includes(word)).length;
    const reaching = testFiles
      .filter(({ reached }) => reached.has(mutant.id))
      .sort(
        (a, b) =>
          nearness(b) - nearness(a) ||
          (a.reached.size / drawn.length) * a.seconds - (b.reached.size / drawn.length) * b.seconds,
      );
    const target = path.join(folder, mutant.file);
    const original = originals.get(mutant.file)!;
    writeFileSync(target, mutated(original, mutant));
    let verdict = '';
    const start = Date.now();
    let ran = 0;
    for (const { file, seconds } of reaching) {
      if ((Date.now() - start) / 1000 > patienceSeconds) break;
      ran++;
      const { code, timedOut } = await runTsx(folder, [file], { timeoutMs: 1000 * (30 + 5 * seconds) });
      if (code !== 0) {
        verdict = `caught by ${file}${timedOut ? ', which never ended' : ''}`;
        break;
      }
    }
    writeFileSync(target, original);
    if (verdict) caught++;
    else {
      verdict = reaching.length === 0 ? 'NOT REACHED' : `MISSED by ${ran} of ${reaching.length} files`;
      survivors.push({ ...mutant, why: verdict });
    }
    console.log(`${verdict.padEnd(50)} ${mutant.file}:${mutant.line}  ${mutant.name}`);
  });
} finally {
  for (const folder of [...folders, scratch]) rmSync(folder, { recursive: true, force: true });
}
survivors.sort((a, b) => a.id - b.id);
console.log(
  `\n${caught} of ${drawn.length} caught (${((100 * caught) / drawn.length).toFixed(1)} %) in ${((Date.now() - began) / 60000).toFixed(1)} min; the others:`,
);
for (const { file, line, name, why } of survivors) console.log(`  ${file}:${line}  ${name}  (${why})`);
if (values.out)
  writeFileSync(
    values.out,
    `${JSON.stringify({ seed: values.seed, count: drawn.length, caught, survivors }, null, 1)}\n`,
  );
