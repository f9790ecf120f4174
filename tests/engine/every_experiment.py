"""What every experiment can be run with on a toy decoder: options, and pairs with all that a pair may have."""

from dataclasses import replace

from tests.engine.decoders import make_clip
from voicepatch.engine.pair_input import align

# What each experiment is run with, beside its defaults.
OPTIONS = {
    "all-but": [{"head": head} for head in (0, 3, "mlp")],
    "attribution": [{"head": head} for head in (0, 3, "mlp")],
    "direct": [{"head": head} for head in (1, "mlp", "embeddings")],
    "heads": [{"head": head} for head in range(4)],
    "knockout": [{"k": 2, "readers": readers} for readers in ("after", "last")],
    "patch": [{"alpha": 0.4, "at": at} for at in ("span", "after", "question", "last")],
    "reads": [{"k": 2, "readers": readers} for readers in ("after", "last")],
    "tokens": [{"token": token} for token in range(4)],
    "timeline": [{"part": part, "slices": 3} for part in range(3)],
    "window": [{"k": 2}, {"k": 3, "alpha": 0.5}],
}


def options_of(experiment):
    """The options that an experiment is run with."""
    doses = [{"alpha": 1.0}, {"alpha": 0.4}] if "alpha" in experiment.options else [{}]
    return OPTIONS.get(experiment.name, doses)


def pairs_of(name):
    """A pair with the longer donor, and one with the longer recipient."""
    clips = [make_clip(length, seed) for seed, length in enumerate((5, 7, 9))]
    for a, b in ((0, 1), (2, 1)):
        pair = align(clips[a], clips[a if name == "self" else b])
        yield replace(
            pair, seed="1", target_clips=lambda: clips, label_ids={"sad": 3, "happy": 7}, question=slice(-3, -1)
        )


def moved(pair, *to):
    """The same pair with its embeddings on a device, or in a dtype; its ids stay on the processor, as in a run."""
    made = {}

    def of(clip):
        return made.setdefault(clip, replace(clip, inputs_embeds=clip.inputs_embeds.to(*to)))

    clips = pair.target_clips()
    return replace(pair, a=of(pair.a), b=of(pair.b), target_clips=lambda: [of(clip) for clip in clips])
