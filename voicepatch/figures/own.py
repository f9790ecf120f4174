"""The figures, tables and sentences of one experiment alone, from the module that `@intervention(figures=…)` names.

    own = own_figures(results, experiment)
    own.charts(results, experiment)          # {"lens_lens-prosody": alt.Chart}

The module may define any of the functions below; docs/interventions.md shows an example. It is imported when figures
are drawn, never when the experiment runs.
"""

import traceback
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import altair as alt
import pandas as pd

from voicepatch.analysis.experiment_results import ExperimentResults
from voicepatch.analysis.results import Results
from voicepatch.errors import UserError
from voicepatch.registry.catalogue import experiment_figures
from voicepatch.text import escape
from voicepatch.types.check import Check


@dataclass(frozen=True)
class OwnFigures:
    """What an experiment's module adds; empty where it has no module, and with the reason where that is `missing`."""

    module: ModuleType | None = None
    missing: str = ""

    def charts(self, results: Results, experiment: ExperimentResults) -> dict[str, alt.TopLevelMixin]:
        """File stem → figure."""
        return self._call("charts", {}, results, experiment)

    def tables(self, results: Results, experiment: ExperimentResults) -> dict[str, pd.DataFrame]:
        """File stem → table, written as CSV. `attrs["caption"]` of a table is its caption in the report."""
        return self._call("tables", {}, results, experiment)

    def sentences(self, results: Results, experiment: ExperimentResults) -> list[str]:
        """The results in words, for the methods text."""
        return self._call("sentences", [], results, experiment)

    def simplifications(self, results: Results, experiment: ExperimentResults) -> list[str]:
        """The approximations that were made."""
        return self._call("simplifications", [], results, experiment)

    def limits(self) -> list[str]:
        """What the experiment does not show."""
        return self._call("limits", [])

    def checks(self, results: Results, experiment: ExperimentResults) -> list[Check]:
        """Checks of the records."""
        return self._call("checks", [], results, experiment)

    def pair_map(self, experiment: ExperimentResults, combinations: list[str]) -> dict[str, Any]:
        """How the report's pair browser draws a map in time of each pair.

        `combinations` are the names of the swept values, one for each part. Gives slices, the number of parts; parts,
        the number of each combination's part; and whole, whether the parts are of A's whole span.
        """
        return self._call("pair_map", {}, experiment, combinations)

    def _call(self, name: str, default: Any, *args: Any) -> Any:
        function = getattr(self.module, name, None)
        if function is None:
            return default
        try:
            return function(*args)
        except UserError:
            raise
        except Exception as error:
            file = self.module.__file__
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
            raise UserError(f"{file}:{lines[-1]}: {name} failed ({type(error).__name__}: {error})") from error


def own_figures(results: Results, experiment: ExperimentResults) -> OwnFigures:
    """The module of an experiment of a run; an empty one where there are no records."""
    return results.cached(_own_figures, experiment.name)


def _own_figures(results: Results, name: str) -> OwnFigures:
    experiment = results.experiment(name)
    if not experiment.settings["figures"] or experiment.records is None:
        return OwnFigures()
    intervention = experiment.settings["intervention"]
    module = experiment_figures(intervention)
    if module is None:
        what = f"{name}: its own figures and tables are missing, because the experiment {escape(intervention)} is not"
        return OwnFigures(missing=f"{what} known here; name its file with --plugin")
    return OwnFigures(module)
