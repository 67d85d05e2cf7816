// The picture of the example app in docs/images/browser.png: `tsx scripts/browser/screenshot.ts MODEL.gguf` opens it,
// trains on the app's own examples on the CPU, asks, and takes the picture. What it shows is what the model said.

import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleApp } from './bundle.js';
import { launchChromium } from './chromium.js';
import { servePages } from './server.js';

const [model, prompt = 'What is love?'] = process.argv.slice(2);
if (!model) {
  console.error('usage: tsx scripts/browser/screenshot.ts MODEL.gguf [PROMPT]');
  process.exit(2);
}
const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), 'reft-screenshot-'));
await bundleApp(path.join(root, 'examples', 'browser'), folder);
const server = await servePages({ '/app/': folder });
const browser = await launchChromium();
try {
  const page = await browser.newPage({ viewport: { width: 1240, height: 700 } });
  page.setDefaultTimeout(600_000);
  await page.goto(`${server.isolated}/app/index.html`);
  await page.locator('input[name=device][value=cpu]').check();
  await page.locator('#files').setInputFiles(model);
  await page.locator('#status', { hasText: 'parameters' }).waitFor();
  console.log(await page.locator('#status').textContent());
  await page.locator('#train').click();
  await page.locator('#training-status', { hasText: /^Trained/ }).waitFor();
  console.log(
    await page.locator('#training-status').textContent(),
    await page.locator('#plot').getAttribute('aria-label'),
  );
  await page.locator('#prompt').fill(prompt);
  await page.locator('#ask').click();
  await page.locator('#ask:enabled').waitFor();
  console.log(await page.locator('#before').textContent(), '|', await page.locator('#after').textContent());
  const images = path.join(root, 'docs', 'images');
  mkdirSync(images, { recursive: true });
  const picture = path.join(images, 'browser.png');
  await page.screenshot({ path: picture, fullPage: true });
  console.log(`${picture}: ${(statSync(picture).size / 1000).toFixed(0)} kB`);
} finally {
  await browser.close();
  await server.close();
  rmSync(folder, { recursive: true, force: true });
}
