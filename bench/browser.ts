// `tsx bench/browser.ts [--seconds N]`: the WebGPU bench in headless Chromium, because jax-js has no WebGPU in Node. On
// the software adapter of the dev dependency; on a GPU with CHROMIUM_ARGS (and CHROMIUM_PATH), unchanged. Prints the
// rows, writes bench/browser.json. Peers: npm ci --prefix bench/peers.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { bundlePages } from '../scripts/browser/bundle.js';
import { launchChromium } from '../scripts/browser/chromium.js';
import { servePages } from '../scripts/browser/server.js';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '4' },
    peers: { type: 'string', default: path.join(import.meta.dirname, 'peers') },
  },
});
const seconds = Number(values.seconds);
if (!(seconds > 0)) {
  console.error(`--seconds: expected a number above 0, got '${values.seconds}'`);
  process.exit(2);
}
const folder = mkdtempSync(path.join(tmpdir(), 'reft-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const peerVersion = (name: string): string => {
  try {
    return (
      JSON.parse(readFileSync(path.join(values.peers, 'node_modules', name, 'package.json'), 'utf8')) as {
        version: string;
      }
    ).version;
  } catch {
    return 'absent';
  }
};

await bundlePages(path.join(import.meta.dirname, 'browser'), folder, ['index.html']);
const server = await servePages({ '/bench/': folder, '/peers/': path.join(values.peers, 'node_modules') });
const browser = await launchChromium();
try {
  const page = await browser.newPage();
  await page.goto(`${server.isolated}/bench/index.html`);
  await page.waitForFunction(() => 'bench' in window);
  const { adapter, rows, missing } = await page.evaluate(s => window.bench('/peers/', s), seconds);
  const finished = rows.map(row => {
    const ratio = row.peer === null ? null : row.ours / row.peer;
    return {
      ...row,
      ratio,
      pass: ratio === null || row.bar === null ? null : row.better === 'lower' ? ratio <= row.bar : ratio >= row.bar,
    };
  });
  const head = {
    machine: `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores`,
    adapter,
    chromium: browser.version(),
    date: new Date().toISOString(),
    versions: { 'jax-js': peerVersion('@jax-js/jax'), 'tfjs-webgpu': peerVersion('@tensorflow/tfjs-backend-webgpu') },
  };
  console.log(JSON.stringify(head));
  for (const line of missing) console.log(line);
  console.table(
    finished.map(r => ({
      job: r.name,
      ours: r.ours,
      peer: r.peer,
      of: r.peerName,
      unit: r.unit,
      ratio: r.ratio,
      bar: r.bar,
      met: r.pass,
    })),
  );
  writeFileSync(
    path.join(import.meta.dirname, 'browser.json'),
    `${JSON.stringify({ ...head, rows: finished }, null, 1)}\n`,
  );
} finally {
  await browser.close();
  await server.close();
}
