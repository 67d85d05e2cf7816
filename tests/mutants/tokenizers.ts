// Kept mutants: tokenizers, sampling, where generation ends.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/io/tokenizer.ts': [
    [
      'add_bos_token',
      'if (add === undefined) return otherwise;',
      'return otherwise;',
      'tokenizer-files',
      'add_bos_token',
    ],
    ['add_bos_token without a bos', 'if (add && id === undefined)', 'if (false)', 'tokenizer-files', 'add_bos_token'],
    ['split_special_tokens', 'spec.splitSpecialTokens ?? false', 'false', 'tokenizer-files', 'split_special_tokens'],
    [
      'messages are text by default',
      'splitSpecialTokens = true, variables',
      'splitSpecialTokens = false, variables',
      'tokenizer-files',
      'forges',
    ],
    [
      'variables are text',
      'renderLiteral({ messages, variables }',
      'renderLiteral({ messages }',
      'tokenizer-files',
      'forges',
    ],
  ],
  'src/io/chatLiteral.ts': [
    ['an end that begins a token', 'whole.endsWith(prefix)', 'false', 'tokenizer-files', 'no split'],
    ['a start that ends a token', 'whole.startsWith(suffix)', 'false', 'tokenizer-files', 'no split'],
    [
      'trimmed text',
      '\n    [0, text.length],\n    [start, end],\n  ',
      '[0, text.length]',
      'tokenizer-files',
      'no split',
    ],
    [
      'a mark that the text has',
      'if (!texts.some(text => text.includes(mark))) return mark;',
      'return mark;',
      'tokenizer-files',
      'no split',
    ],
  ],
  'src/io/tokenizerAdded.ts': [
    ['whole words', 'if (token.single_word && ', 'if (false && ', 'tokenizer-files', 'whole words'],
    [
      'white space before a token',
      'start > done && isSpace.test(text[start - 1])',
      'start > done && /\\s/.test(text[start - 1])',
      'tokenizer-files',
      'whole words',
    ],
    [
      'white space behind a token',
      'end < text.length && isSpace.test(text[end])',
      'end < text.length && /\\s/.test(text[end])',
      'tokenizer-files',
      'whole words',
    ],
    [
      'the longest of two tokens',
      'b.content.length - a.content.length',
      'a.content.length - b.content.length',
      'tokenizer-parts',
      'longer',
    ],
  ],
  'src/io/tokenizerCharsMap.ts': [
    ['graphemes of five bytes', 'longestGrapheme = 5', 'longestGrapheme = 1', 'tokenizer-golden', 't5: the ids'],
    [
      'the label of a unit',
      'if ((unit & 0x800000ff) !== byte) return undefined;',
      '',
      'tokenizer-golden',
      't5: the ids',
    ],
  ],
  'src/io/tokenizerCleanUp.ts': [
    [
      'what may still change',
      'while (cut > 0 && !isSafeCut(held, cut)) cut--;',
      '',
      'tokenizer-golden',
      'what is streamed',
    ],
    ['how far a replacement reaches', 'longest = 6', 'longest = 3', 'tokenizer-parts', 'cleaned up'],
  ],
  'src/io/tokenizerConfig.ts': [
    ['a config of tokens', "if (content !== '') set(content, id, token);", '', 'tokenizer-files', 'says more of'],
    [
      'named special tokens',
      "if (fields.content === '' || id === undefined ||",
      'if (true ||',
      'tokenizer-files',
      'says more of',
    ],
    [
      'do_lower_case',
      '\n        lowercase: config.do_lower_case,\n        strip_accents: config.strip_accents,\n        handle_chinese_chars: config.tokenize_chinese_chars,\n     ',
      ' strip_accents: config.strip_accents, handle_chinese_chars: config.tokenize_chinese_chars',
      'tokenizer-files',
      'switches',
    ],
    ['fix_mistral_regex', 'if (config.fix_mistral_regex)', 'if (false)', 'tokenizer-files', 'switches'],
  ],
  'src/io/tokenizerDecoders.ts': [
    ['bytes of no text', "Array.from(bytes, () => '\\uFFFD')", "['\\uFFFD']", 'tokenizer-files', 'U\\+FFFD each'],
    ['the first of a Metaspace', 'index === 0 && !keepsFirst', 'false', 'tokenizer-golden', 'the texts'],
    ['the end of a word', "spaced(before, ' ')", "spaced(before, '')", 'tokenizer-parts', 'last token'],
  ],
  'src/io/tokenizerGguf.ts': [['Qwen2 composes', ', composes: true };', ' };', 'tokenizer-files', 'GGUF']],
  'src/io/tokenizerNormalizers.ts': [
    ['a sigma at the end of a word', '/[\\u03A3\\u0130]/.test(text)', 'false', 'tokenizer-golden', 'uncased: the ids'],
    ['a $ in a replacement', '() => content', 'content', 'tokenizer-parts', 'replacement'],
    ['what BERT removes', 'remover(bertControls()), ', '', 'tokenizer-golden', 'cased: the ids'],
    [
      'accents go with case',
      'fields.strip_accents ?? fields.lowercase',
      'fields.lowercase',
      'tokenizer-golden',
      'accents: the ids',
    ],
  ],
  'src/io/tokenizerPipeline.ts': [
    ['a half of a pair', ".replace(/\\p{Surrogate}/gu, '\\uFFFD')", '', 'tokenizer-parts', 'surrogate'],
    ['pieces that are control tokens', 'literal && ids.some(isControl)', 'false', 'tokenizer-files', 'control tokens'],
    ['literal places', 'if (literal.has(at)) return true;', '', 'tokenizer-files', 'forges'],
  ],
  'src/io/tokenizerSplits.ts': [
    ["Gemma's split", "if (behavior === 'MergedWithPrevious')", 'if (false)', 'tokenizer-parts', 'split matches'],
    [
      'a prefix for the first piece alone',
      "scheme === 'first' && first",
      "scheme === 'first'",
      'tokenizer-golden',
      'xlmr: the ids',
    ],
    ['a start that is one', 'first: first && i === 0', 'first', 'tokenizer-parts', 'first piece'],
  ],
  'src/io/tokenizerUnigram.ts': [
    ['bytes of what is not known', 'if (this.byteFallback)', 'if (false)', 'tokenizer-golden', 'bytes: the ids'],
    [
      'unknown characters are one token',
      'else tokens[tokens.length - 1] = piece.slice(start, unknownEnd);',
      'else tokens.push(piece.slice(start, end));',
      'tokenizer-golden',
      't5: the ids',
    ],
    ['what is not known costs more', 'unknownPenalty = 10', 'unknownPenalty = 0', 'tokenizer-parts', 'Unigram'],
  ],
  'src/cli/inputLines.ts': [
    [
      'a line separator on its way past readline',
      'done(null, disguise(decoder.write(chunk)))',
      'done(null, decoder.write(chunk))',
      'cli-lines',
      'stay within',
    ],
    ['what a line was before', 't.replaceAll(from, to), line)', 't, line)', 'cli-lines', 'stay within'],
  ],
  'src/reft/tokenSpans.ts': [
    ['tokens of one run', 'if (behind - first > 1 && end', 'if (false && end', 'tokenizer-files', 'run of bytes'],
  ],
  'src/models/generation/sampling.ts': [
    ['a NaN beside the largest logit', 'Number.isNaN(logits[i]) || ', '', 'models-sampling', 'not finite'],
    ['an infinite logit', ' || logits[i] === Infinity', '', 'models-sampling', 'not finite'],
    ['no token may be chosen', 'if (logits[best] === -Infinity)', 'if (false)', 'models-sampling', 'not finite'],
    [
      'what a penalty makes infinite',
      'repetitionPenalty === 1 ? best : mostLikely',
      'true ? best : mostLikely',
      'models-sampling',
      'penalty|not finite',
    ],
    ['the penalty once a token', 'new Set(seen)', '[...seen]', 'models-sampling', 'acts once'],
    ['weights of 0', 'if (weights[i] === 0) continue;', '', 'models-sampling', 'Infinity is never'],
  ],
  'src/models/generation/engine.ts': [
    ["a row's stream", 'new Random(seed, stream)', 'new Random(seed, 0)', 'models-generation', 'its own stream'],
  ],
  'src/models/generation/generate.ts': [
    ["a prompt's ends", "'ids' in prompt ? prompt : undefined", 'undefined', 'models-generation', 'bring their ends'],
    [
      "a tokenizer's ends",
      'model.endTokenIds(options.tokenizer, ',
      'model.endTokenIds(undefined, ',
      'models-generation',
      'bring their ends',
    ],
    [
      'what is given stands above',
      '...sampling, ...(maxNewTokens === undefined ? {} : { maxNewTokens }), ...said',
      '...said, ...sampling',
      'models-generation',
      'defaults',
    ],
    ['settings that are not supported', 'if (missing !== undefined)', 'if (false)', 'models-generation', 'defaults'],
  ],
  'src/models/causalLM.ts': [
    [
      "generation_config.json's ends",
      '\n      ...new Set([\n        ...this.config.eosTokenIds,\n        ...this.generation.eosTokenIds,\n        ...sources.flatMap(source => source?.stopTokenIds ?? []),\n      ]),\n    ',
      '...new Set([...this.config.eosTokenIds, ...sources.flatMap(source => source?.stopTokenIds ?? [])])',
      'models-generation',
      'generation_config.json says',
    ],
  ],
  'src/models/generationConfig.ts': [
    ['do_sample', 'c.do_sample !== true || ', '', 'models-generation', 'as transformers'],
    ["transformers' top-k", 'c.top_k ?? 50', 'c.top_k ?? 0', 'models-generation', 'as transformers'],
  ],
  'src/reft/editedModel.ts': [
    [
      'the tokenizer of an edited model',
      'tokenizer: this.tokenizer,\n      ...options,',
      '...options,',
      'models-generation',
      'bring their ends',
    ],
  ],
};
