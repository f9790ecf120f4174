"""The figures, tables and sentences of one experiment alone, from the module that `@intervention(figures=…)` names.

    own(results, experiment, "charts", results, experiment)          # {"lens_lens-prosody": alt.Chart}

The module may define any of the functions in `EMPTY`; docs/interventions.md shows an example. It is imported when
figures are drawn, never when the experiment runs.
"""

import traceback
from types import ModuleType
from typing import Any

from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.errors import UserError
from voicepatch.registry.catalogue import experiment_figures
from voicepatch.text import escape

# Function of the module -> what a module without it gives.
EMPTY: dict[str, Any] = {
    "charts": {},  # (results, experiment): file stem -> figure
    "tables": {},  # (results, experiment): file stem -> table; `attrs["caption"]` is its caption in the report
    "sentences": [],  # (results, experiment): the results in words, for the methods text
    "simplifications": [],  # (results, experiment): the approximations that were made
    "checks": [],  # (results, experiment): a `Check` each
    "limits": [],  # (): what the experiment does not show
    # (records): the effect in each record, a named series, for a map of cells; attrs["whole"], if it is there, are the
    # effect that 5 % is of, and its name
    "effects": None,
    # (experiment, combinations): how the pair browser draws a map in time of each pair. `combinations` are the names of
    # the swept values, one for each part. Gives slices, the number of parts; parts, the number of each combination's
    # part; and whole, whether the parts are of A's whole span.
    "pair_map": {},
}


def own(results: Results, experiment: ExperimentResults, name: str, *args: Any) -> Any:
    """What a function of the experiment's module gives; the value in `EMPTY` where there is no module or function."""
    module = results.cached(_module, experiment.name)
    function = getattr(module, name, None)
    if function is None:
        return EMPTY[name]
    try:
        return function(*args)
    except UserError:
        raise
    except Exception as error:
        file = module.__file__
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        raise UserError(f"{file}:{lines[-1]}: {name} failed ({type(error).__name__}: {error})") from error


def replaces_common(results: Results, experiment: ExperimentResults) -> bool:
    """Whether the common figures are left out: nothing flips, or the module has `REPLACES_COMMON = True`."""
    module = results.cached(_module, experiment.name)
    return experiment.settings["reads_only"] or getattr(module, "REPLACES_COMMON", False)


def map_of(results: Results, experiment: ExperimentResults) -> str:
    """The option that the module draws as a map for any number of values, `MAP_OF`; "" if it names none."""
    return getattr(results.cached(_module, experiment.name), "MAP_OF", "")


def why_missing(results: Results, experiment: ExperimentResults) -> str:
    """Why the experiment's module cannot be used; "" where it can, or where there is none."""
    if not _is_declared(experiment) or results.cached(_module, experiment.name) is not None:
        return ""
    intervention = escape(experiment.settings["intervention"])
    what = f"{experiment.name}: its own figures and tables are missing, because the experiment {intervention} is not"
    return f"{what} known here; name its file with --plugin"


def _is_declared(experiment: ExperimentResults) -> bool:
    return bool(experiment.settings["figures"]) and experiment.records is not None


def _module(results: Results, name: str) -> ModuleType | None:
    experiment = results.experiment(name)
    return experiment_figures(experiment.settings["intervention"]) if _is_declared(experiment) else None
