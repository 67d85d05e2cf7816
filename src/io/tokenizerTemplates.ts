// What a post-processor writes for one text and for two: special tokens around and between them, and the type of each
// token (BERT's segments), as Hugging Face's tokenizers do it.

import { z } from 'zod';
import { byType, components, fieldsOf, type Component } from './tokenizerParts.js';

/** Special tokens, or one of the texts; `type` is the type of these tokens. */
export type TemplatePart =
  { readonly ids: readonly number[]; readonly type: number } | { readonly text: 0 | 1; readonly type: number };
export type Template = readonly TemplatePart[];

export interface Templates {
  /** Has the first text once. */
  readonly single: Template;
  /** Has both texts once. A string says why there are no pairs. */
  readonly pair: Template | string;
}

const where = 'post_processor';

/** @throws Error for a post-processor that is not known or not as its type wants it */
export function templatesOf(component: Component | null, idOf: (token: string) => number | undefined): Templates {
  return component ? byType(kinds(idOf), component, where) : bare;
}

/** The special tokens of a template of one text: those in front of it, and those behind. */
export function aroundOf(single: Template): { before: number[]; behind: number[] } {
  const text = single.findIndex(part => 'text' in part);
  const idsOf = (parts: Template): number[] => parts.flatMap(part => ('ids' in part ? part.ids : []));
  return { before: idsOf(single.slice(0, text)), behind: idsOf(single.slice(text + 1)) };
}

const first = { text: 0, type: 0 } as const;
const bare: Templates = { single: [first], pair: [first, { text: 1, type: 1 }] };

type Kinds = Readonly<Record<string, (part: Component) => Templates>>;

const kinds = (idOf: (token: string) => number | undefined): Kinds => ({
  ByteLevel: () => bare,
  BertProcessing(part) {
    const { cls, sep } = clsAndSep(part);
    const single: Template = [cls, first, sep];
    return { single, pair: [...single, { text: 1, type: 1 }, { ...sep, type: 1 }] };
  },
  RobertaProcessing(part) {
    const { cls, sep } = clsAndSep(part);
    const single: Template = [cls, first, sep];
    return { single, pair: [...single, sep, { text: 1, type: 0 }, sep] };
  },
  TemplateProcessing: part => written(part, idOf),
  Sequence(part) {
    const steps = fieldsOf(part, { processors: components }, where).processors.map(step => templatesOf(step, idOf));
    const adding = steps.filter(({ single }) => single.length > 1);
    if (adding.length < 2) return adding[0] ?? bare;
    const around = adding.map(({ single }) => aroundOf(single));
    const before = around.toReversed().flatMap(step => step.before);
    const behind = around.flatMap(step => step.behind);
    return {
      single: [{ ids: before, type: 0 }, first, { ids: behind, type: 0 }],
      pair: `${where}: several steps add special tokens`,
    };
  },
});

const namedToken = z.tuple([z.string(), z.int().min(0)]);

function clsAndSep(part: Component): { cls: { ids: number[]; type: number }; sep: { ids: number[]; type: number } } {
  const fields = {
    cls: namedToken,
    sep: namedToken,
    trim_offsets: z.boolean().optional(),
    add_prefix_space: z.boolean().optional(),
  };
  const { cls, sep } = fieldsOf(part, fields, where);
  return { cls: { ids: [cls[1]], type: 0 }, sep: { ids: [sep[1]], type: 0 } };
}

const typeId = z.int().min(0).default(0);
const item = z.union([
  z.strictObject({ SpecialToken: z.looseObject({ id: z.string(), type_id: typeId }) }),
  z.strictObject({ Sequence: z.looseObject({ id: z.enum(['A', 'B']), type_id: typeId }) }),
]);
const templateFields = {
  single: z.array(item),
  pair: z.array(item).optional(),
  special_tokens: z.record(z.string(), z.looseObject({ ids: z.array(z.int().min(0)) })).optional(),
};

/** A template that the file writes out. */
function written(component: Component, idOf: (token: string) => number | undefined): Templates {
  const { single, pair, special_tokens: special = {} } = fieldsOf(component, templateFields, where);
  const partOf = (part: z.infer<typeof item>): TemplatePart => {
    if ('Sequence' in part) return { text: part.Sequence.id === 'A' ? 0 : 1, type: part.Sequence.type_id };
    const { id, type_id: type } = part.SpecialToken;
    const ids = Object.hasOwn(special, id) ? special[id].ids : [idOf(id)];
    if (ids.includes(undefined)) throw new Error(`${where}: ${JSON.stringify(id)} is not in the vocabulary`);
    return { ids: ids as number[], type };
  };
  const checked = (parts: Template, name: string, expected: string): Template => {
    const texts = parts.flatMap(part => ('text' in part ? ['AB'[part.text]] : []));
    if (texts.toSorted().join(', ') === expected) return parts;
    throw new Error(`${where}: ${name}: expected ${expected}, each once, it has ${texts.join(', ') || 'no text'}`);
  };
  return {
    single: checked(single.map(partOf), 'single', 'A'),
    pair: pair ? checked(pair.map(partOf), 'pair', 'A, B') : bare.pair,
  };
}
