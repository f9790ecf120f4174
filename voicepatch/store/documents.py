"""What each file of a run that is one JSON object holds, declared once, for writing and reading.

    DOCUMENTS["sanity_check_sounds.json"]

As in `types.record`, no other key may be there. A key of type `UnsetType` is there only where the run has such a thing.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, defstruct

from voicepatch.files import CONFIG
from voicepatch.types.check import Check
from voicepatch.types.dataset import Recognised
from voicepatch.types.properties import Properties
from voicepatch.types.record import Count, Dose, Keys, Kind, Size
from voicepatch.types.settings import DECLARED
from voicepatch.types.task import Task

Seed = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1, le=2**53)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Adapter(Keys):
    sha256: str
    base: str
    base_sha256: str


class Model(Keys):
    name: str
    sha256: str
    n_layers: AtLeastOne
    hidden_size: AtLeastOne
    family: str
    frames_per_second: Size | None
    random_weights: Annotated[int, Meta(ge=0, le=2**63 - 1)] | UnsetType = UNSET
    adapter: Adapter | UnsetType = UNSET


class Data(Keys):
    name: str
    source: str
    sha256: str
    n_clips: Count
    warnings: list[str]
    columns: list[str] | UnsetType = UNSET
    renamed: dict[str, str] | UnsetType = UNSET
    texts: str | UnsetType = UNSET
    corpus: Recognised | UnsetType = UNSET


class Prompt(Keys):
    system: str | None
    user: str
    text: str
    tokens_after: list[str]
    span: str | UnsetType = UNSET
    date: str | UnsetType = UNSET
    orders: list[str] | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET


class RecordedTask(Task, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sha256: str


class LabelTokens(Keys):
    order: list[str]
    token_ids: list[Count]


class Workers(Keys):
    n: AtLeastOne
    hosts: dict[str, Count]
    devices: list[str]
    ray: str


# The recorded settings, with their help as the meaning. Of the others, the model gives the layers, and the kind of pair
# the name of the maximum number.
RecordedSettings = defstruct(
    "RecordedSettings",
    [
        (setting.stored or name, Annotated[setting.annotation, Meta(description=setting.help)])
        for name, setting in DECLARED.items()
        if setting.recorded and name not in ("layers", "max_pairs")
    ],
    bases=(Properties,),
    kw_only=True,
)


class Experiment(RecordedSettings):  # type: ignore[misc,valid-type]
    """One experiment in `patching_config.json`: what it ran with."""

    intervention: Annotated[str, Meta(description="its name, as on the command line")]
    patch_alpha: Annotated[
        Dose | Annotated[list[Dose], Meta(min_length=1)], Meta(description="the dose, or all of a sweep")
    ]
    options: Annotated[dict[str, Any], Meta(description="its other options: a value, or a list of swept values")]
    layers_to_patch: Annotated[list[Count], Meta(min_length=1, description="the patched layers")]
    patch_all_layers: Annotated[bool, Meta(description="whether no layers were left out")]
    versions: Annotated[dict[str, str], Meta(description="of the program (`voicepatch`), Python and the libraries")]
    program_sha256: Annotated[str, Meta(description="of the program's own code")]
    finished: Annotated[bool, Meta(description="whether every pair has its records or is listed as failed")]
    doc: Annotated[str | None, Meta(description="its docstring")]
    code_sha256: Annotated[str, Meta(description="of its code and the files that it imports, without comments")]
    swept: Annotated[list[str], Meta(description="the swept columns of a record, besides `layer`")]
    threads: Annotated[AtLeastOne, Meta(description="processor threads")]
    use_cache: Annotated[bool, Meta(description="of the model's forward; always false")]
    engine_tolerance: Annotated[
        Size, Meta(description="the difference of logits that counts as noise, if logits are 10")
    ]
    near_tie_margin: Annotated[
        Size, Meta(description="the difference of the best two logits below which noise may decide")
    ]
    default_alpha: Annotated[Dose | UnsetType, Meta(description="its default dose, if that is not 1")] = UNSET
    option_files: Annotated[
        dict[str, str] | UnsetType, Meta(description="the sha256 of each file or task that a text option names")
    ] = UNSET
    plugin: Annotated[str | UnsetType, Meta(description="its file, if that is a plugin")] = UNSET
    places: Annotated[
        dict[str, str | list[str]] | UnsetType,
        Meta(description="where `model`, `base`, `task` and `plugins` lay, as far as they were not the program's own"),
    ] = UNSET
    max_pairs_prosody: Annotated[
        AtLeastOne | UnsetType, Meta(description="the maximum number of prosody pairs, if it has those")
    ] = UNSET
    max_pairs_semantic: Annotated[AtLeastOne | UnsetType, Meta(description="the same for semantic pairs")] = UNSET
    n_pairs: Annotated[Count | UnsetType, Meta(description="the number of pairs, if it is finished")] = UNSET
    n_failed: Annotated[Count | UnsetType, Meta(description="the number of failed pairs, if it is finished")] = UNSET
    files_sha256: Annotated[
        str | UnsetType, Meta(description="of its pair list, records and failed pairs, if it is finished")
    ] = UNSET
    workers: Annotated[
        Workers | UnsetType,
        Meta(description="if workers computed it: their number, hosts and devices, and Ray's version"),
    ] = UNSET


class BadClip(Keys):
    clip_id: str
    reason: str


class Answers(Keys):
    """What the answers of a run were computed with. `left_out` are the clips that gave none, once it is `finished`."""

    device: str
    dtype: str
    threads: AtLeastOne
    max_seconds: AtLeastOne
    versions: dict[str, str]
    program_sha256: str
    finished: bool
    left_out: list[BadClip]


class Config(Keys):
    """`patching_config.json`."""

    model: Model
    data: Data
    task: RecordedTask
    prompt: Prompt
    labels: LabelTokens
    experiments: dict[str, Experiment]
    answers: Answers | UnsetType = UNSET


class TokenEntry(Keys):
    text: str
    token_ids: list[Count]
    tokens: list[str]
    id_used: Count
    multi_token: bool


class Collision(Keys):
    found: bool
    labels: list[list[str]]


class Tokenization(Keys):
    labels: dict[str, TokenEntry]
    first_token_collision: Collision
    note: str
    passed: bool
    checks: list[Check]
    orders: list[dict[str, str]] | UnsetType = UNSET


class GroupCount(Keys):
    possible: Count
    sampled: Count


class SkippedGroup(Keys):
    group: str
    n_clips: Count
    reason: str


class Matching(Keys):
    max_acoustic_distance: Size
    tried: Count
    left_out: Count
    without_a_value: Count


class Selected(Keys):
    condition: str
    of: Literal["clips", "pairs"]
    n_all: Count
    n_left: Count


class Tried(Keys):
    tried: Count
    passed: Count
    a_did_not: Count
    b_did_not: Count
    neither_did: Count
    no_answer: Count


class Construction(Keys):
    kind: Kind
    seed: Seed
    max_pairs: AtLeastOne
    same_speaker: bool
    both_directions: bool
    n_clips: Count
    pairs_possible: Count
    pairs_sampled: Count
    n_congruent: Count
    per_group: dict[str, GroupCount]
    per_transition: dict[str, Count]
    groups_skipped: list[SkippedGroup]
    warnings: list[str]
    label_spellings: dict[str, dict[str, dict[str, Count]]]
    data_warnings: list[str]
    matching: Matching | UnsetType = UNSET
    selection: list[Selected] | UnsetType = UNSET
    answered: Tried | UnsetType = UNSET


class SpanRow(Keys):
    clip_id: str
    seconds: Size
    n_input_ids: Count
    span_start: Count
    span_end: Count
    n_audio: Count
    n_audio_expected: Count
    tokens_before: list[str]
    ids_in_span: list[int]
    tokens_after: list[str]
    ok: bool


class Checked(Keys):
    """What every preflight check stores."""

    passed: bool
    checks: list[Check]


class Spans(Checked):
    clips: Annotated[list[SpanRow], Meta(min_length=1)]
    left_out: list[BadClip]
    held_against: str
    span: str | UnsetType = UNSET


class SelfPatch(Checked):
    clips: list[str]
    layers: list[Count]
    n_predictions: Count
    prediction_agreement: Share
    max_abs_delta_logit: Size
    tolerance: Size
    last_layer_max_abs_delta_logit: Size
    embeddings_max_abs_difference_from_donor: Size
    largest_logit: Size


LARGEST_SHARE = 1e9  # of a way between two readouts; far beyond what any model gives


class PlantedLayer(Keys):
    layer: AtLeastOne
    recovered: Size | None
    area: Size | None
    recovered_by_flips: Size | None
    n_answers_apart: Count
    curve: list[Annotated[float, Meta(ge=-LARGEST_SHARE, le=LARGEST_SHARE)]]
    max_abs_logit_difference: Size


class Planted(Checked):
    engine: str
    n_pairs: AtLeastOne
    planted: list[PlantedLayer]


class ModelCheck(Keys):
    passed: bool
    checks: list[Check]
    family: str
    clip: str


class DifferingAnswer(Keys):
    pair_id: str
    row: Count
    stepwise_margin: Size


class EngineCheck(Checked):
    engine: str
    reference: str
    pairs: list[str]
    layers: list[Count]
    n_predictions: Count
    n_differing_predictions: Count
    differing_predictions: list[DifferingAnswer]
    max_abs_logit_difference: Size
    tolerance: Size
    as_written: str | None
    reads_donor: bool
    max_abs_logit_difference_when_repeated: Size
    largest_logit: Size


class SoundCheck(Checked):
    n_clips: Count
    unreadable: list[BadClip]
    silent: list[str]
    seconds_heard: Size | UnsetType = UNSET
    cut: list[str] | UnsetType = UNSET


class Ranking(Keys):
    ranked_by: str
    texts: list[str]
    n_pairs: Count
    best: list[str]
    warnings: list[str]


class InUse(Keys):
    pid: Count
    host: str
    since: str


DOCUMENTS: dict[str, Any] = {
    CONFIG: Config,
    "tokenization_report.json": Tokenization,
    "pair_construction_report.json": dict[Kind, Construction],
    "sanity_check_audio_span.json": Spans,
    "sanity_check_self_patch.json": SelfPatch,
    "sanity_check_model.json": ModelCheck,
    "sanity_check_planted.json": Planted,
    "sanity_check_natural.json": Checked,
    "sanity_check_engine.json": dict[str, EngineCheck],
    "sanity_check_sounds.json": dict[str, SoundCheck],
    "confirm.json": dict[Kind, Ranking],
    "in_use.json": InUse,
}
