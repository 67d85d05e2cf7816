// Tokenizers from SentencePiece's own files (.spm, spiece.model): Unigram vocabularies with the table that normalizes
// texts. Field numbers: google/sentencepiece, src/sentencepiece_model.proto.

import { FormatError } from './errors.js';
import { fieldsOfMessage, type Field } from './protobuf.js';
import { decodeUtf8 } from './strictJson.js';
import { Tokenizer } from './tokenizer.js';
import type { AddedTokenJson } from './tokenizerAdded.js';
import type { Component } from './tokenizerParts.js';
import { piecesDecoder } from './tokenizerPieces.js';

/** SentencePiece's types of pieces. */
const pieceTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;
const modelTypes = ['', 'Unigram', 'BPE', 'word', 'character'];
const space = '▁';

interface Piece {
  readonly text: string;
  readonly score: number;
  readonly type: number;
}

/** What a model file says, with SentencePiece's defaults where it says nothing. Ids below 0 name no token. */
interface SentencePieceModel {
  readonly pieces: Piece[];
  modelType: number;
  byteFallback: boolean;
  spaceBehind: boolean;
  unkId: number;
  bosId: number;
  eosId: number;
  padId: number;
  charsMap: Uint8Array;
  addPrefixSpace: boolean;
  removesSpaces: boolean;
  escapesSpaces: boolean;
}

/**
 * The tokenizer of a SentencePiece model.
 * @param bytes its file
 * @param source the file, for errors
 * @param options.addEosToken whether the end token is put behind a text, as marian and T5 do; SentencePiece puts none
 * @throws FormatError for bytes that are no such model, and for kinds of models that are not supported
 */
export function tokenizerFromSentencePiece(
  bytes: Uint8Array,
  source = 'SentencePiece model',
  { addEosToken = false }: { addEosToken?: boolean } = {},
): Tokenizer {
  const model = readModel(bytes, source);
  refuseOthers(model, source);
  const { pieces, unkId } = model;
  const tokenOf = (id: number): string | undefined => (id < 0 ? undefined : pieces[id]?.text);
  if (pieces[unkId]?.type !== pieceTypes.unknown)
    throw new FormatError(source, `trainer_spec.unk_id: expected the id of the unknown piece, got ${unkId}`);
  // A user's own piece is one of the vocabulary, whose score of 0 puts it above all others.
  const addedTypes: readonly number[] = [pieceTypes.unknown, pieceTypes.control];
  const added = pieces.flatMap(({ text, type }, id): AddedTokenJson[] =>
    addedTypes.includes(type) ? [{ id, content: text, special: true, normalized: false }] : [],
  );
  return new Tokenizer({
    source,
    json: {
      normalizer: { type: 'Sequence', normalizers: normalizers(model) },
      pre_tokenizer: {
        type: 'Metaspace',
        replacement: space,
        prepend_scheme: model.addPrefixSpace ? 'always' : 'never',
        split: true,
      },
      model: {
        type: 'Unigram',
        unk_id: unkId,
        vocab: pieces.map(({ text, score }) => [text, score]),
        byte_fallback: model.byteFallback,
      },
      post_processor: null,
      decoder: piecesDecoder(space, model.addPrefixSpace),
      added_tokens: added,
    },
    bosToken: tokenOf(model.bosId),
    eosToken: tokenOf(model.eosId),
    padToken: tokenOf(model.padId),
    unkToken: tokenOf(unkId),
    addEosToken,
  });
}

/** The table first; then spaces at the ends go, and of several one stays. */
function normalizers({ charsMap, removesSpaces }: SentencePieceModel): Component[] {
  const replace = (Regex: string, content: string): Component => ({ type: 'Replace', pattern: { Regex }, content });
  return [
    ...(charsMap.length > 0 ? [{ type: 'Precompiled', precompiled_charsmap: base64Of(charsMap) }] : []),
    ...(removesSpaces ? [replace('\\A +| +\\z', ''), replace(' {2,}', ' ')] : []),
  ];
}

function refuseOthers(model: SentencePieceModel, source: string): void {
  const { modelType, pieces } = model;
  const refuse = (what: string): never => {
    throw new FormatError(source, `${what} is not supported`);
  };
  if (modelType !== 1) refuse(`trainer_spec.model_type ${modelTypes[modelType] ?? modelType}`);
  if (model.spaceBehind) refuse('trainer_spec.treat_whitespace_as_suffix');
  if (!model.escapesSpaces) refuse('normalizer_spec.escape_whitespaces: false');
  if (pieces.length === 0) throw new FormatError(source, 'has no pieces');
  const ids = new Map<string, number>();
  for (const [id, { text, score, type }] of pieces.entries()) {
    const other = ids.get(text);
    if (text === '') throw new FormatError(source, `piece ${id} is empty`);
    if (other !== undefined)
      throw new FormatError(source, `pieces ${other} and ${id} are both ${JSON.stringify(text)}`);
    if (!Number.isFinite(score)) throw new FormatError(source, `piece ${id}: expected a finite score, got ${score}`);
    if (!Object.values<number>(pieceTypes).includes(type))
      throw new FormatError(source, `piece ${id}: type ${type} is not known`);
    ids.set(text, id);
  }
}

function readModel(bytes: Uint8Array, source: string): SentencePieceModel {
  const model: SentencePieceModel = {
    pieces: [],
    modelType: 1,
    byteFallback: false,
    spaceBehind: false,
    unkId: 0,
    bosId: 1,
    eosId: 2,
    padId: -1,
    charsMap: new Uint8Array(),
    addPrefixSpace: true,
    removesSpaces: true,
    escapesSpaces: true,
  };
  for (const field of fieldsOfMessage(bytes, source, 'the model')) {
    const read = new FieldReader(field, source, 'the model');
    if (field.number === 1) model.pieces.push(readPiece(read.bytes(), source, model.pieces.length));
    else if (field.number === 2) readTrainer(read.bytes(), source, model);
    else if (field.number === 3) readNormalizer(read.bytes(), source, model);
    // Texts to test the model with. A table for decoded texts is rare, and would change what is decoded.
    else if (field.number === 5) refuseDenormalizer(read.bytes(), source);
  }
  return model;
}

function readPiece(bytes: Uint8Array, source: string, id: number): Piece {
  let [text, score, type] = ['', 0, pieceTypes.normal as number];
  for (const field of fieldsOfMessage(bytes, source, `piece ${id}`)) {
    const read = new FieldReader(field, source, `piece ${id}`);
    if (field.number === 1) text = decodeUtf8(read.bytes(), source, `piece ${id}`);
    else if (field.number === 2) score = read.float();
    else if (field.number === 3) type = read.integer();
  }
  return { text, score, type };
}

/** Other fields of the trainer say how the vocabulary was made. */
function readTrainer(bytes: Uint8Array, source: string, model: SentencePieceModel): void {
  for (const field of fieldsOfMessage(bytes, source, 'trainer_spec')) {
    const read = new FieldReader(field, source, 'trainer_spec');
    if (field.number === 3) model.modelType = read.integer();
    else if (field.number === 24) model.spaceBehind = read.integer() !== 0;
    else if (field.number === 35) model.byteFallback = read.integer() !== 0;
    else if (field.number === 40) model.unkId = read.integer();
    else if (field.number === 41) model.bosId = read.integer();
    else if (field.number === 42) model.eosId = read.integer();
    else if (field.number === 43) model.padId = read.integer();
  }
}

/** The others are the name of the table, and the rules that it was made of. */
function readNormalizer(bytes: Uint8Array, source: string, model: SentencePieceModel): void {
  for (const field of fieldsOfMessage(bytes, source, 'normalizer_spec')) {
    const read = new FieldReader(field, source, 'normalizer_spec');
    if (field.number === 2) model.charsMap = read.bytes();
    else if (field.number === 3) model.addPrefixSpace = read.integer() !== 0;
    else if (field.number === 4) model.removesSpaces = read.integer() !== 0;
    else if (field.number === 5) model.escapesSpaces = read.integer() !== 0;
  }
}

function refuseDenormalizer(bytes: Uint8Array, source: string): void {
  for (const field of fieldsOfMessage(bytes, source, 'denormalizer_spec')) {
    if (field.number === 2 && new FieldReader(field, source, 'denormalizer_spec').bytes().length > 0)
      throw new FormatError(source, 'denormalizer_spec.precompiled_charsmap is not supported');
  }
}

/** A field as what it should be. */
class FieldReader {
  private readonly field: Field;
  private readonly source: string;
  private readonly what: string;

  constructor(field: Field, source: string, what: string) {
    this.field = field;
    this.source = source;
    this.what = what;
  }

  bytes(): Uint8Array {
    return this.field.kind === 'bytes' ? this.field.value : this.fail('bytes');
  }

  float(): number {
    return this.field.kind === 'float' ? this.field.value : this.fail('a float');
  }

  /** An int32, a bool or an enum: -1 takes all 64 bits. */
  integer(): number {
    return this.field.kind === 'integer' ? Number(BigInt.asIntN(32, this.field.value)) : this.fail('a whole number');
  }

  private fail(expected: string): never {
    const { number, kind } = this.field;
    throw new FormatError(this.source, `${this.what}: field ${number}: expected ${expected}, it is ${kind}`);
  }
}

function base64Of(bytes: Uint8Array): string {
  let binary = '';
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}
