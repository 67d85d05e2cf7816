// Decoders: tokens back to text, as Hugging Face's tokenizers do it. Each is a step that takes tokens one at a time and
// gives what no later token can change, so that the text that is streamed is the text that is decoded.

import { z } from 'zod';
import { replacer } from './tokenizerNormalizers.js';
import { byType, components, fieldsOf, type Component } from './tokenizerParts.js';
import { compilePattern, patternSchema } from './tokenizerPattern.js';
import { metaspaceFields, prependScheme, spelledBytes } from './tokenizerSplits.js';

/** A step of decoding. What it gives is in the order of what it was given. */
export interface DecoderStep {
  /** Takes the next token (or, where the text is fused, its next part). */
  push(token: string): readonly string[];
  /** What was held back. */
  end(): readonly string[];
}

/** A step, and whether it gives parts of one text in place of tokens. */
interface StepKind {
  readonly start: () => DecoderStep;
  readonly fuses?: boolean;
}

const where = 'decoder';

/**
 * What decodes a sequence of tokens, from its start.
 * @throws Error for a component that is not known or not as its type wants it
 */
export function decoderOf(component: Component | null): () => DecoderStep {
  if (!component) return () => eachToken((token, i) => (i === 0 ? token : ` ${token}`));
  let fused = false;
  const steps = flatten(component).map(part => {
    const { start, fuses = false } = fused ? fusedKind(part) : byType(kinds, part, where);
    fused ||= fuses;
    return start;
  });
  return () => chain(steps.map(start => start()));
}

function flatten(component: Component): Component[] {
  return component.type === 'Sequence'
    ? fieldsOf(component, { decoders: components }, where).decoders.flatMap(flatten)
    : [component];
}

/** Steps one after the other. */
function chain(steps: readonly DecoderStep[]): DecoderStep {
  const through = (tokens: readonly string[], from: number): readonly string[] =>
    steps.slice(from).reduce((list, step) => list.flatMap(token => step.push(token)), tokens);
  return { push: token => through([token], 0), end: () => steps.flatMap((step, i) => through(step.end(), i + 1)) };
}

const kinds: Readonly<Record<string, (part: Component) => StepKind>> = {
  Sequence: part => {
    throw new Error(`${where}: ${part.type}: is not expected here`);
  },
  ByteLevel(part) {
    const unused = z.boolean().optional();
    fieldsOf(part, { add_prefix_space: unused, trim_offsets: unused, use_regex: unused }, where);
    return { start: byteLevel, fuses: true };
  },
  ByteFallback(part) {
    fieldsOf(part, {}, where);
    return { start: byteFallback };
  },
  Fuse(part) {
    fieldsOf(part, {}, where);
    return { start: () => eachToken(token => token), fuses: true };
  },
  Replace(part) {
    const { pattern, content } = fieldsOf(part, { pattern: patternSchema, content: z.string() }, where);
    const replace = replacer(compilePattern(pattern), content);
    return { start: () => eachToken(replace) };
  },
  Strip(part) {
    const { content, start, stop } = stripFields(part);
    return { start: () => eachToken(token => stripEnd(stripStart(token, content, start), content, stop)) };
  },
  Metaspace(part) {
    const fields = fieldsOf(part, metaspaceFields, where);
    const keepsFirst = prependScheme(fields) === 'never';
    const space = (index: number): string => (index === 0 && !keepsFirst ? '' : ' ');
    return { start: () => eachToken((token, i) => token.replaceAll(fields.replacement, space(i))) };
  },
  WordPiece(part) {
    const { prefix, cleanup } = fieldsOf(part, { prefix: z.string(), cleanup: z.boolean() }, where);
    return {
      start: () =>
        eachToken((token, i) => {
          const spaced = i === 0 ? token : token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`;
          return cleanup ? cleanedWordPiece(spaced) : spaced;
        }),
    };
  },
  BPEDecoder(part) {
    const { suffix } = fieldsOf(part, { suffix: z.string() }, where);
    return { start: () => bpeSuffix(suffix) };
  },
};

/** A step behind one that fuses: it sees one token in parts. */
function fusedKind(part: Component): StepKind {
  if (part.type === 'Strip') {
    const fields = stripFields(part);
    return { start: () => fusedStrip(fields), fuses: true };
  }
  // Nobody has others there; they see the text at its end.
  const { start } = byType(kinds, part, where);
  return {
    start: () => {
      const step = start();
      let text = '';
      return {
        push: token => {
          text += token;
          return [];
        },
        end: () => [...step.push(text), ...step.end()],
      };
    },
    fuses: true,
  };
}

/** Each token alone; the function is told which it is. */
function eachToken(map: (token: string, index: number) => string): DecoderStep {
  let index = 0;
  return { push: token => [map(token, index++)], end: () => [] };
}

/** Bytes in GPT-2's spelling; a token that is not spelled so is its own text. Parts of a character wait for others. */
function byteLevel(): DecoderStep {
  const encoder = new TextEncoder();
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  return {
    push: token => {
      const bytes = Array.from(token, character => spelledBytes.get(character));
      const whole = bytes.includes(undefined) ? encoder.encode(token) : Uint8Array.from(bytes as number[]);
      return [decoder.decode(whole, { stream: true })];
    },
    end: () => [decoder.decode()],
  };
}

/** Runs of `<0x0A>` tokens become the text of their bytes, or U+FFFD for each where together they are none. */
function byteFallback(): DecoderStep {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let run: number[] = [];
  const flush = (): string[] => {
    if (run.length === 0) return [];
    const bytes = Uint8Array.from(run);
    run = [];
    try {
      return [decoder.decode(bytes)];
    } catch {
      return Array.from(bytes, () => '\uFFFD');
    }
  };
  return {
    push: token => {
      const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
      if (byte === undefined) return [...flush(), token];
      run.push(parseInt(byte, 16));
      return [];
    },
    end: flush,
  };
}

/** The suffix of a word's last token is the space behind it, which the last of all does not get. */
function bpeSuffix(suffix: string): DecoderStep {
  const spaced = (token: string, space: string): string => (suffix === '' ? token : token.replaceAll(suffix, space));
  let last: string | undefined;
  return {
    push: token => {
      const before = last;
      last = token;
      return before === undefined ? [] : [spaced(before, ' ')];
    },
    end: () => (last === undefined ? [] : [spaced(last, '')]),
  };
}

interface StripFields {
  readonly content: string;
  /** Most characters that go from either end. */
  readonly start: number;
  readonly stop: number;
}

function stripFields(part: Component): StripFields {
  return fieldsOf(part, { content: z.string().length(1), start: z.int().min(0), stop: z.int().min(0) }, where);
}

function stripStart(text: string, content: string, most: number): string {
  let count = 0;
  while (count < most && text[count] === content) count++;
  return text.slice(count);
}

function stripEnd(text: string, content: string, most: number): string {
  let count = 0;
  while (count < Math.min(most, text.length) && text[text.length - 1 - count] === content) count++;
  return text.slice(0, text.length - count);
}

/** Strips a text that comes in parts: an end that might go waits for what follows. */
function fusedStrip({ content, start, stop }: StripFields): DecoderStep {
  let left = start;
  let held = '';
  return {
    push: part => {
      let text = part;
      if (left > 0 && part !== '') {
        text = stripStart(part, content, left);
        // A character that is not stripped ends the stripping.
        left = text === '' ? left - part.length : 0;
      }
      const whole = held + text;
      const shown = stripEnd(whole, content, stop);
      held = whole.slice(shown.length);
      return [shown];
    },
    end: () => [stripEnd(held, content, stop)],
  };
}

/** What the tokenizers' own WordPiece decoder does to each token. */
function cleanedWordPiece(text: string): string {
  return text
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(' do not', " don't")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}
