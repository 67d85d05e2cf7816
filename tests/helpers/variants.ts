// The small models of tests/fixtures/models, each a configuration over one set of weights, with what transformers
// computes.

import { readFileSync } from 'node:fs';
import { memorySource } from '../../src/io/byteSource.js';
import { openSafetensors, writeSafetensors, type SafetensorsEntry } from '../../src/io/safetensors.js';
import { loadCausalLM, openCheckpoint, type FromPretrainedOptions } from '../../src/models/auto.js';
import type { CausalLM } from '../../src/models/causalLM.js';

const folder = new URL('../fixtures/models/', import.meta.url);
const described = JSON.parse(readFileSync(new URL('variants.json', folder), 'utf8')) as {
  ids: number[];
  variants: Record<string, { config: Record<string, unknown>; greedy: number[] }>;
};
const stored = await openSafetensors(
  memorySource(readFileSync(new URL('variants.safetensors', folder)), 'variants.safetensors'),
);

export const variantIds = Int32Array.from(described.ids);
export const variantNames = Object.keys(described.variants);
export const variantConfig = (name: string): Record<string, unknown> => described.variants[name].config;
export const variantGreedy = (name: string): readonly number[] => described.variants[name].greedy;
export const variantLogits = (name: string): Promise<Float32Array> => stored.readFloat32(`logits.${name}`);

/** The weights, in f32; the biases that a configuration has no place for are left out. */
export async function variantEntries(config: Record<string, unknown>): Promise<SafetensorsEntry[]> {
  const qwen2 = config['model_type'] === 'qwen2';
  const has = (tensor: string): boolean =>
    !tensor.endsWith('.bias') ||
    (tensor.includes('mlp')
      ? config['mlp_bias'] === true
      : tensor.includes('o_proj')
        ? config['attention_bias'] === true
        : qwen2 || config['attention_bias'] === true);
  const entries: SafetensorsEntry[] = [];
  for (const { name, shape } of stored.tensors.values()) {
    const tensor = name.replace(/^weights\./, '');
    if (tensor !== name && has(tensor))
      entries.push({ name: tensor, dtype: 'F32', shape: [...shape], data: await stored.readFloat32(name) });
  }
  return entries;
}

/** A variant with its configuration, or the same with other settings. */
export async function variantModel(
  name: string,
  settings: Record<string, unknown> = {},
  options: FromPretrainedOptions = { dtype: 'f64' },
): Promise<CausalLM> {
  const config = { ...variantConfig(name), ...settings };
  const checkpoint = await openCheckpoint(
    memorySource(writeSafetensors(await variantEntries(config)), `${name}.safetensors`),
    config,
  );
  return loadCausalLM(checkpoint, options);
}
