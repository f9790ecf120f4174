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
from typing import Annotated, Any, Literal, get_args, get_origin

from msgspec import Meta, Struct, structs

from voicepatch.audio.limits import MAX_SECONDS
from voicepatch.paths import DEMO_DATA, DEMO_MODEL
from voicepatch.types.record import Kind
from voicepatch.types.setting import (
    BY,
    COLUMNS,
    LAYERS,
    MODEL,
    TASK,
    WHERE,
    Device,
    Distance,
    Natural,
    Positive,
    Setting,
    Share,
    path,
    without_none,
)
from voicepatch.types.task import Task

Alignment = Literal["truncate_to_min", "resample_linear"]
Engine = Literal["auto", "tail", "sweep", "stepwise"]
ALIGNMENTS, ENGINES = get_args(Alignment), get_args(Engine)
IDENTITY = {"recorded": True, "compared": True}  # a run with another value is another run


class Settings(Struct, frozen=True):
    """What an experiment runs with.

    `layers` is None for all layers. `options` are the experiment's own: one value, several, or `ALL`. None stands for
    a value that is found when the model is loaded.
    """

    kind: Annotated[Kind, Setting("What differs between A and B.", **IDENTITY)] = "prosody"
    model: Annotated[
        str, Setting("Checkpoint folder, or OWNER/NAME of a Hugging Face repository.", MODEL, default_text="the demo's")
    ] = str(DEMO_MODEL)
    base: Annotated[
        str | None,
        Setting(
            "Base model of an adapter (LoRA) that --model names: its folder, or OWNER/NAME.",
            MODEL,
            default_text="what its adapter_config.json names",
        ),
    ] = None
    data: Annotated[
        Path,
        Setting(
            "Manifest (.csv, .jsonl), folder of clips, Hugging Face data set, or a corpus that `corpora` lists.",
            path(),
            default_text="the demo's",
        ),
    ] = DEMO_DATA
    columns: Annotated[
        tuple[tuple[str, str], ...],
        Setting(
            "What the data call a column of a manifest, for example text=transcription,prosody_label=emotion.",
            COLUMNS,
            default_text="as in a manifest",
        ),
    ] = ()
    task: Annotated[
        Task | None,
        Setting("The question and its labels: a task of the program, or a .yaml file.", TASK, default_text="emotion"),
    ] = None
    texts: Annotated[
        Path | None,
        Setting(
            "CSV file with text_id, the task's column of the words (semantic_label) and optionally text, text_type; it "
            "takes precedence over the data's labels.",
            path(may_be_folder=False),
        ),
    ] = None
    out: Annotated[
        Path | None, Setting("Run directory.", path(may_be_file=False), default_text="results/MODEL--DATA, and --TASK")
    ] = None
    where: Annotated[
        tuple[str, ...],
        Setting(
            "Keep only clips with one of these values in a column of the data; with a. or b., only pairs whose A or B "
            "has one. Repeatable: all conditions must hold.",
            WHERE,
            inherited="by all",
            default_text="all",
            **IDENTITY,
        ),
    ] = ()
    only: Annotated[
        Literal["all", "answered"],
        Setting(
            "answered: only pairs in which A and B, unpatched, each answer with their own label of the factor that "
            "differs. It is another run, in a folder of its own.",
            inherited="by all",
            **IDENTITY,
        ),
    ] = "all"
    max_pairs: Annotated[
        Positive,
        Setting("Maximum number of pairs.", stored="max_pairs_{kind}", inherited="by all", **IDENTITY),
    ] = 100
    seed: Annotated[
        Natural,
        Setting(
            "Seed for drawing the pairs and their direction.",
            stored="pair_sampling_seed",
            inherited="by all",
            **IDENTITY,
        ),
    ] = 42
    same_speaker: Annotated[
        bool,
        Setting(
            "Whether A and B must have the same speaker, if the data name speakers.",
            inherited="by all",
            off_flag="--any-speaker",
            default_text="same-speaker, unless the task says otherwise",
            **IDENTITY,
        ),
    ] = True
    both_directions: Annotated[
        bool, Setting("Run each pair in both directions, A to B and B to A.", inherited="by all", **IDENTITY)
    ] = False
    max_acoustic_distance: Annotated[
        Distance,
        Setting(
            "Keep only pairs whose clips differ by at most this in pitch, level, length and spectrum, in sd of the "
            "data's clips; 0 keeps all.",
            inherited="by all",
            **IDENTITY,
        ),
    ] = 0.0
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
        Alignment,
        Setting(
            "Alignment of spans of unequal length: cut to the shorter one, or B's interpolated to A's length.",
            inherited="by controls",
            **IDENTITY,
        ),
    ] = "truncate_to_min"
    device: Annotated[
        Device | None,
        Setting(
            "cpu, cuda, cuda:N, or several CUDA devices for one model: cuda:0,cuda:1.",
            default_text="cuda if available",
            **IDENTITY,
        ),
    ] = None
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        Setting(
            "Number type of the model.",
            inherited="by controls",
            default_text="bfloat16 on cuda, float32 on cpu",
            **IDENTITY,
        ),
    ] = None
    random_weights: Annotated[
        bool,
        Setting(
            "Random weights, drawn with --seed, in the checkpoint's architecture: a negative control of the method. It "
            "is another run, in a folder of its own."
        ),
    ] = False
    engine: Annotated[
        Engine,
        Setting(
            "tail: only positions that a patch can change; sweep: all layers in one trace; stepwise: one trace a "
            "layer; auto: the fastest exact one. The results are the same.",
            **IDENTITY,
        ),
    ] = "auto"
    max_rows: Annotated[
        Positive | None,
        Setting(
            "Maximum number of patched rows in one trace; fewer need less memory.",
            default_text="a row for every layer",
        ),
    ] = None
    store_mb: Annotated[
        Natural | None,
        Setting("MiB of the device's memory for recorded clips.", default_text="half of the free memory"),
    ] = None
    on_bad_clip: Annotated[
        Literal["stop", "skip"],
        Setting(
            "Whether an unreadable clip stops the run, or its pairs are left out and listed.",
            recorded=True,
        ),
    ] = "stop"
    max_seconds: Annotated[Positive, Setting("Maximum length; a longer clip counts as unreadable.", recorded=True)] = (
        MAX_SECONDS
    )
    max_failed: Annotated[
        Share,
        Setting("Maximum share of pairs with non-finite numbers; with more the run stops.", recorded=True),
    ] = 0.01
    overwrite: Annotated[bool, Setting("Run a finished experiment again; the old files are moved aside.")] = False
    pairs_in_report: Annotated[
        Positive | Literal["all"] | None,
        Setting(
            "Number of pairs of each experiment that report.html shows, drawn at random; all makes it large.",
            default_text="up to 500",
        ),
    ] = None
    need: Annotated[
        bool,
        Setting(
            "Whether a knock-out of the attention to A's span follows, which shows until which layer it is needed.",
            off_flag="--no-need",
        ),
    ] = True
    by: Annotated[
        tuple[str, ...],
        Setting(
            "Also show the metrics by a column of the data, such as speaker; with a. or b., by its value for A or B. "
            "Repeatable.",
            BY,
            recorded=True,
            default_text="text_type, if the data have it",
        ),
    ] = ()
    figures: Annotated[
        bool,
        Setting(
            "Whether tables, figures and the report follow; `report` makes them later.",
            off_flag="--no-figures",
        ),
    ] = True
    workers: Annotated[
        Annotated[int, Meta(ge=0, le=1000)] | Literal["auto"] | None,
        Setting(
            "Number of worker processes, each with the model; auto is one for each GPU, or for each core. Needs Ray.",
            default_text="0, this process alone; auto with --ray",
        ),
    ] = None
    ray: Annotated[str | None, Setting("Address of a running Ray cluster, HOST:PORT, or auto to find it.")] = None
    options: Mapping[str, Any] = {}

    @property
    def skip_bad_clips(self) -> bool:
        return self.on_bad_clip == "skip"

    def recorded(self) -> dict[str, Any]:
        """The values that a run stores, by their stored names, as far as they are known before the model is loaded."""
        values = {stored_name(name, self.kind): getattr(self, name) for name, one in DECLARED.items() if one.recorded}
        known = {name: value for name, value in values.items() if value not in (None, "auto")}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}


def _declared() -> dict[str, Setting]:
    found = {}
    for field in structs.fields(Settings):
        if get_origin(field.type) is Annotated:
            kind, *limits, setting = get_args(field.type)
            annotation = without_none(Annotated[kind, *limits] if limits else kind)
            found[field.name] = replace(setting, name=field.name, default=field.default, annotation=annotation)
    return found


DECLARED = _declared()


def stored_name(name: str, kind: str) -> str:
    """A setting's name in patching_config.json and in the settings file."""
    return (DECLARED[name].stored or name).format(kind=kind)


def not_compared() -> list[str]:
    """The stored names of the settings that may differ between two parts of one run."""
    return [one.stored or one.name for one in DECLARED.values() if one.recorded and not one.compared]
