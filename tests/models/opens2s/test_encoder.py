"""OpenS2S has the shapes and names of the published model, and encodes sound as that does."""

import re

import pytest
import torch

from tests.models.opens2s.loading import NEEDED, WINDOW
from voicepatch.models.mel import log_mel
from voicepatch.models.opens2s import AudioAdapter, OpenS2S, OpenS2SConfig, audio_length

# --- the real size


@pytest.fixture(scope="module")
def real_size():
    """OpenS2S as published, without memory for its weights."""
    config = {
        "audio_encoder_config": {
            "model_type": "qwen2_audio_encoder",
            "d_model": 1280,
            "encoder_layers": 32,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "num_mel_bins": 128,
            "max_source_positions": 1500,
        },
        "llm_config": {
            "model_type": "qwen3",
            "hidden_size": 4096,
            "num_hidden_layers": 36,
            "intermediate_size": 12288,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "rope_theta": 1000000,
        },
        "conv_kernel_sizes": "5,5",
        "adapter_inner_dim": 512,
        "lora_config": None,
    }
    with torch.device("meta"):
        return OpenS2S(OpenS2SConfig.from_checkpoint(config))


def test_tensors_have_the_shapes_of_the_real_model(real_size):
    shapes = {name: tuple(tensor.shape) for name, tensor in real_size.state_dict().items()}
    expected = {
        "audio_encoder_model.conv1.weight": (1280, 128, 3),
        "audio_encoder_model.conv2.weight": (1280, 1280, 3),
        "audio_encoder_model.embed_positions.weight": (1500, 1280),
        "audio_encoder_model.layers.31.fc1.weight": (5120, 1280),
        "audio_encoder_model.layers.31.self_attn.q_proj.weight": (1280, 1280),
        "audio_adapter.subsampler.conv_layers.0.weight": (2 * 1280, 1280, 5),
        "audio_adapter.subsampler.conv_layers.1.weight": (2 * 4096, 1280, 5),
        "audio_adapter.fc1.weight": (512, 4096),
        "audio_adapter.fc2.weight": (4096, 512),
        "audio_adapter.ln.bias": (4096,),
        "llm_model.model.embed_tokens.weight": (151936, 4096),
        "llm_model.lm_head.weight": (151936, 4096),
        "llm_model.model.layers.35.self_attn.q_proj.weight": (32 * 128, 4096),
        "llm_model.model.layers.35.self_attn.k_proj.weight": (8 * 128, 4096),
        "llm_model.model.layers.35.self_attn.q_norm.weight": (128,),
        "llm_model.model.layers.35.mlp.gate_proj.weight": (12288, 4096),
        "llm_model.model.layers.35.mlp.down_proj.weight": (4096, 12288),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert sum(p.numel() for p in real_size.llm_model.parameters()) == 8_190_735_360  # Qwen3-8B


def test_tensors_have_the_names_of_the_published_code(real_size, checkpoint):
    def pattern(names):
        return {re.sub(r"\.layers\.\d+\.", ".layers.N.", name) for name in names if name.startswith(NEEDED)}

    assert pattern(real_size.state_dict()) == pattern(checkpoint.tensors)
    assert not any(name.startswith(("tts_lm_model", "llm2tts", "llm_ln")) for name in real_size.state_dict())


def test_depth_and_window_are_those_of_the_real_model(real_size):
    assert real_size.n_layers == len(real_size.llm_model.model.layers) == 36
    assert len(real_size.audio_encoder_model.layers) == 32
    assert real_size.window_frames == WINDOW


# --- from mel to frames


def test_the_adapter_uses_the_exact_gelu():
    """The tanh approximation is off by up to 5e-4, which the golden checkpoint's small weights hide."""
    adapter = AudioAdapter(d_model=4, hidden=8, inner=256, kernel_sizes=[5]).double()
    torch.nn.init.uniform_(adapter.fc1.weight, -4, 4)
    seen = []
    adapter.fc1.register_forward_hook(lambda module, args, output: seen.append(output))
    adapter.fc2.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    adapter(torch.randn(1, 20, 4, dtype=torch.float64))
    before, after = seen
    torch.testing.assert_close(after, before * (1 + torch.erf(before / 2**0.5)) / 2, rtol=0, atol=1e-9)


@pytest.fixture
def mel():
    """Three windows of noise; no two frames alike."""
    return torch.randn(128, 3 * WINDOW, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("seconds", "positions"), [(1, 7), (2, 13), (3, 19), (5, 32), (10, 63), (30, 188), (60, 375)])
def test_a_clip_takes_six_and_a_quarter_positions_a_second(model, mel, seconds, positions):
    assert audio_length(100 * seconds, WINDOW, 2) == positions
    assert model.encode(mel, 100 * seconds).shape == (positions, 48)


@pytest.mark.parametrize("n_frames", [3, 4, 5, 6, 7, 8, 101, 2999, 3001, 3002, 3003, 5999, 6001, 9000])
def test_the_length_is_predicted_for_odd_numbers_of_frames_too(model, mel, n_frames):
    assert len(model.encode(mel, n_frames)) == audio_length(n_frames, WINDOW, 2)


@pytest.mark.parametrize(("seconds", "encoder_positions"), [(35, 750 + 125), (60, 750 + 750), (65, 1500 + 125)])
def test_a_long_clip_is_its_windows_encoded_apart_joined_and_cut(model, mel, seconds, encoder_positions):
    windows = [model.audio_encoder_model(window[None]).last_hidden_state for window in mel.split(WINDOW, dim=1)]
    expected = model.audio_adapter(torch.cat(windows, dim=1)[:, :encoder_positions])[0]
    torch.testing.assert_close(model.encode(mel, 100 * seconds), expected, rtol=0, atol=1e-6)


def test_windows_without_sound_are_skipped(model, mel):
    windows = []
    hook = model.audio_encoder_model.register_forward_hook(lambda *call: windows.append(call))
    frames = model.encode(mel, 300)
    hook.remove()
    assert len(windows) == 1
    assert torch.equal(frames, model.encode(mel[:, :WINDOW], 300))


def test_the_padding_of_the_last_window_is_attended_to(model, mel):
    """OpenS2S gives its encoder no attention mask."""
    other = mel[:, :WINDOW].clone()
    other[:, 2000:] = 0
    assert not torch.allclose(model.encode(other, 300), model.encode(mel[:, :WINDOW], 300), atol=1e-4)


def test_the_frames_of_a_clip_do_not_depend_on_the_clips_before_it(model, io, noise):
    alone = model.encode(*log_mel(io.extractor, noise(16_000, seed=1)))
    model.encode(*log_mel(io.extractor, noise(80_000, seed=2)))
    assert torch.equal(model.encode(*log_mel(io.extractor, noise(16_000, seed=1))), alone)
