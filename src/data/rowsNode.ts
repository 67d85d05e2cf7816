// Reads a JSONL file of rows. Node only; what a row may be is in rows.ts.

import { readBounded } from '../io/openFileNode.js';
import { parseRowBytes } from './rows.js';
import type { Row } from './rows.js';

/**
 * The rows of a JSONL file. @throws FormatError for a file that cannot be read or the first bad line, with file and
 * line
 */
export async function readRowsNode(path: string): Promise<Row[]> {
  return parseRowBytes(await readBounded(path, 'rows'), path);
}
