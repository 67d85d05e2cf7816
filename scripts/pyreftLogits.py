"""Runs edits in pyreft's own classes, for scripts/checkPyreft.ts.

    python pyreftLogits.py cases.json logits.json

cases.json: { model, ids, cases: [{ name, folder, positions: one list of rows for each intervention, activation }] }. Each class is built with dtype
float32 and add_bias as saved, its .bin is loaded by load_state_dict, and the edited rows go through its forward in hooks on the blocks' outputs.
"""
import json
import os
import sys

import safetensors.torch
import torch
import transformers
from pyreft import interventions as pyreft_classes

cases_path, out_path = sys.argv[1:]
spec = json.load(open(cases_path))
torch.manual_seed(0)
config = transformers.AutoConfig.from_pretrained(spec["model"], attn_implementation="eager")
model = transformers.AutoModelForCausalLM.from_config(config, torch_dtype=torch.float32).eval()
missing, unexpected = model.load_state_dict(safetensors.torch.load_file(os.path.join(spec["model"], "model.safetensors")), strict=False)
assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
model.tie_weights()
ids = torch.tensor([spec["ids"]])


def build(type_name, dimension, rank, activation, state):
    cls = getattr(pyreft_classes, type_name.split(".")[-1].split("'")[0])
    made = cls(embed_dim=dimension, low_rank_dimension=rank, dtype=torch.float32, act_fn=activation, add_bias="proj_layer.bias" in state)
    made.load_state_dict(state)
    return made.eval()


def logits(edits):
    """edits: (layer, rows, intervention), applied in order."""
    hooks = []
    for layer, rows, intervention in edits:
        def edit(_module, _inputs, output, rows=rows, intervention=intervention):
            hidden = output[0].clone()
            hidden[0, rows] = intervention(hidden[0, rows])
            return (hidden,) + output[1:]
        hooks.append(model.model.layers[layer].register_forward_hook(edit))
    try:
        with torch.no_grad():
            return model(ids).logits.flatten().tolist()
    finally:
        for hook in hooks:
            hook.remove()


result = {"base": logits([])}
for case in spec["cases"]:
    config = json.load(open(os.path.join(case["folder"], "config.json")))
    edits = []
    for i, key in enumerate(config["sorted_keys"]):
        state = torch.load(os.path.join(case["folder"], f"intkey_{key}.bin"), weights_only=True)
        layer, component, _unit, _units, rank = config["representations"][i][:5]
        assert component == "block_output", component
        made = build(config["intervention_types"][i], config["intervention_dimensions"][i], rank, case["activation"], state)
        edits.append((layer, case["positions"][i], made))
    result[case["name"]] = logits(edits)
json.dump(result, open(out_path, "w"))
