// Filters look at attributes of items by paths such as "function.name" or 0, and compare texts without their case
// unless told otherwise.

import { itemOf } from './operators.js';
import { none, Undefined, type Value } from './values.js';

/** What `attribute` names of an item; the item itself for none. */
export function attributeGetter(
  attribute: Value | undefined,
  otherwise: Value | undefined = undefined,
): (item: Value) => Value {
  if (attribute === undefined || attribute === none) return item => item;
  const path =
    typeof attribute === 'string'
      ? attribute.split('.').map(part => (/^\d+$/.test(part) ? BigInt(part) : part))
      : [attribute];
  return item =>
    path.reduce<Value>((value, part) => {
      const found = itemOf(value, part);
      return found instanceof Undefined && otherwise !== undefined && otherwise !== none ? otherwise : found;
    }, item);
}

export const ignoringCase = (value: Value): Value => (typeof value === 'string' ? value.toLowerCase() : value);
