"""One page with all results of a run, `report.html`, which opens from the disk without a network.

    write_report(Results(Path("results/RUN")))

It is made from the files of the run directory, and the sounds from where the run found its data; no model, no torch.
Whatever comes from data is escaped: Jinja2 escapes text, JSON is embedded with `<`, `>` and `&` spelled out, scripts
set text and never HTML, and the page's Content-Security-Policy lets run only the scripts whose hashes it lists.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import altair as alt
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from voicepatch.analysis.results import Results
from voicepatch.analysis.words_and_voice import MEASURED, midpoints, what_p_means
from voicepatch.figures.captions import sentence
from voicepatch.files import write_whole
from voicepatch.report import answer, answers, checks, overview, prose
from voicepatch.report.browser import browser_data
from voicepatch.report.details import details, hand_over, hand_over_means
from voicepatch.report.experiments import VARIES, read_run
from voicepatch.report.methods import methods
from voicepatch.report.reproduce import MODEL, chosen_by_machine, commands
from voicepatch.report.sounds import sounds_of
from voicepatch.text import for_xml

HERE = Path(__file__).resolve().parent


def write_report(results: Results, pairs: int | str | None = None) -> Path:
    """Write `report.html` in the run directory, as a whole or not at all; gives its path.

    `pairs` is the number of pairs of each experiment in the pair browser, or `"all"`; None keeps the page small.
    """
    content = read_run(results)
    clips, no_sound = results.clips
    browser = browser_data(content, clips, pairs)
    sounds, missing = sounds_of(browser["clips"], browser["experiments"], clips)
    figures = [
        *content.answer,
        *content.unpatched,
        *content.natural,
        *(figure for of_one in content.figures.values() for figure in of_one),
    ]
    scripts = {"vega": _script(_vega()), "charts": _script(_read("charts.js")), "pairs": _script(_read("pairs.js"))}
    found = answer.answer(results)
    made = checks.checks_of(content)
    template = _environment().get_template("page.html")
    page = template.render(
        run=content,
        style=Markup(_read("page.css")),
        scripts=scripts,
        policy=_policy(scripts.values()),
        unpatched=answers.tables(results),
        verdict=answers.verdict_of(results),
        headline=found,
        warnings=checks.warnings(results, made),
        in_headline=[*found, midpoints(results)],
        congruence_notes=[main.congruence_note for main in content.mains],
        p_means=what_p_means(results),
        measured=MEASURED,
        question=prose.question(content),
        done=prose.what_was_done(content),
        done_by_each=prose.what_each_did(content),
        glance=overview.glance(content),
        checks=made,
        checks_by_experiment=checks.by_experiment(content),
        failed_pairs=checks.failed_pairs(content),
        hand_over=hand_over,
        sentence=sentence,
        varies=VARIES,
        hand_over_means=hand_over_means(content),
        figures={"specs": {figure.stem: figure.spec for figure in figures}, "datasets": content.datasets},
        pairs=browser,
        sounds=sounds,
        sound_notes=[note for note in (no_sound, missing) if note],
        limits=prose.limits(content),
        terms=prose.terms(content),
        simplifications=prose.simplifications(content),
        methods=methods(content),
        details=details(content),
        settings=overview.settings(content),
        commands=commands(content),
        chosen_by_machine=chosen_by_machine(content),
        unknown_model=MODEL,
    )
    return write_whole(results.run / "report.html", for_xml(page))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # tojson spells out <, >, & and ', and everything beyond ASCII, so no text can end the script element that holds it.
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed of the pinned vl-convert, in the version that altair's charts are written for."""
    version = re.match(r"v(\d+\.\d+)", alt.SCHEMA_VERSION)[1]
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)


def _script(text: str) -> Markup:
    """A script's text, with what would end or comment out its element written in another way."""
    text = text.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return Markup(text)


def _policy(scripts: Iterable[str]) -> str:
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "media-src data:; img-src data:; base-uri 'none'; form-action 'none'"
    )
