// Kept mutants: training that watches rows it does not train on, interchange, torch's orthogonal map, other people's
// folders, data of training.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/train/evaluationCourse.ts': [
    ['the best is the least loss', 'loss < best.loss)', 'loss > best.loss)', 'reft-keep-best', 'least loss'],
    [
      'progress is more than minDelta',
      'progress - (this.earlyStopping?.minDelta ?? 0)',
      'progress',
      'reft-keep-best',
      'counts evaluations',
    ],
    [
      'patience',
      'this.current.waited >= this.earlyStopping.patience',
      'this.current.waited > this.earlyStopping.patience',
      'reft-keep-best',
      'ends after',
    ],
    [
      'the best parameters are in a checkpoint',
      'assign(copy, values.get(name) as Tensor, name)',
      'void values',
      'reft-keep-best',
      'keeps and stops as',
    ],
    ['a resumed run knows its course', 'this.current = state;', '', 'reft-keep-best', 'keeps and stops as'],
  ],
  'src/train/trainer.ts': [
    [
      'the best parameters are put back',
      'if (this.over) this.course.restore(this.trained.state());\n        yield',
      'yield',
      'reft-keep-best',
      'to the bit',
    ],
    [
      'an evaluation that was cut off is made up for',
      '    await this.evaluateWhenDue();\n    if (!this.over)',
      '    if (!this.over)',
      'reft-keep-best',
      'cut off',
    ],
    [
      'evaluation.every',
      'this.options.evaluation?.every ?? this.losses.stepsPerEpoch',
      'this.losses.stepsPerEpoch',
      'reft-keep-best',
      'honoured',
    ],
  ],
  'src/interchange/predictions.ts': [
    [
      'candidates of each row',
      'b * vocabulary + (ids[k] ?? ids[0])',
      'ids[k] ?? ids[0]',
      'interchange-candidates',
      'wherever',
    ],
    [
      'a prediction is a candidate',
      'candidates[b][best[b]]',
      'candidates[0][best[b]]',
      'interchange-candidates',
      'wherever',
    ],
  ],
  'src/interchange/das.ts': [
    [
      'boundaryLearningRate',
      'learningRateScale: boundaryLearningRate / learningRate',
      'learningRateScale: 1',
      'reft-values-that-matter',
      'boundaryLearningRate',
    ],
    [
      'reuseBudgetBytes',
      'keepFrozen(batchSize, reuseBudgetBytes)',
      'keepFrozen(batchSize, Infinity)',
      'reft-values-that-matter',
      'reuseBudgetBytes',
    ],
    [
      "candidates in a step's accuracy",
      'mostLikely(logits.detach(), candidates)',
      'mostLikely(logits.detach(), candidates && null)',
      'interchange-candidates',
      'wherever',
    ],
  ],
  'src/interchange/counterfactuals.ts': [
    [
      "an example's own candidates",
      'example.candidates ?? candidates',
      'candidates ?? example.candidates',
      'interchange-candidates',
      'name none',
    ],
  ],
  'src/reft/formats/pyreftWeights.ts': [
    [
      'the base of a pyreft file is read',
      'if (intervention.parameterSet.map === torchHouseholder) followTorch',
      'if (false) followTorch',
      'reft-follow-torch',
      'bit for bit',
    ],
    [
      'the base of a run is written',
      'if (intervention.parameterSet.map === torchHouseholder) {\n',
      'if (false) {\n',
      'reft-follow-torch',
      'bit for bit',
    ],
    [
      'an R that is off is not followed',
      'if (!(off <= followedDeviation))',
      'if (false)',
      'reft-follow-torch',
      'not followed',
    ],
  ],
  'src/train/data.ts': [
    [
      'the order of each epoch',
      'batches(n, batchSize, seed, epoch)',
      'batches(n, batchSize, seed, 0)',
      'reft-values-that-matter',
      'each epoch',
    ],
  ],
  'src/reft/mixedEdits.ts': [
    ['a trained scale in a mixture', 'config.trainScale || ', '', 'reft-values-that-matter', 'trained scale'],
  ],
  'src/reft/compose.ts': [
    [
      'a weight at a site of one set',
      'parts.length === 1 && parts[0].weight === 1',
      'parts.length === 1',
      'reft-values-that-matter',
      'one set edits',
    ],
  ],
  'src/reft/positions.ts': [
    ['the last occurrence of a marker', '.lastIndexOf(', '.indexOf(', 'reft-values-that-matter', 'marker'],
  ],
  'src/io/safetensors.ts': [
    ['names by their bytes in UTF-8', 'char.codePointAt(0)', 'char.charCodeAt(0)', 'io-safetensors-official', 'sorted'],
    ['metadata that is null', 'if (entry === null) return {};', '', 'io-safetensors-official', 'null'],
    ['a side written 2.0', 'if (fraction) {', 'if (false) {', 'io-safetensors-official', 'written 2'],
  ],
  'src/io/strictJson.ts': [
    ['fractions in fields that are not known', 'open.length === depth && ', '', 'io-safetensors-official', 'not known'],
  ],
  'src/io/unpickle.ts': [
    [
      'the name of a type that is not read',
      "a tensor has the type ${type.torchType ?? ''}",
      'a tensor has a type',
      'io-torchBin',
      'float8',
    ],
  ],
  'src/cli/adapterFacts.ts': [
    [
      'a folder of pyreft',
      'return looksLikePyreft(bytes) ? ',
      'return looksLikePyreft(bytes) && false ? ',
      'cli-info-formats',
      'of a pyreft',
    ],
    ['a folder of peft', 'if (peft) return', 'if (peft && false) return', 'cli-info-formats', 'kind, rank'],
  ],
  'src/cli/convert.ts': [
    [
      'no tokenizer',
      'loadModelAlone(flags, output, signal)',
      '(await (await import("./model.js")).loadModel(flags, output)).model',
      'cli-info-formats',
      'no tokenizer',
    ],
  ],
  'src/cli/train.ts': [
    ['--keep-best', 'keepBest: flags.keepBest,\n', 'keepBest: false,\n', 'cli-train-evaluation', 'keeps the best'],
    ['--new-tokens', 'newTokens: flags.newTokens,\n    component', 'component', 'cli-train-evaluation', '--new-tokens'],
    ['--dropout-on', 'dropoutOn: flags.dropoutOn,\n    seed', 'seed', 'cli-train-evaluation', '--new-tokens'],
    [
      'the loss of the frozen model',
      'await evaluate(reft.base, examples)',
      'await evaluate(reft, examples)',
      'cli-train-evaluation',
      'keeps the best',
    ],
  ],
};
