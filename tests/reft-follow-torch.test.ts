// Runs that must follow PyTorch: its map goes on from the base that a pyreft file holds. Completed otherwise, the same
// R takes other steps from the second one on.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { noGrad } from '../src/autograd/tape.js';
import { memorySource } from '../src/io/byteSource.js';
import { readTorchBin, type TorchTensor } from '../src/io/torchBin.js';
import { writeTorchBin, type TorchBinEntry } from '../src/io/torchBinWrite.js';
import {
  getReftModel,
  pyreftFromFiles,
  pyreftToFiles,
  ReftTrainer,
  type ReftConfig,
  type ReftModel,
} from '../src/reft/index.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel } from './helpers/tinyModel.js';

const config: ReftConfig = { kind: 'lobireft', layers: [1], rank: 3, orthogonal: 'torch', seed: 4 };

async function lossesOf(reft: ReftModel, steps: number): Promise<number[]> {
  const trainer = new ReftTrainer(reft, { examples: tinyExamples(4), steps, learningRate: 5e-2, schedule: 'constant' });
  const losses: number[] = [];
  for await (const { loss } of trainer.steps()) losses.push(loss);
  return losses;
}

/** Edits that were trained for a while with torch's map, and their pyreft folder. */
async function trained(): Promise<{ reft: ReftModel; files: Map<string, Uint8Array> }> {
  const reft = getReftModel(await tinyModel(), config);
  await lossesOf(reft, 3);
  return { reft, files: await pyreftToFiles(reft) };
}

const state = (reft: ReftModel): Record<string, number[]> =>
  Object.fromEntries(
    Object.entries(reft.interventions[0].parameterSet.rotationParameters.get('R') ?? {}).map(([name, t]) => [
      name,
      Array.from(t.dataSync()),
    ]),
  );

describe('a pyreft folder', () => {
  test('keeps original and base, written and read, and training goes on bit for bit', async () => {
    const { reft, files } = await trained();
    const read = await pyreftFromFiles(await tinyModel(), files, { orthogonal: 'torch' });
    assert.deepEqual(state(read), state(reft));
    assert.equal(read.configs[0].orthogonal, 'torchHouseholder');
    assert.deepEqual(await lossesOf(read, 4), await lossesOf(reft, 4));
  });

  test('another base has the same R and the same first step, and another second one', async () => {
    const { reft, files } = await trained();
    const other = getReftModel(await tinyModel(), config);
    const from = noGrad(() => reft.interventions[0].parameters());
    for (const [name, value] of Object.entries(from)) other.interventions[0].set(name, value);
    assert.notDeepEqual(state(other).base, state(reft).base);
    const followed = await lossesOf(await pyreftFromFiles(await tinyModel(), files, { orthogonal: 'torch' }), 4);
    const completed = await lossesOf(other, 4);
    assert.ok(Math.abs(completed[0] - followed[0]) < 1e-5, `the same start: ${completed[0]} and ${followed[0]}`);
    const difference = Math.max(...completed.slice(1).map((loss, i) => Math.abs(loss - followed[i + 1])));
    assert.ok(difference > 1e-4, `then the losses differ, by ${difference}`);
  });

  test('is read with the map that is asked for, householder by default', async () => {
    const { files, reft } = await trained();
    const read = await pyreftFromFiles(await tinyModel(), files);
    assert.equal(read.configs[0].orthogonal, 'householder');
    const [a, b] = [read, reft].map(edits =>
      Array.from(noGrad(() => edits.interventions[0].parameters().R).dataSync()),
    );
    a.forEach((x, i) => {
      assert.ok(Math.abs(x - b[i]) < 1e-6, `R, number ${i}: ${x} and ${b[i]}`);
    });
  });

  test('whose R has left the orthonormal matrices is not followed, and says so', async () => {
    const { files } = await trained();
    const name = [...files.keys()].find(key => key.startsWith('intkey_')) as string;
    const values = await readTorchBin(memorySource(files.get(name) as Uint8Array, name));
    const entries = [...values].map(([key, value]): TorchBinEntry => {
      const { dtype, shape, data } = value as TorchTensor;
      const grown = key.endsWith('base') ? (data as Float32Array).map(x => 1.05 * x) : data;
      return { name: key, dtype: dtype as 'F32', shape, data: grown as Float32Array };
    });
    const broken = new Map([...files, [name, writeTorchBin(entries)]]);
    await assert.rejects(
      pyreftFromFiles(await tinyModel(), broken, { orthogonal: 'torch' }),
      /R has left the orthonormal matrices \(max \|R R\^T - I\| is 0\.10\), so torch's map cannot go on from it; with another one it can$/,
    );
    const read = await pyreftFromFiles(await tinyModel(), broken);
    assert.equal(read.interventions.length, 1, 'with another map it is read');
  });
});
