// Kept mutants: a flag or an option that is parsed and then ignored, a seed that does not matter.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/optionKeys.ts': [
    [
      'an unknown option is refused',
      'if (Object.hasOwn(known, key)) continue;',
      'continue;',
      'unknown-options',
      'misspelt',
    ],
  ],
  'src/reft/intervention.ts': [
    [
      'interventions of one seed start from streams of their own',
      'number * all.length + all.findIndex',
      'all.findIndex',
      'defaults',
      'no two interventions',
    ],
  ],
  'src/nn/linear.ts': [
    [
      'the bias of a layer has a stream of its own',
      'stream: 2 * stream + n',
      'stream: 2 * stream',
      'defaults',
      'starting values depend',
    ],
  ],
  'src/cli/train.ts': [
    ['--warmup is passed on', 'warmup: flags.warmup,', '', 'cli-flags', 'reft train: with the flag'],
    [
      '--weight-decay is passed on',
      'weightDecay: flags.weightDecay,\n      maxGradNorm',
      'maxGradNorm',
      'cli-flags',
      'reft train: with the flag',
    ],
  ],
  'src/cli/chat.ts': [
    ['--system of chat is passed on', '{ system: flags.system }', '{}', 'cli-flags', 'reft chat: with the flag'],
  ],
  'src/cli/eval.ts': [
    [
      '--max-length of eval is passed on',
      '{ maxLength: flags.maxLength }',
      '{}',
      'cli-flags',
      'reft eval: with the flag',
    ],
  ],
};
