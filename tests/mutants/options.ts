// Kept mutants: a flag of a command that is parsed and then ignored.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/cli/train.ts': [
    ['--warmup is passed on', 'warmup: flags.warmup,', '', 'cli-flags', 'reft train: with the flag'],
    ['--weight-decay is passed on', 'weightDecay: flags.weightDecay, ', '', 'cli-flags', 'reft train: with the flag'],
  ],
  'src/cli/chat.ts': [
    ['--system of chat is passed on', '{ system: flags.system }', '{}', 'cli-flags', 'reft chat: with the flag'],
  ],
  'src/cli/eval.ts': [
    ['--max-length of eval is passed on', '{ maxLength: flags.maxLength }', '{}', 'cli-flags', 'reft eval: with the flag'],
  ],
};
