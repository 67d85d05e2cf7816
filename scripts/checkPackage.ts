// The package as a user gets it: packed, installed into an empty project, every sub-path imported, a consumer compiled
// against the types, the command run.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
const folder = mkdtempSync(join(tmpdir(), 'reft-package-'));
const run = (command: string, args: string[], cwd: string): string =>
  execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

try {
  const packed = JSON.parse(run('npm', ['pack', '--json', '--pack-destination', folder], root)) as {
    filename: string;
    size: number;
    files: { path: string }[];
  }[];
  const [{ filename, size, files }] = packed;
  const stray = files.filter(
    f => !/^(dist\/.+\.(js|d\.ts)|docs\/.+|package\.json|README\.md|CHANGELOG\.md|LICENSE)$/.test(f.path),
  );
  if (stray.length > 0) throw new Error(`the package carries ${stray.map(f => f.path).join(', ')}`);
  console.log(`packed ${filename}: ${files.length} files, ${(size / 1000).toFixed(0)} kB`);

  const project = join(folder, 'project');
  execFileSync('mkdir', [project]);
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
  run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', join(folder, filename)], project);

  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { exports: Record<string, unknown> };
  const subpaths = Object.keys(manifest.exports)
    .filter(p => p !== './package.json')
    .map(p => `reft${p.slice(1)}`);
  writeFileSync(
    join(project, 'all.mjs'),
    subpaths
      .map(
        (p, i) =>
          `import * as m${i} from '${p}';\nif (Object.keys(m${i}).length === 0) throw new Error('${p} is empty');`,
      )
      .join('\n'),
  );
  run('node', ['all.mjs'], project);
  console.log(`imported ${subpaths.join(', ')}`);

  writeFileSync(
    join(project, 'use.mjs'),
    [
      "import { tensor, valueAndGrad } from 'reft/tensor';",
      'const { gradients } = valueAndGrad(x => x.mul(x).sum())(tensor([1, 2, 3]));',
      "if (JSON.stringify(await gradients.toArray()) !== '[2,4,6]') throw new Error('wrong gradient');",
    ].join('\n'),
  );
  run('node', ['use.mjs'], project);

  writeFileSync(
    join(project, 'consumer.ts'),
    [
      "import { AutoModelForCausalLM, AutoTokenizer, getReftModel, ReftTrainer, loadReft, type ReftConfig } from 'reft';",
      "import { tensor, gradcheck, type Tensor } from 'reft/tensor';",
      "import { defineFused } from 'reft/autograd';",
      "const config: ReftConfig = { layers: [1], positions: 'l1', rank: 4 };",
      'export const f = (x: Tensor): Tensor => x.matmul(x.transpose()).gelu().sum();',
      'export async function main(): Promise<number> {',
      "  const model = await AutoModelForCausalLM.fromPretrained('x', { device: 'auto' });",
      "  const tokenizer = await AutoTokenizer.fromPretrained('x');",
      '  const reft = getReftModel(model, config);',
      '  const trainer = new ReftTrainer(reft, { tokenizer, rows: [], epochs: 1 });',
      '  for await (const step of trainer.steps()) console.log(step.loss);',
      "  await gradcheck(f, [tensor.normal([2, 2], { seed: 1, dtype: 'f64' })]);",
      "  return (await loadReft(model, 'x')).parameterCount;",
      '}',
      "export const twice = defineFused('twice', { compose: ({ inputs: [x] }) => (x as Tensor).mul(2) });",
    ].join('\n'),
  );
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  for (const [moduleResolution, module] of [
    ['nodenext', 'nodenext'],
    ['bundler', 'esnext'],
  ]) {
    const compilerOptions = {
      noEmit: true,
      strict: true,
      target: 'es2022',
      lib: ['es2023', 'esnext.disposable', 'dom'],
      types: [],
      module,
      moduleResolution,
    };
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['consumer.ts'] }));
    run('node', [tsc, '-p', '.'], project);
  }
  console.log('a consumer compiles against the types');
  console.log(run('npx', ['reft', '--version'], project).trim());
} finally {
  rmSync(folder, { recursive: true, force: true });
}
