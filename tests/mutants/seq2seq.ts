// Kept mutants: models of two stacks.

import type { Patches } from './mutant.js';

const test = 'models-seq2seq';

export const patches: Patches = {
  'src/models/seq2seqLM.ts': [
    ['labels shifted right', 'labels[i - 1]', 'labels[i]', test, 'labels: shifted'],
    ['padding among labels', '(padTokenId ?? 0) : id', 'id : id', test, 'labels: shifted'],
    ['a bias of logits', 'logitsBias ? logits.add(logitsBias) : logits', 'logits', test, 'formulas'],
    ['a scale of logits', 'logits = logits.mul(logitsScale)', 'logits = logits.mul(1)', test, 'formulas'],
    ['tables that stacks share', '!seen.has(tensor) && seen.add(tensor)', 'seen.add(tensor)', test, 'formulas'],
    [
      'an encoder that ran',
      'options.encoded ? null : this.encode(options)',
      'this.encode(options)',
      test,
      'not run again',
    ],
  ],
  'src/models/generation/generateSeq2Seq.ts': [
    [
      'edits of the encoder once',
      'encoded ? { decoder }',
      'encoded ? { decoder, encoder: encoderLayout }',
      test,
      'from a cache',
    ],
    ['prompts of the decoder', 'first + step : 1', 'first + step : 2', test, 'from a cache'],
    ['ends of prompts', 'width - n', '0 * n', test, 'from a cache'],
  ],
  'src/models/families/t5.ts': [
    ['directions of the encoder', "bidirectional: stack === 'encoder'", 'bidirectional: false', test, 't5'],
    ['offsets of cached tokens', 'offset: past', 'offset: 0', test, 'from a cache'],
    ['scores that are not scaled', 'attentionScale: 1', 'attentionScale: null', test, 'formulas'],
    ['a head that is not scaled', 'c.scale_decoder_outputs ?? tiedHead', 'tiedHead', test, 'what a T5 is'],
  ],
  'src/models/families/bart.ts': [
    ['rows that nothing reads', 'const positionOffset = 2', 'const positionOffset = 1', test, 'bart'],
    ['a scale of words', 'c.scale_embedding ? Math.sqrt(c.d_model) : 1', '1', test, 'formulas'],
  ],
  'src/models/families/whisper.ts': [
    ['keys without a bias', "unbiased: ['k', 'crossK']", "unbiased: ['k']", test, 'whisper'],
    ['the stride of the stem', 'stride: 2', 'stride: 1', test, 'whisper'],
  ],
  'src/models/families/marian.ts': [
    ['norms of the recurrence', "rnn_layer_norm: ['rnn_ffn_ln", "rnn_layer_norm: ['ffn_ffn_ln", test, 'marian'],
    ['states between steps', 'run.states?.[0] ?? null', 'null', test, 'from a cache'],
    ['settings that are not understood', '!known.has(key) && !unused.has(key)', 'false', test, 'marian: settings'],
  ],
  'src/models/weights.ts': [['matrices of marian', "info?.dtype !== 'INTGEMM8'", 'false', test, 'marian']],
  'src/models/moduleSites.ts': [
    [
      'what stands before a feed-forward',
      "'input', 'cross_block_middle'",
      "'input', 'block_middle'",
      test,
      'names of sites',
    ],
  ],
  'src/models/run.ts': [
    [
      'rows of an encoder are not narrowed',
      '.filter(component => !isOfEncoderRows(component))',
      '',
      test,
      'only some logits',
    ],
  ],
  'src/reft/seq2seqReft.ts': [
    ['a stack without a layout', 'stack === undefined || !(stack in layouts)', 'stack === undefined', 'reft-seq2seq'],
    ["a decoder's prompt", '.fill(1), decoderInputIds', '.fill(0), decoderInputIds', 'reft-seq2seq'],
  ],
  'src/reft/reftModel.ts': [
    ['edits of other stacks', 'rowsStackOf(intervention.site, this.base.stacks) !== stack', 'false', 'reft-seq2seq'],
  ],
};
