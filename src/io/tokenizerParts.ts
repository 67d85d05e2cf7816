// The components of a tokenizer.json (normalizer, pre_tokenizer, decoder, ...) as their authors wrote them, and how one
// is read: every field is known and of its type, or there is an error that names it.

import { z } from 'zod';

/** A component of a tokenizer.json: `type` and whatever that type needs. */
export type Component = { type: string } & Record<string, unknown>;

export const components = z.array(z.looseObject({ type: z.string() }));

/** The fields of a component. @throws Error that names the component and the field */
export function fieldsOf<T extends z.ZodRawShape>(
  { type, ...fields }: Component,
  shape: T,
  where: string,
): z.infer<z.ZodObject<T>> {
  const result = z.strictObject(shape).safeParse(fields);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new Error(`${where}: ${type}: ${issue.path.length > 0 ? `${issue.path.join('.')}: ` : ''}${issue.message}`);
}

/** What makes a component of each type; others are refused by name. */
export function byType<T>(kinds: Readonly<Record<string, (part: Component) => T>>, part: Component, where: string): T {
  if (Object.hasOwn(kinds, part.type)) return kinds[part.type](part);
  const known = Object.keys(kinds).join(', ');
  throw new Error(`${where}: type ${JSON.stringify(part.type)} is not supported; supported are ${known}`);
}
