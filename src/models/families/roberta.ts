// RoBERTa, XLM-RoBERTa and CamemBERT: a BERT whose positions are counted over what is not padding, from the row behind
// the padding id's. Sources: transformers, configuration_roberta.py and modeling_roberta.py.

import { z } from 'zod';
import { type EncoderConfig } from '../configEncoder.js';
import { FormatError } from '../../io/errors.js';
import { encoderFamily } from '../loadEncoder.js';
import { bertNames, readBert } from './bert.js';

/** What the tables of BERT-like encoders are when a file does not say. */
const defaults = { pad_token_id: 1 };

export function readRoberta(json: unknown, source: string): EncoderConfig {
  const given = z.looseObject({ pad_token_id: z.unknown() }).parse(json);
  const config = readBert({ ...given, pad_token_id: given.pad_token_id ?? defaults.pad_token_id }, source);
  const { maxPositions: rows, padTokenId } = config;
  if (padTokenId === null)
    throw new FormatError(source, `pad_token_id: expected an id of the vocabulary, got ${String(given.pad_token_id)}`);
  const offset = padTokenId + 1;
  if (rows <= offset)
    throw new FormatError(source, `max_position_embeddings: expected more than ${offset} rows, got ${rows}`);
  return { ...config, maxPositions: rows - offset, learnedPositions: { rows, offset }, positionsSkipPadding: true };
}

export const roberta = encoderFamily(
  {
    name: 'roberta',
    modelTypes: ['roberta', 'xlm-roberta', 'camembert'],
    names: bertNames('roberta.'),
    fromHF: readRoberta,
  },
  {
    pooler: 'roberta.pooler.dense',
    maskedLM: () => ({
      names: { dense: 'lm_head.dense', norm: 'lm_head.layer_norm', out: 'lm_head.decoder', outBias: 'lm_head.bias' },
      activation: 'gelu',
    }),
    classification: () => ({ names: { dense: 'classifier.dense', out: 'classifier.out_proj' }, activation: 'tanh' }),
  },
);
