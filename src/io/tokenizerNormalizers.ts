// Normalizers: what a tokenizer does to a text before it is split, as Hugging Face's tokenizers do it. Character tables
// are in tokenizerUnicode.ts, the tables that come with a model in tokenizerCharsMap.ts.

import { z } from 'zod';
import { charsMap } from './tokenizerCharsMap.js';
import { byType, components, fieldsOf, type Component } from './tokenizerParts.js';
import { compilePattern, matchesOf, matchWithin, patternSchema } from './tokenizerPattern.js';
import {
  bertControls,
  bertIdeographs,
  marks,
  nonspacingMarks,
  whiteSpace,
  youngDecompositions,
} from './tokenizerUnicode.js';

export type Normalize = (text: string) => string;

const where = 'normalizer';

/** @throws Error for a component that is not known or not as its type wants it */
export function normalizerOf(component: Component | null): Normalize {
  return component ? byType(kinds, component, where) : text => text;
}

const kinds: Readonly<Record<string, (part: Component) => Normalize>> = {
  Sequence(part) {
    const steps = fieldsOf(part, { normalizers: components }, where).normalizers.map(normalizerOf);
    return text => steps.reduce((t, normalize) => normalize(t), text);
  },
  BertNormalizer(part) {
    const fields = fieldsOf(
      part,
      {
        clean_text: z.boolean(),
        handle_chinese_chars: z.boolean(),
        strip_accents: z.boolean().nullish(),
        lowercase: z.boolean(),
      },
      where,
    );
    return bertNormalizer(fields);
  },
  Precompiled(part) {
    return charsMap(fieldsOf(part, { precompiled_charsmap: z.string() }, where).precompiled_charsmap);
  },
  Replace(part) {
    const { pattern, content } = fieldsOf(part, { pattern: patternSchema, content: z.string() }, where);
    return replacer(compilePattern(pattern), content);
  },
  Prepend(part) {
    const { prepend } = fieldsOf(part, { prepend: z.string() }, where);
    return text => (text === '' ? '' : prepend + text);
  },
  Strip(part) {
    const sides = { strip_left: z.boolean(), strip_right: z.boolean() };
    const { strip_left: left, strip_right: right } = fieldsOf(part, sides, where);
    const ends = [...(left ? [`^${whiteSpace}+`] : []), ...(right ? [`${whiteSpace}+$`] : [])];
    return ends.length > 0 ? remover(ends.join('|')) : text => text;
  },
  StripAccents: () => remover(marks()),
  Lowercase: () => lowercase,
  NFC: () => unicodeForm('NFC'),
  NFD: () => unicodeForm('NFD'),
  NFKC: () => unicodeForm('NFKC'),
  NFKD: () => unicodeForm('NFKD'),
};

interface BertFields {
  readonly clean_text: boolean;
  readonly handle_chinese_chars: boolean;
  /** Default: as `lowercase`. */
  readonly strip_accents?: boolean | null | undefined;
  readonly lowercase: boolean;
}

function bertNormalizer(fields: BertFields): Normalize {
  const steps: Normalize[] = [];
  if (fields.clean_text) steps.push(remover(bertControls()), replacer(new RegExp(whiteSpace, 'gu'), ' '));
  if (fields.handle_chinese_chars) {
    const ideograph = new RegExp(bertIdeographs(), 'gu');
    steps.push(text => text.replace(ideograph, ' $& '));
  }
  if (fields.strip_accents ?? fields.lowercase) steps.push(unicodeForm('NFD'), remover(nonspacingMarks()));
  if (fields.lowercase) steps.push(lowercase);
  return text => steps.reduce((t, normalize) => normalize(t), text);
}

function remover(expression: string): Normalize {
  return replacer(new RegExp(expression, 'gu'), '');
}

/** Puts `content` as it stands: a $ in it means nothing. */
export function replacer(expression: RegExp, content: string): Normalize {
  return text => matchWithin(text, expression, () => text.replace(expression, () => content));
}

/** Character by character: JavaScript's own takes a sigma at the end of a word for a final one. */
function lowercase(text: string): string {
  // Nothing but sigma and a dotted I depend on what stands around them.
  if (!/[\u03A3\u0130]/.test(text)) return text.toLowerCase();
  return Array.from(text, character => character.toLowerCase()).join('');
}

function unicodeForm(form: 'NFC' | 'NFD' | 'NFKC' | 'NFKD'): Normalize {
  if (form === 'NFC') return text => text.normalize('NFC');
  const young = new RegExp(youngDecompositions(), 'gu');
  return text =>
    matchesOf(text, young)
      .map(part => (part.isMatch ? part.text : part.text.normalize(form)))
      .join('');
}
