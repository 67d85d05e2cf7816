// The error every reader of outside bytes throws: a file, a header or a field was not what its format says.
// Readers throw nothing else for bad input, whatever the bytes; programming mistakes stay ordinary Errors.

/**
 * Bad bytes: names the file, what was expected and what came.
 * `source` is the file or input that was read.
 */
export class FormatError extends Error {
  override readonly name = 'FormatError';
  readonly source: string;

  constructor(source: string, message: string, options?: { cause?: unknown }) {
    super(`${source}: ${message}`, options);
    this.source = source;
  }
}
