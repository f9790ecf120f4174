"""Random decoders and clips, and activation patching with plain forward hooks, which every engine is held against."""

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from voicepatch.engine import textbook as textbook_recipe
from voicepatch.models.speech_lm import PLACEHOLDER_ID, ClipInput

HIDDEN = 32


def make_llm(n_layers: int = 4, seed: int = 0, sliding_window: int | None = None) -> Qwen3ForCausalLM:
    """A random Qwen3 whose weights are large enough for every layer to matter.

    With a `sliding_window`, blocks 1 and 3 attend to so many positions only.
    """
    torch.manual_seed(seed)
    types = ["sliding_attention" if layer % 2 else "full_attention" for layer in range(n_layers)]
    window = (
        {"use_sliding_window": True, "sliding_window": sliding_window, "layer_types": types} if sliding_window else {}
    )
    config = Qwen3Config(
        vocab_size=50,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        **window,
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


def hooked(llm, embeds):
    """Last logits `[vocabulary]` and every block's output, read with plain hooks."""
    outputs = []
    with torch.inference_mode(), textbook_recipe.hooked(llm, lambda layer, stream: outputs.append(stream)):
        logits = llm(inputs_embeds=embeds, use_cache=False).logits[0, -1]
    return logits, outputs


def textbook(llm, pair, layers, alpha=1.0):
    """`[1 + n_layers, vocabulary]`: A's own readout, then A patched with B's span at each of `layers`."""
    embed_a, embed_b = (lambda clip=clip: clip.inputs_embeds for clip in (pair.a, pair.b))
    return textbook_recipe.textbook(llm, embed_a, embed_b, pair.a_span, pair.b_span, layers, alpha)


def by_hooks(llm, clip, *writes):
    """Last logits `[vocabulary]` of a clip's run with `write(value)` called on the tensor at (layer, path, end).

    `write` changes the tensor in place or gives another one.
    """

    def first(whole):
        return whole[0] if isinstance(whole, tuple) else whole

    def out(write):
        def hook(module, args, output):
            value = first(output).clone()
            value = value if (new := write(value)) is None else new
            return (value, *output[1:]) if isinstance(output, tuple) else value

        return hook

    def into(write):
        def hook(module, args, kwargs):
            name = None if args else next(iter(kwargs))
            value = (args[0] if args else kwargs[name]).clone()
            value = value if (new := write(value)) is None else new
            return ((value, *args[1:]), kwargs) if args else (args, {**kwargs, name: value})

        return hook

    handles = []
    for layer, path, end, write in writes:
        module = llm.model.layers[layer].get_submodule(path)
        if end == "output":
            handles.append(module.register_forward_hook(out(write)))
        else:
            handles.append(module.register_forward_pre_hook(into(write), with_kwargs=True))
    with torch.inference_mode():
        logits = llm(inputs_embeds=clip.inputs_embeds.clone(), use_cache=False, logits_to_keep=1).logits[0, -1]
    for handle in handles:
        handle.remove()
    return logits


def value_at(llm, clip, layer, path, end):
    """The value there in the clip's own run, `[1, T, width]`."""
    found = []
    by_hooks(llm, clip, (layer, path, end, lambda value: found.append(value.clone())))
    return found[0]
