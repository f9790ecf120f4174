"""The number of CPU threads that makes a forward fastest.

    n_threads = settle_threads(llm)              # 1 for a small model, all for a large one

Each operation is handed to the threads and waited for. Where operations are small, that takes longer than it saves, and
where another process has a core, waiting for it takes many times as long.
"""

import os
import time

import torch

from voicepatch.models.speech_lm import CausalLM

WORTH = 1.3  # a second thread must make a forward so many times as fast: a close race would be decided by chance
N_POSITIONS = 64


def settle_threads(llm: CausalLM) -> int:
    """Let torch use one thread where all of them are hardly faster, by one measurement; gives the number in use.

    A number that was chosen outside, by OMP_NUM_THREADS, stays; so does that of a model on another device.
    """
    n_threads = torch.get_num_threads()
    if n_threads == 1 or llm.device.type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return n_threads
    torch.set_num_threads(1)
    _forward(llm)
    one = min(_seconds(llm), _seconds(llm))
    torch.set_num_threads(n_threads)
    together = _seconds(llm)
    if together * WORTH > one:  # the threads may have had to be started: once more, unless that is hopeless
        together = min(together, _seconds(llm)) if together < 2 * one else together
    if together * WORTH > one:
        torch.set_num_threads(1)
    return torch.get_num_threads()


def _seconds(llm: CausalLM) -> float:
    start = time.perf_counter()
    _forward(llm)
    return time.perf_counter() - start


def _forward(llm: CausalLM) -> None:
    with torch.inference_mode():
        weight = llm.get_input_embeddings().weight
        llm(inputs_embeds=weight[None, :N_POSITIONS], use_cache=False, logits_to_keep=1)
