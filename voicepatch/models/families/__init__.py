"""The families that can be studied, and how a checkpoint's is recognised. No torch here.

    family = family_of(read_config(folder))         # or UserError, with the families that there are
    model = family.load(folder, "cpu", "float32")

Each file beside this one declares a built-in family; `python cli.py models` lists all of them.
"""

from importlib import import_module
from pkgutil import iter_modules

from voicepatch.errors import UserError
from voicepatch.models.family import Config, Family, declared_families

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)

PER_LAYER = (
    "its per-layer inputs bring A's sound in again at every block, so writing B's residual stream at one of them does "
    "not give A's later blocks B's sound"
)
REFUSED = {
    "gemma3n": f"Gemma 3n: {PER_LAYER}",
    "gemma4": f"Gemma 4 E2B and E4B: {PER_LAYER}",
    "phi4mm": "Its layout needs code from the checkpoint, which is not run. Take transformers' own layout, revision "
    "refs/pr/70, which --model microsoft/Phi-4-multimodal-instruct fetches",
}


def family_of(config: Config) -> Family:
    """The family of a checkpoint by its `config.json`; `UserError` for one that is unknown or cannot be exact."""
    model_type, families = config.get("model_type"), declared_families()
    found = [family for family in families if isinstance(model_type, str) and model_type in family.model_types]
    found = found or [family for family in families if family.recognises and family.recognises(config)]
    if len(found) > 1:
        both = " and ".join(f"{family.name} ({family.where})" for family in found)
        raise UserError(f"config.json is recognised by {both}; change recognises= of one of them")
    if found:
        return found[0]
    if isinstance(model_type, str) and model_type in REFUSED:
        raise UserError(f"config.json: model_type {model_type!r} cannot be studied here. {REFUSED[model_type]}")
    known = ", ".join(family.name for family in families)
    raise UserError(
        f"config.json: model_type {str(model_type)[:40]!r} is of no known family ({known}); `python cli.py models` "
        "lists them, and --plugin adds another one (docs/models.md)"
    )
