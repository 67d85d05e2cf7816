// Reads a JSONL file of rows. Node only; what a row may be is in rows.ts.

import { readFile } from 'node:fs/promises';
import { FormatError } from '../io/errors.js';
import { parseRowBytes } from './rows.js';
import type { Row } from './rows.js';

/** The rows of a JSONL file. @throws FormatError for a file that cannot be read or the first bad line, with file and line */
export async function readRowsNode(path: string): Promise<Row[]> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw new FormatError(path, `cannot be read: ${(error as Error).message}`, { cause: error });
  }
  return parseRowBytes(bytes, path);
}
