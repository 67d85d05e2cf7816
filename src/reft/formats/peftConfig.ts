// The configuration of an adapter of Hugging Face's peft library (LoRA and kin), as far as it can be described. None of
// them can be loaded as edits: they change weights, not hidden states.
// Source: the adapter_config.json that peft 0.21 writes (PeftConfig and LoraConfig).

import { z } from 'zod';

const schema = z.looseObject({
  peft_type: z.string(),
  task_type: z.string().nullish(),
  base_model_name_or_path: z.string().nullish(),
  r: z.number().nullish(),
  lora_alpha: z.number().nullish(),
  use_dora: z.boolean().nullish(),
  use_rslora: z.boolean().nullish(),
  target_modules: z.union([z.string(), z.array(z.string())]).nullish(),
  layers_to_transform: z.union([z.number(), z.array(z.number())]).nullish(),
  modules_to_save: z.array(z.string()).nullish(),
});

export type PeftConfig = z.infer<typeof schema>;

/** What a JSON object says as peft's configuration; null where it is none. */
export function peftConfigOf(json: unknown): PeftConfig | null {
  const parsed = schema.safeParse(json);
  return parsed.success ? parsed.data : null;
}

/** `a LoRA of peft (r 4, q_proj)`. */
export function describePeft({ peft_type: type, r, target_modules: modules }: PeftConfig): string {
  const details = [typeof r === 'number' ? `r ${r}` : '', [modules ?? []].flat().join(', ')].filter(Boolean).join(', ');
  return `a ${type === 'LORA' ? 'LoRA' : `${type} adapter`} of peft${details ? ` (${details})` : ''}`;
}
