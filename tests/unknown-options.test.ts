// An option that nobody knows is refused by name, wherever options are taken: nothing a user says is ignored in
// silence.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AutoModelForCausalLM, getReftModel, ReftTrainer } from '../src/index.js';
import { AdamW, SGD } from '../src/nn/index.js';
import { evaluate } from '../src/train/evaluate.js';
import { activationPatching, DasTrainer, getInterchangeModel } from '../src/interchange/index.js';
import { tensor } from '../src/tensor/index.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

test('a misspelt option is refused by name, with the one that was meant', async () => {
  const model = await tinyModel();
  const reft = getReftModel(model, { layers: [1] });
  const parameter = tensor([1]).requireGrad();
  const example = {
    ids: tinyIds(4, 1),
    labels: Int32Array.of(-100, -100, 3, 4),
    promptLength: 2,
    truncated: 0,
    where: 'row 1',
  };
  const batch = { inputIds: tinyIds(4, 1), shape: [1, 4] };
  /** What takes options, and with what the right name is misspelt. */
  const takers: Record<string, [take: (options: never) => unknown, options: Record<string, unknown>, message: RegExp]> =
    {
      trainer: [
        o => new ReftTrainer(reft, o),
        { examples: [example], steps: 1, lerningRate: 1 },
        /training: .*"lerningRate"; did you mean learningRate\?/,
      ],
      generate: [
        o => model.generate([1, 2], o),
        { maxNewToken: 3 },
        /generate: .*"maxNewToken"; did you mean maxNewTokens\?/,
      ],
      'generate with edits': [
        o => reft.generate([1, 2], o),
        { temprature: 3 },
        /generate: .*"temprature"; did you mean temperature\?/,
      ],
      evaluate: [
        o => evaluate(model, [example], o),
        { batchsize: 3 },
        /evaluate: .*"batchsize"; did you mean batchSize\?/,
      ],
      'loading a model': [
        o => AutoModelForCausalLM.fromPretrained('nowhere', o),
        { thread: 2 },
        /fromPretrained: .*"thread"; did you mean threads\?/,
      ],
      AdamW: [o => new AdamW([parameter], o), { lr: 3 }, /AdamW: there is no option "lr"/],
      SGD: [o => new SGD([parameter], o), { momentun: 3 }, /SGD: .*"momentun"; did you mean momentum\?/],
      'parameter group': [
        o => new AdamW([o]),
        { parameters: [parameter], decay: 1 },
        /parameter group: there is no option "decay"/,
      ],
      configuration: [o => getReftModel(model, o), { layers: [1], rnak: 2 }, /ReFT configuration: .*rnak/],
      das: [
        o => new DasTrainer(getInterchangeModel(model, [{ kind: 'rotatedSpace', layer: 1 }]), o),
        { examples: [], epoch: 1 },
        /das: .*"epoch"; did you mean epochs\?/,
      ],
      patching: [
        o => activationPatching(model, o),
        { base: batch, source: batch, layer: [1] },
        /activationPatching: .*"layer"; did you mean layers\?/,
      ],
    };
  for (const [name, [take, options, message]] of Object.entries(takers)) {
    await assert.rejects(
      async () => {
        await take(options as never);
      },
      error => {
        assert.match((error as Error).message, message, name);
        assert.equal(error instanceof RangeError, true, `${name}: a RangeError`);
        return true;
      },
      name,
    );
  }
});

test('what is no object of options is refused as well', async () => {
  const model = await tinyModel();
  for (const [options, got] of [
    [null, 'null'],
    [7, 'number'],
    [['maxNewTokens'], 'an array'],
    ['maxNewTokens', 'string'],
  ] as const) {
    await assert.rejects(async () => model.generate([1], options as never), {
      name: 'TypeError',
      message: `generate: expected an object of options, got ${got}`,
    });
  }
});
