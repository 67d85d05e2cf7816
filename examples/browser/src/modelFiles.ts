// From files that a person chose to an open model and its tokenizer. Nothing is read whole but small texts: weights
// stay in the files.

import {
  blobSource,
  configFromHF,
  openCheckpoint,
  openGguf,
  openSafetensors,
  openShardedSafetensors,
  parseLlama2cVocabulary,
  tokenizerFromFiles,
  tokenizerFromGGUF,
  tokenizerFromLlama2c,
  type OpenCheckpoint,
  type Tokenizer,
} from '../../../src/index.js';

interface OpenModel {
  readonly checkpoint: OpenCheckpoint;
  readonly tokenizer: Tokenizer;
}

/** @throws Error that says what is missing; FormatError for files that are not what they seem */
export async function openModelFiles(files: readonly File[]): Promise<OpenModel> {
  const named = (name: string): File | undefined => files.find(f => f.name === name);
  const source = (file: File): ReturnType<typeof blobSource> => blobSource(file, file.name);

  const open = async (name: string): Promise<ReturnType<typeof blobSource>> => {
    const file = named(name);
    if (!file) throw new Error(`${name} is missing`);
    return source(file);
  };

  const ggufs = files.filter(f => /\.gguf$/i.test(f.name));
  // Of a split model the first part leads to the others.
  const gguf = ggufs.find(f => /-00001-of-\d+\.gguf$/i.test(f.name)) ?? ggufs[0];
  if (gguf) {
    const { metadata } = await openGguf(source(gguf), open);
    const checkpoint = await openCheckpoint(source(gguf), undefined, undefined, open);
    return { checkpoint, tokenizer: tokenizerFromGGUF(metadata, gguf.name) };
  }

  // llama2.c: the larger file is the model, the other its vocabulary.
  const [model, vocabulary] = files.filter(f => /\.bin$/i.test(f.name)).sort((a, b) => b.size - a.size);
  if (model) {
    if (!vocabulary) throw new Error(`${model.name}: a llama2.c model needs its vocabulary (tokenizer.bin) beside it`);
    const bytes = new Uint8Array(await vocabulary.arrayBuffer());
    return {
      checkpoint: await openCheckpoint(source(model)),
      tokenizer: tokenizerFromLlama2c(parseLlama2cVocabulary(bytes, vocabulary.name)),
    };
  }

  const [configFile, tokenizerFile, index] = ['config.json', 'tokenizer.json', 'model.safetensors.index.json'].map(
    named,
  );
  const weights = named('model.safetensors') ?? files.find(f => /\.safetensors$/i.test(f.name));
  const missing = [
    ...(weights ? [] : ['model.safetensors']),
    ...(configFile ? [] : ['config.json']),
    ...(tokenizerFile ? [] : ['tokenizer.json']),
  ];
  if (!weights || !configFile || !tokenizerFile) {
    throw new Error(
      `${files.map(f => f.name).join(', ')}: choose a .gguf file, or a model's files together; missing: ${missing.join(', ')}`,
    );
  }
  const text = (name: string): Promise<string> | undefined => named(name)?.text();
  const tokenizer = tokenizerFromFiles({
    tokenizerJson: await tokenizerFile.text(),
    tokenizerConfig: await text('tokenizer_config.json'),
    specialTokensMap: await text('special_tokens_map.json'),
    generationConfig: await (text('generation_config.json') ?? configFile.text()),
    chatTemplate: await text('chat_template.jinja'),
  });
  const json: unknown = JSON.parse(await configFile.text());
  const file = index ? await openShardedSafetensors(source(index), open) : await openSafetensors(source(weights));
  const folder = weights.webkitRelativePath.split('/').at(-2) ?? weights.name.replace(/\.safetensors$/, '');
  return { checkpoint: { name: folder, config: configFromHF(json, 'config.json'), file }, tokenizer };
}
