"""The settings of a command, each declared once.

    settings = Settings("prosody", max_pairs=20, options={"alpha": (0.5, 1.0)})
    settings.recorded()                  # {"kind": "prosody", "max_pairs_prosody": 20, "pair_sampling_seed": 42, ...}
    DECLARED["max_pairs"].help

The options of the command line and the keys of the settings file are made from these declarations, a run stores the
values under their stored names, controls inherit them from the main experiment, and two runs are compared by them.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

from msgspec import Struct, structs

from voicepatch.audio.limits import MAX_SECONDS
from voicepatch.paths import DEMO_DATA, DEMO_MODEL
from voicepatch.types.pair import KINDS
from voicepatch.types.setting import (
    DEVICE,
    LAYERS,
    MODEL,
    SWITCH,
    TASK,
    TEXT,
    Setting,
    choice,
    number,
    number_or,
    path,
    whole_number,
)
from voicepatch.types.task import Task

ALIGNMENTS = ("truncate_to_min", "resample_linear")
DTYPES = ("float32", "bfloat16", "float16")
ENGINES = ("auto", "tail", "sweep", "stepwise")
MOST_WORKERS = 1000
IDENTITY = {"recorded": True, "compared": True}  # a run with another value is another run


class Settings(Struct, frozen=True):
    """What an experiment runs with.

    `layers` is None for all layers. `options` are the experiment's own: one value, several, or `ALL`. None stands for
    a value that is found when the model is loaded.
    """

    kind: Annotated[str, Setting("What differs between A and B.", choice(*KINDS), **IDENTITY)] = "prosody"
    model: Annotated[
        str, Setting("Checkpoint folder, or OWNER/NAME of a Hugging Face repository.", MODEL, default_text="the demo's")
    ] = str(DEMO_MODEL)
    data: Annotated[
        Path,
        Setting(
            "Manifest (.csv, .jsonl), folder of clips, or a corpus that `corpora` lists.",
            path(),
            default_text="the demo's",
        ),
    ] = DEMO_DATA
    task: Annotated[
        Task | None,
        Setting("The question and its labels: a task of the program, or a .yaml file.", TASK, default_text="emotion"),
    ] = None
    texts: Annotated[
        Path | None,
        Setting(
            "CSV file with text_id, the task's column of the words (semantic_label) and optionally text, text_type; it "
            "wins over the data's own labels.",
            path(may_be_folder=False),
        ),
    ] = None
    out: Annotated[
        Path | None, Setting("Run directory.", path(may_be_file=False), default_text="results/MODEL--DATA, and --TASK")
    ] = None
    max_pairs: Annotated[
        int,
        Setting("Maximum number of pairs.", whole_number(1), stored="max_pairs_{kind}", inherited="by all", **IDENTITY),
    ] = 100
    seed: Annotated[
        int,
        Setting(
            "Seed that draws the pairs and their direction.",
            whole_number(0),
            stored="pair_sampling_seed",
            inherited="by all",
            **IDENTITY,
        ),
    ] = 42
    same_speaker: Annotated[
        bool,
        Setting(
            "Whether A and B must have the same speaker, where the data name one.",
            SWITCH,
            inherited="by all",
            off_flag="--any-speaker",
            default_text="same-speaker, unless the task says otherwise",
            **IDENTITY,
        ),
    ] = True
    both_directions: Annotated[
        bool, Setting("Run each pair in both directions, A to B and B to A.", SWITCH, inherited="by all", **IDENTITY)
    ] = False
    layers: Annotated[
        tuple[int, ...] | None,
        Setting(
            "Layers to patch, for example 20,22,24-30.",
            LAYERS,
            stored="layers_to_patch",
            inherited="by controls",
            default_text="all",
            **IDENTITY,
        ),
    ] = None
    align: Annotated[
        str,
        Setting(
            "How spans of unequal length are aligned: cut to the shorter one, or B's interpolated in time to A's.",
            choice(*ALIGNMENTS),
            inherited="by controls",
            **IDENTITY,
        ),
    ] = ALIGNMENTS[0]
    device: Annotated[
        str | None, Setting("cpu, cuda or cuda:N.", DEVICE, default_text="cuda where there is one", **IDENTITY)
    ] = None
    dtype: Annotated[
        str | None,
        Setting(
            "Number type of the model.",
            choice(*DTYPES),
            inherited="by controls",
            default_text="bfloat16 on cuda, float32 on cpu",
            **IDENTITY,
        ),
    ] = None
    engine: Annotated[
        str,
        Setting(
            "tail: only what a patch can change; sweep: all layers in one trace; stepwise: one trace a layer, the "
            "textbook way. auto is the fastest that is exact. The results are the same.",
            choice(*ENGINES),
            **IDENTITY,
        ),
    ] = "auto"
    max_rows: Annotated[
        int | None,
        Setting(
            "Maximum number of patched rows in one trace; fewer need less memory.",
            whole_number(1),
            default_text="a row for every layer",
        ),
    ] = None
    store_mb: Annotated[
        int | None,
        Setting("MiB of the device's memory for recorded clips.", whole_number(0), default_text="half of what is free"),
    ] = None
    on_bad_clip: Annotated[
        str,
        Setting(
            "A clip that cannot be read stops the run, or its pairs are left out and listed.",
            choice("stop", "skip"),
            recorded=True,
        ),
    ] = "stop"
    max_seconds: Annotated[
        int, Setting("A longer clip counts as one that cannot be read.", whole_number(1), recorded=True)
    ] = MAX_SECONDS
    max_failed: Annotated[
        float,
        Setting(
            "Maximum share of pairs with non-finite numbers, from 0 to 1; with more the run stops.",
            number(0, 1),
            recorded=True,
        ),
    ] = 0.01
    overwrite: Annotated[bool, Setting("Run a finished experiment again; the old files are moved aside.", SWITCH)] = (
        False
    )
    pairs_in_report: Annotated[
        int | str | None,
        Setting(
            "Number of pairs of each experiment that report.html shows, drawn at random; all makes it large.",
            number_or("all", 1),
            default_text="up to 500",
        ),
    ] = None
    workers: Annotated[
        int | str | None,
        Setting(
            "Number of processes that share the pairs, each with the model; auto is one a GPU, else one a core. Needs "
            "Ray.",
            number_or("auto", 0, MOST_WORKERS),
            default_text="0, this process alone; auto with --ray",
        ),
    ] = None
    ray: Annotated[str | None, Setting("Address of a running Ray cluster, HOST:PORT, or auto to find it.", TEXT)] = None
    options: Mapping[str, Any] = {}

    @property
    def skip_bad_clips(self) -> bool:
        return self.on_bad_clip == "skip"

    def recorded(self) -> dict[str, Any]:
        """The values that a run stores, by their stored names, as far as they are known before the model is loaded."""
        values = {stored_name(name, self.kind): getattr(self, name) for name, one in DECLARED.items() if one.recorded}
        return {name: value for name, value in values.items() if value not in (None, "auto")}


def _declared() -> dict[str, Setting]:
    annotated = {field.name: field for field in structs.fields(Settings) if field.name != "options"}
    return {
        name: replace(get_args(field.type)[1], name=name, default=field.default) for name, field in annotated.items()
    }


DECLARED = _declared()


def stored_name(name: str, kind: str) -> str:
    """A setting's name in patching_config.json and in the settings file."""
    return (DECLARED[name].stored or name).format(kind=kind)


def not_compared() -> list[str]:
    """The stored names of the settings that may differ between two parts of one run."""
    return [one.stored or one.name for one in DECLARED.values() if one.recorded and not one.compared]
