// Keys of a config.json that are no part of DecoderConfig: those that never change what a forward pass computes, in
// groups that say why, and those that do unless they have a neutral value. A key that is neither read nor here is
// refused by name.

import { FormatError } from '../io/errors.js';

/**
 * Keys that may be ignored, by the reason. Keys that begin with `_` are transformers' own notes and may be ignored,
 * too.
 */
const ignored: Readonly<Record<string, string>> = {
  'who wrote the file, and for what class': `
    architectures auto_map name_or_path transformers_version unsloth_version unsloth_fixed is_llama_config
    model_name license tags transformers.js_config tokenizer_class processor_class custom_pipelines
    base_model_name_or_path fine_tuned_from
  `,
  'how weights are held in memory and read, not what they are': `
    torch_dtype dtype use_bfloat16 torchscript low_cpu_mem_usage tie_encoder_decoder
  `,
  'how a forward pass is carried out': `
    deterministic_flash_attn reference_compile repad_logits_with_grad
    use_cache pretraining_tp chunk_size_feed_forward attn_implementation use_flash_attn use_flash_attention
    use_flash_attention_2 use_sdpa use_memory_efficient_attention use_xformers onnx use_fused_rms_norm use_fused_mlp
    use_fused_rope use_liger_kernel reorder_and_upcast_attn attention_implementation is_decoder cross_attention_hidden_size
  `,
  'what a forward pass returns': `
    return_dict use_return_dict output_attentions output_hidden_states output_scores return_dict_in_generate output_past
  `,
  'training only': `
    initializer_range attention_dropout attn_dropout attn_pdrop embd_pdrop resid_pdrop hidden_dropout
    hidden_dropout_prob mlp_dropout dropout attention_probs_dropout_prob classifier_dropout summary_first_dropout
    gradient_checkpointing use_gradient_checkpointing tf_legacy_loss label_smoothing neftune_noise_alpha
    router_aux_loss_coef output_router_logits recompute embedding_dropout initializer_cutoff_factor initializer_factor
    sparse_prediction sparse_pred_ignore_index init_std layerdrop hidden_dropout_rate activation_dropout
    dropout_rate encoder_layerdrop decoder_layerdrop classifier_dropout_prob
    classif_dropout initializer_factor apply_spec_augment mask_time_prob mask_time_length mask_time_min_masks
    mask_feature_prob mask_feature_length mask_feature_min_masks
  `,
  'how first weights were drawn, and which of several ways computes the same': `
    time_step_init_scheme time_step_max time_step_min time_step_floor time_step_scale rescale_prenorm_residual
    use_associative_scan use_mambapy residual_in_fp32
  `,
  'heads of other tasks': `
    id2label label2id num_labels problem_type finetuning_task task_specific_params prefix summary_type
    summary_use_proj summary_activation summary_proj_to_labels
  `,
  'generation, which generation_config.json and its caller decide': `
    max_length min_length max_new_tokens do_sample early_stopping temperature top_k top_p min_p typical_p
    repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size num_beams num_beam_groups
    diversity_penalty bad_words_ids suppress_tokens begin_suppress_tokens forced_bos_token_id forced_eos_token_id
    num_return_sequences remove_invalid_values exponential_decay_length_penalty generation_config penalty_alpha
    cache_implementation
  `,
  'the tokenizer': `
    sep_token_id unk_token_id cls_token_id mask_token_id decoder_start_token_id model_max_length
    tokenizer_model_max_length tokenizer_padding_side padding_side pad_token bos_token eos_token unk_token
    chat_template add_bos_token add_eos_token
  `,
  'lengths that files of before max_position_embeddings have beside it': `
    max_sequence_length max_seq_len seq_length max_seq_length n_ctx
  `,
};

const mayBeIgnored = new Set(Object.values(ignored).join(' ').trim().split(/\s+/));

/** Keys that change the computation, with the value that does not. */
const neutral: Readonly<Record<string, unknown>> = {
  is_encoder_decoder: false,
  add_cross_attention: false,
  partial_rotary_factor: 1,
  rope_interleaved: false,
  use_mrope: false,
  use_qk_norm: false,
  qk_norm: false,
  no_rope: false,
  pruned_heads: {},
  rope_ratio: 1,
  embedding_multiplier: 1,
  residual_multiplier: 1,
  logits_scaling: 1,
  attn_output_gate: false,
  is_causal: true,
  use_bidirectional_attention: false,
  num_experts: 0,
  num_local_experts: 0,
};

/**
 * Refuses keys that are neither in `read` nor known to change nothing. A key without a value, null, stands for nothing.
 * @throws FormatError naming each of them
 */
export function checkKeys(config: Readonly<Record<string, unknown>>, read: ReadonlySet<string>, source: string): void {
  const strange = Object.entries(config).filter(([key, value]) => {
    if (value === null || read.has(key) || mayBeIgnored.has(key) || key.startsWith('_')) return false;
    return !(Object.hasOwn(neutral, key) && JSON.stringify(value) === JSON.stringify(neutral[key]));
  });
  if (strange.length === 0) return;
  const listed = strange
    .slice(0, 5)
    .map(([key, value]) => `${JSON.stringify(key).slice(0, 60)}: ${JSON.stringify(value).slice(0, 40)}`)
    .join(', ');
  const them = strange.length > 1 ? 'them' : 'it';
  throw new FormatError(
    source,
    `${listed}: not understood, and may change what the model computes; delete ${them} if not`,
  );
}
