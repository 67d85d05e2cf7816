// What is used of @huggingface/tokenizers: two models and the translation of regular expressions. All else of it takes
// JavaScript's white space, letters and digits for Rust's, and is done here. Spelt out, because its type files do not
// resolve under NodeNext.

import * as library from '@huggingface/tokenizers';

export interface LibraryModel {
  readonly vocab: (string | undefined)[];
  readonly tokens_to_ids: Map<string, number>;
  readonly unk_token_id: number | undefined;
  encode(pieces: string[]): string[];
}

interface Library {
  readonly BPE: new (config: object) => LibraryModel;
  readonly WordPiece: new (config: object) => LibraryModel;
  readonly SplitPreTokenizer: new (config: object) => { readonly pattern: RegExp };
}

// One by one, so that bundles leave the rest out.
export const BPE = (library as unknown as Library).BPE;
export const WordPiece = (library as unknown as Library).WordPiece;
export const SplitPreTokenizer = (library as unknown as Library).SplitPreTokenizer;
