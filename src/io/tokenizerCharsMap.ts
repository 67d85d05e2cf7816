// The character tables that SentencePiece models bring along (`Precompiled` in a tokenizer.json): a double-array trie
// of UTF-8 byte strings, whose values are places in a text of replacements that end with a zero byte each.

/** At most this many bytes of a grapheme are looked up as one; longer ones go character by character. */
const longestGrapheme = 5;
/** Three times what Unicode's longest decomposition has. */
const longestReplacement = 100;

/**
 * The replacement of a text by such a table.
 * @param base64 u32 length of the trie in bytes, its u32 units, the replacements; little-endian
 * @throws Error for a table that leads outside itself or is not base64
 */
export function charsMap(base64: string): (text: string) => string {
  const table = new CharsMap(base64);
  return text => table.normalize(text);
}

class CharsMap {
  private readonly units: Uint32Array;
  private readonly replacements: Uint8Array;
  private readonly encoder = new TextEncoder();
  private readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  private readonly graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' });

  constructor(base64: string) {
    const bytes = bytesOf(base64);
    const view = new DataView(bytes.buffer);
    const length = bytes.length >= 4 ? view.getUint32(0, true) : 0;
    if (bytes.length < 4 || length % 4 !== 0 || length === 0 || 4 + length > bytes.length) {
      throw new Error(`normalizer: Precompiled: expected a trie within ${bytes.length} bytes, got one of ${length}`);
    }
    this.units = Uint32Array.from({ length: length / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.replacements = bytes.subarray(4 + length);
    for (let start = 0; start < this.replacements.length;) {
      const zero = this.replacements.indexOf(0, start);
      const end = zero < 0 ? this.replacements.length : zero;
      if (end - start > longestReplacement) {
        throw new Error(
          `normalizer: Precompiled: a replacement has ${end - start} bytes, at most ${longestReplacement} are allowed`,
        );
      }
      start = end + 1;
    }
  }

  /** Graphemes of up to five bytes as a whole, where the table knows a beginning of them; others by characters. */
  normalize(text: string): string {
    let out = '';
    for (const { segment } of this.graphemes.segment(text)) {
      const whole = utf8Length(segment) <= longestGrapheme ? this.replacement(segment) : undefined;
      if (whole !== undefined) out += whole;
      else for (const character of segment) out += this.replacement(character) ?? character;
    }
    return out;
  }

  /** What stands for the shortest beginning of a chunk that the table knows; undefined where it knows none. */
  private replacement(chunk: string): string | undefined {
    let node = this.offsetOf(0);
    for (const byte of this.encoder.encode(chunk)) {
      if (byte === 0) return undefined;
      node ^= byte;
      const unit = this.unitAt(node);
      // The label, and a bit that values have: a value is no child.
      if ((unit & 0x800000ff) !== byte) return undefined;
      node ^= this.offsetOf(node);
      if (unit & 0x100) return this.replacementAt(this.unitAt(node) & 0x7fffffff);
    }
    return undefined;
  }

  private replacementAt(start: number): string {
    const { length } = this.replacements;
    if (start > length) throw new Error(`normalizer: Precompiled: a value leads to byte ${start} of ${length}`);
    const end = this.replacements.indexOf(0, start);
    return this.decoder.decode(this.replacements.subarray(start, end < 0 ? undefined : end));
  }

  private offsetOf(node: number): number {
    const unit = this.unitAt(node);
    return (unit >>> 10) << ((unit & 0x200) >>> 6);
  }

  private unitAt(node: number): number {
    const { length } = this.units;
    if (node >= 0 && node < length) return this.units[node];
    throw new Error(`normalizer: Precompiled: the trie leads to unit ${node} of ${length}`);
  }
}

function bytesOf(base64: string): Uint8Array {
  let binary: string;
  try {
    binary = atob(base64);
  } catch (cause) {
    throw new Error('normalizer: Precompiled: precompiled_charsmap is not base64', { cause });
  }
  return Uint8Array.from(binary, character => character.charCodeAt(0));
}

function utf8Length(text: string): number {
  let length = 0;
  for (const character of text) {
    const code = character.codePointAt(0) as number;
    length += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  }
  return length;
}
