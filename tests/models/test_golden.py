"""The published model code and this one compute the same, from the waveform to the logits."""

import pytest
import torch

from voicepatch.models.mel import log_mel
from voicepatch.models.opens2s_io import expand_ids, find_audio_span
from voicepatch.models.speech_lm import joined

pytestmark = pytest.mark.parametrize("clip", ["0", "1"])


def close(ours, published):
    torch.testing.assert_close(ours, published, rtol=0, atol=1e-4)


@pytest.fixture
def frames(clip, golden, model, io):
    return model.encode(*log_mel(io.extractor, golden[f"{clip}.waveform"].numpy()))


def test_the_span_is_where_the_published_code_puts_it(clip, golden, frames):
    span = find_audio_span(expand_ids(golden[f"{clip}.input_ids"], len(frames)))
    first, last = golden[f"{clip}.audio_span"].tolist()
    assert span.tolist() == list(range(first, last + 1))


def test_encoder_and_adapter_hear_the_same(clip, golden, frames):
    first, last = golden[f"{clip}.audio_span"].tolist()
    close(frames, golden[f"{clip}.inputs_embeds"][0, first : last + 1])


@pytest.fixture
def heard(clip, golden, model, frames):
    """The clip as a run of this program joins it."""
    ids = golden[f"{clip}.input_ids"].flatten().tolist()
    place = ids.index(-200)
    embed = lambda ids: model.llm_model.get_input_embeddings()(torch.tensor(ids))  # noqa: E731
    return joined(embed, ids[:place], ids[place + 1 :], frames)


def test_the_decoder_reads_the_same_embeddings(clip, golden, heard):
    close(heard.inputs_embeds, golden[f"{clip}.inputs_embeds"])


def test_every_layer_and_the_readout_agree(clip, golden, model):
    outputs = []

    def keep(module, args, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_hook(keep) for layer in model.llm_model.model.layers]
    logits = model.llm_model(inputs_embeds=golden[f"{clip}.inputs_embeds"], use_cache=False).logits
    for hook in hooks:
        hook.remove()
    assert len(outputs) == model.n_layers == len(golden[f"{clip}.layer_outputs"])
    for layer, published in enumerate(golden[f"{clip}.layer_outputs"]):
        close(outputs[layer], published)
    close(logits[:, -1], golden[f"{clip}.logits_last"])


def test_a_sound_gives_the_published_readout(clip, golden, model, heard):
    """All the way: rounding on the way in must not grow on the way out."""
    close(
        model.llm_model(inputs_embeds=heard.inputs_embeds, use_cache=False).logits[:, -1], golden[f"{clip}.logits_last"]
    )
