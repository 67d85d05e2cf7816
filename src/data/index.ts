// What `reft/data` offers: rows, examples and batches. Loads in a browser; `readRows` works in Node only.

import { nodeOnly } from '../io/nodeOnly.js';
import type { Row } from './rows.js';

export { parseRowBytes, parseRows } from './rows.js';
export type { ChatRow, CompletionRow, Row, TextRow } from './rows.js';
export { describingFields } from './rowFields.js';
export { ignoreLabel, promptIds, tokenizeRow } from './examples.js';
export type { Example, TokenizeOptions } from './examples.js';
export { parsePreferences, type PreferencePair } from './preferences.js';
export { batches, collate, shuffled } from './collate.js';
export type { Batch } from './collate.js';

/** The rows of a JSONL file; in a browser use `parseRows`. @throws FormatError with file and line for a bad row */
export async function readRows(path: string): Promise<Row[]> {
  nodeOnly('readRows', 'use parseRows(text, name)');
  const { readRowsNode } = await import('./rowsNode.js');
  return readRowsNode(path);
}
