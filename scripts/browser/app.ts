// The example app clicked through as a person would, on a random model of two layers: choose files, edit the examples,
// train, stop, compare, download the adapter, drop it back in. What each step must show is asserted here;
// scripts/browser/run.ts opens the pages.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Page } from 'playwright-core';

const modelFiles = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'];

const text = async (page: Page, id: string): Promise<string> => (await page.locator(`#${id}`).textContent()) ?? '';

/** Waits until an element's text matches. */
async function shows(page: Page, id: string, expected: RegExp): Promise<string> {
  try {
    await page.waitForFunction(
      ([at, source]) => new RegExp(source).test(document.getElementById(at)?.textContent ?? ''),
      [id, expected.source] as const,
      { timeout: 60_000 },
    );
  } catch (cause) {
    throw new Error(
      `#${id}: expected ${expected}, it shows '${await text(page, id)}'; the note is '${await text(page, 'note')}'`,
      { cause },
    );
  }
  return text(page, id);
}

async function chooseModel(page: Page, folder: string, device: 'webgpu' | 'cpu', shown: RegExp): Promise<void> {
  await page.locator(`input[name=device][value=${device}]`).check();
  await page.locator('#files').setInputFiles(modelFiles.map(name => path.join(folder, name)));
  await shows(page, 'status', shown);
}

/** Drops a file onto the page. */
async function dropFile(page: Page, name: string, bytes: Buffer): Promise<void> {
  await page.evaluate(
    ([fileName, data]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], fileName));
      document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
    },
    [name, bytes.toString('base64')] as const,
  );
}

async function trainWith(page: Page, epochs: number): Promise<void> {
  await page.locator('#epochs').fill(String(epochs));
  await page.locator('#train').click();
}

async function answers(page: Page, prompt: string): Promise<{ before: string; after: string }> {
  await page.locator('#prompt').fill(prompt);
  await page.locator('#ask').click();
  await page.locator('#ask:enabled').waitFor();
  return { before: await text(page, 'before'), after: await text(page, 'after') };
}

/** First and last loss of the plot. */
async function plotted(page: Page): Promise<{ steps: number; first: number; last: number }> {
  const label = (await page.locator('#plot').getAttribute('aria-label')) ?? '';
  const found = /over (\d+) of \d+ steps: from ([\d.]+) to ([\d.]+)/.exec(label);
  assert.ok(found, `the plot says '${label}'`);
  const points = (await page.locator('#plot .curve').getAttribute('points'))?.split(' ').length;
  assert.equal(points, Number(found[1]), 'a point for each step');
  return { steps: Number(found[1]), first: Number(found[2]), last: Number(found[3]) };
}

/** Two of the page's examples with short texts, and a new one: rows that fit the context of the tiny model. */
async function threeExamples(page: Page): Promise<void> {
  const row = (i: number): ReturnType<Page['locator']> => page.locator('.row').nth(i);
  assert.equal(await page.locator('.row').count(), 30, 'the rows of npm start');
  while ((await page.locator('.row').count()) > 2) await row(1).getByRole('button').click();
  await page.locator('#add-row').click();
  for (const [i, [prompt, answer]] of [
    ['How?', 'Aye.'],
    ['Who?', 'Aye, aye.'],
    ['Why?', 'Aye, the sea.'],
  ].entries()) {
    await row(i).locator('input').nth(0).fill(prompt);
    await row(i).locator('input').nth(1).fill(answer);
  }
}

/** The whole way, on one device. */
export async function clickThrough(page: Page, folder: string, device: 'webgpu' | 'cpu'): Promise<string> {
  await dropFile(page, 'notes.txt', Buffer.from('hello'));
  await shows(
    page,
    'note',
    /notes\.txt: choose a \.gguf file, or a model's files together; missing: model\.safetensors, config\.json, tokenizer\.json/,
  );
  assert.ok(await page.locator('#train').isDisabled(), 'nothing to train before a model is there');
  await chooseModel(
    page,
    folder,
    device,
    device === 'cpu' ? /parameters in 2 layers, on the CPU\./ : /parameters in 2 layers, on the WebGPU\./,
  );
  assert.equal(await page.locator('#layers').inputValue(), '0, 1');

  await threeExamples(page);
  await trainWith(page, 60);
  await shows(page, 'training-status', /^Trained: loreft at block_output of layers 0, 1/);
  const curve = await plotted(page);
  assert.equal(curve.steps, 60);
  assert.ok(curve.last < curve.first, `the loss falls: ${curve.first} to ${curve.last}`);

  const { before, after } = await answers(page, 'Why?');
  assert.notEqual(before, after);
  await page.locator('#strength').fill('0');
  await page.locator('#strength').dispatchEvent('change');
  await page.locator('#ask:enabled').waitFor();
  assert.equal(await text(page, 'after'), before, 'at strength 0 the edit does nothing');
  assert.equal(await text(page, 'before'), before);
  await page.locator('#strength').fill('1');

  const [download] = await Promise.all([page.waitForEvent('download'), page.locator('#download').click()]);
  assert.equal(download.suggestedFilename(), 'adapter.zip');
  const adapter = await readFile(await download.path());

  // A run without end is stopped; its edits stay.
  await trainWith(page, 10_000);
  await shows(page, 'training-status', /^Step \d+ of 10000/);
  await page.locator('#stop').click();
  await shows(page, 'training-status', /^Stopped early: loreft/);

  await page.reload();
  await dropFile(page, 'adapter.zip', adapter);
  await shows(page, 'note', /there is no model yet/);
  await chooseModel(page, folder, device, /parameters in 2 layers/);
  await dropFile(page, 'adapter.zip', adapter);
  await shows(page, 'training-status', /^Adapter opened: loreft/);
  assert.deepEqual(await answers(page, 'Why?'), { before, after }, 'the adapter answers as the edits did');
  await dropFile(page, 'adapter.zip', adapter.subarray(0, adapter.length - 100));
  await shows(page, 'note', /not a zip archive, or it is damaged/);
  return `loss ${curve.first} to ${curve.last}, adapter of ${adapter.length} bytes`;
}

/** Without navigator.gpu the app says so and takes the CPU. */
export async function fallsBack(page: Page, folder: string): Promise<string> {
  await chooseModel(page, folder, 'webgpu', /parameters in 2 layers, on the CPU\./);
  const message = await shows(page, 'note', /^WebGPU is not there, so the CPU is used: .*navigator\.gpu/);
  assert.ok(await page.locator('input[name=device][value=cpu]').isChecked());
  await threeExamples(page);
  await trainWith(page, 2);
  await shows(page, 'training-status', /^Trained: loreft/);
  return message;
}
