// The golden cases that every device and every browser must pass: LLaMA and kin, the kinds of edits, pyreft's folders.
// As globs for `--only`.

const saved = ['loreft', 'loreft-shared', 'nodireft', 'noreft', 'consreft', 'lobireft', 'direft'];

export const mainJob: readonly string[] = [
  'tiny-llama',
  'models/llama3-rope',
  'models/qwen2',
  'models/mistral',
  'reft/positions',
  'reft/loreft-gelu',
  ...saved.flatMap(kind => [`reft/${kind}`, `reft/${kind}-saved-by-pyreft`]),
];
