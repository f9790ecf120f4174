"""Random decoders and clips, and activation patching with plain forward hooks, which both engines are held against."""

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from models.opens2s_io import PLACEHOLDER_ID, ClipInput

HIDDEN = 32


def make_llm(n_layers: int = 4, seed: int = 0) -> Qwen3ForCausalLM:
    """A random Qwen3 whose weights are large enough for every layer to matter."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=50,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    llm = Qwen3ForCausalLM(config).eval().requires_grad_(False)
    for parameter in llm.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.3)
    return llm


def make_clip(n_audio: int, seed: int, before: int = 3, after: int = 4) -> ClipInput:
    """A clip of random frames in a prompt that is the same for every clip."""
    torch.manual_seed(1234)
    text = torch.randn(before + after, HIDDEN)
    torch.manual_seed(seed)
    embeds = torch.cat([text[:before], torch.randn(n_audio, HIDDEN), text[before:]])
    ids = torch.tensor([*range(before), *[PLACEHOLDER_ID] * n_audio, *range(before, before + after)])
    return ClipInput(embeds[None], ids, torch.arange(before, before + n_audio))


def hooked(llm, embeds, layer=None, span=None, value=None, alpha=1.0):
    """Last logits `[vocabulary]` and every block's output, with `value` mixed into the output of `layer` at `span`."""
    outputs = []

    def hook(index):
        def write_and_record(module, args, output):
            if index == layer:
                output = output.clone()
                output[:, span] = (1 - alpha) * output[:, span] + alpha * value
            outputs.append(output)
            return output

        return write_and_record

    handles = [block.register_forward_hook(hook(i)) for i, block in enumerate(llm.model.layers)]
    try:
        with torch.inference_mode():
            logits = llm(inputs_embeds=embeds, use_cache=False).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()
    return logits, outputs


def textbook(llm, pair, layers, alpha=1.0):
    """`[1 + n_layers, vocabulary]`: A's own readout, then A patched with B's span at each of `layers`."""
    _, donor = hooked(llm, pair.b.inputs_embeds)
    rows = [hooked(llm, pair.a.inputs_embeds)[0]]
    for layer in layers:
        value = donor[layer][:, pair.b_span]
        rows.append(hooked(llm, pair.a.inputs_embeds, layer, pair.a_span, value, alpha)[0])
    return torch.stack(rows)
