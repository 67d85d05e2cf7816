// JSON that keeps what JavaScript's objects and numbers lose and a chat template shows: the order of keys that look
// like numbers, 1.0 beside 1, whole numbers beyond 2^53. Anything else is what JSON.parse gives.

/** A whole number that was written as a float: 1.0, 2e3. */
export class JsonFloat {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }

  toJSON(): number {
    return this.value;
  }
}

/**
 * Keys that are numbers or `__proto__`, numbers with a fraction or an exponent, long numbers: in a text without them
 * nothing is lost.
 */
const lossy = /"(?:\d|__proto__|\\)[^"]*"\s*:|\d[.eE]|\d{16}/;

/**
 * The value of a JSON text. An object with a key that looks like an index is a Map, a whole number written as a float a
 * `JsonFloat`, one beyond 2^53 a bigint.
 * @throws SyntaxError as JSON.parse does
 */
export function parseJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  return lossy.test(text) ? new Reader(text).value() : value;
}

/** Reads a text that JSON.parse has accepted. */
class Reader {
  private position = 0;
  private readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  value(): unknown {
    this.skipSpace();
    const char = this.text[this.position]!;
    if (char === '{') return this.object();
    if (char === '[') return this.list();
    if (char === '"') return this.string();
    const word = /[^\s,\]}]+/y;
    word.lastIndex = this.position;
    const [written] = word.exec(this.text)!;
    this.position += written.length;
    const value = JSON.parse(written) as number | boolean | null;
    if (typeof value !== 'number') return value;
    if (/[.eE]/.test(written)) return Number.isInteger(value) ? new JsonFloat(value) : value;
    return Number.isSafeInteger(value) ? value : BigInt(written);
  }

  private object(): object {
    const entries = new Map<string, unknown>();
    this.items('}', () => {
      const key = this.string();
      this.skipSpace();
      this.position++;
      entries.set(key, this.value());
    });
    const reorders = [...entries.keys()].some(key => /^(0|[1-9]\d*)$/.test(key) || key === '__proto__');
    return reorders ? entries : Object.fromEntries(entries);
  }

  private list(): unknown[] {
    const values: unknown[] = [];
    this.items(']', () => values.push(this.value()));
    return values;
  }

  /** What stands between brackets; the opening one is next. */
  private items(close: string, read: () => void): void {
    this.position++;
    this.skipSpace();
    while (this.text[this.position] !== close) {
      read();
      this.skipSpace();
      if (this.text[this.position] === ',') this.position++;
      this.skipSpace();
    }
    this.position++;
  }

  private string(): string {
    const start = this.position++;
    while (this.text[this.position] !== '"') this.position += this.text[this.position] === '\\' ? 2 : 1;
    return JSON.parse(this.text.slice(start, ++this.position)) as string;
  }

  private skipSpace(): void {
    while (' \t\r\n'.includes(this.text[this.position] ?? 'end')) this.position++;
  }
}
