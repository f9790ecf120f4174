"""The report in a real browser, without a network: it draws, switches, plays, fits, and runs nothing that data say."""

import csv
import json
import re
import shutil

import pytest
import soundfile
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from pairs.load import find_clips
from voicepatch import report
from voicepatch.analysis.results import Results
from voicepatch.paths import DEMO_DATA

pytestmark = pytest.mark.browser
FEW = ("--max-pairs", "4", "--layers", "0,3,6", "--device", "cpu", "--no-figures")
LABELS = ["neutral", "happy", "sad", "angry", "surprised"]
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "\"quotes\" 'and' <b>tags</b> <!-- <script>",
    "{{ 7 * 7 }} ${7 * 7} \\ line\nbreak\u2028here 😀",
    '"><img src=x onerror="window.hacked = 2">',
)


@pytest.fixture(scope="session")
def run(tmp_path_factory, call):
    out = tmp_path_factory.mktemp("runs") / "run"
    call("patch", "--no-need", "--kind", "prosody", "--out", out, *FEW)
    call("patch", "--no-need", "--kind", "semantic", "--out", out, *FEW)
    for control in ("self", "random"):
        call("control", "--kind", control, "--out", out, *FEW)
    for variant in ("timeline", "lens"):
        call(variant, "--out", out, *FEW)
    return out


@pytest.fixture(scope="session")
def page(run):
    return report.write_report(Results(run, find_clips=find_clips))


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def at(browser, name):
    return browser.driver.find_element(By.ID, name)


def text(browser, selector):
    return browser.driver.find_element(By.CSS_SELECTOR, selector).text


def table(browser):
    """The pair browser's table: name of the row → the five values and the answer."""
    browser.run("document.getElementById('pair-table').open = true")
    lines = browser.driver.find_elements(By.CSS_SELECTOR, "#pair-table tbody tr")
    cells = [[cell.text for cell in line.find_elements(By.CSS_SELECTOR, "th, td")] for line in lines]
    return {name: ([float(value.replace("−", "-")) for value in values], answer) for name, *values, answer in cells}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_network_and_without_a_complaint(browser, page, scheme):
    browser.open(page, scheme=scheme)
    browser.draw_everything()
    asked = browser.drain()
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)
    assert browser.complaints == []


@pytest.mark.parametrize("width", [1280, 400])
def test_every_chart_has_marks(browser, page, width):
    browser.open(page, width)
    browser.draw_everything()
    marks = browser.run("""
        const shapes = ".mark-line path, .mark-symbol path, .mark-rect path, .mark-area path";
        return [...document.querySelectorAll(".chart")].map((box) => [box.id || box.dataset.figure,
          [...box.querySelectorAll(shapes)].filter((path) => path.getAttribute("d")).length]);
    """)
    assert len(marks) > 10 and all(n >= 3 for _, n in marks), marks
    assert browser.run(
        "return new Set([...document.querySelectorAll('[data-figure]')].map((b) => b.dataset.figure)).size"
    ) == (len(marks) - 1)


def test_hovering_a_point_gives_layer_rate_interval_and_n(browser, page):
    browser.open(page)
    box = browser.driver.find_element(By.CSS_SELECTOR, "[data-figure=flip_rate_curve_prosody]")
    browser.draw_everything()
    browser.run("arguments[0].scrollIntoView({ block: 'center' })", box)
    point = box.find_elements(By.CSS_SELECTOR, ".role-mark.mark-symbol path")[-1]
    ActionChains(browser.driver).move_to_element(point).perform()
    keys = browser.run("""
        const cells = () => [...document.querySelectorAll("#vg-tooltip-element.visible td.key")];
        for (let i = 0; i < 40 && !cells().length; i++) await new Promise((go) => setTimeout(go, 50));
        return cells().map((cell) => cell.textContent);
    """)
    assert keys == ["layer", "curve", "value", "95 % interval, low", "95 % interval, high", "n"]


def test_the_pair_browser_shows_what_the_records_hold(browser, page, run):
    browser.open(page)
    records = rows(run / "patching_records_prosody.jsonl")
    first = [record for record in records if record["pair_id"] == records[0]["pair_id"]]
    shown = table(browser)
    for name, logits in (
        ("B, unpatched", first[0]["logits_donor"]),
        ("A, unpatched", first[0]["logits_base"]),
        *((f"A, patched at layer {record['layer']}", record["logits_patch"]) for record in first),
    ):
        values, answer = shown.pop(name)
        assert values == pytest.approx([logits[label] for label in LABELS], abs=6e-4)
        assert answer == max(logits, key=logits.get)
    assert not shown
    assert text(browser, "#clip-a dl").splitlines()[1] == first[0]["pred_base"]
    assert f"Target: {first[0]['target']}." in text(browser, "#pair-summary")


def test_the_pair_browser_switches_by_button_list_search_and_experiment(browser, page, run):
    browser.open(page)
    pairs, first = rows(run / "pair_list_prosody.jsonl"), table(browser)
    drawn = at(browser, "pair-chart").get_attribute("innerHTML")
    at(browser, "pair-next").send_keys(Keys.ENTER)
    assert "Pair 2 of 4" in text(browser, "#pair-summary") and table(browser) != first
    assert pairs[1]["clip_a"] in text(browser, "#clip-a") and pairs[1]["clip_b"] in text(browser, "#clip-b")
    browser.draw_everything()
    assert at(browser, "pair-chart").get_attribute("innerHTML") != drawn
    at(browser, "pair-previous").send_keys(Keys.SPACE)
    assert table(browser) == first
    at(browser, "pair-select").send_keys(Keys.END)
    assert "Pair 4 of 4" in text(browser, "#pair-summary") and not at(browser, "pair-next").is_enabled()
    at(browser, "pair-search").send_keys(pairs[2]["clip_b"])
    assert pairs[2]["clip_b"] in text(browser, "#clip-b")
    at(browser, "pair-search").send_keys(" no such clip")
    assert text(browser, "#pair-summary") == "No pair matches."
    at(browser, "pair-search").clear()
    experiments = Select(at(browser, "pair-experiment"))
    names = [option.text for option in experiments.options]
    experiments.select_by_index(next(i for i, name in enumerate(names) if name.startswith("self")))
    assert rows(run / "pair_list_self.jsonl")[0]["clip_a"] in text(browser, "#clip-b")


def test_a_timeline_has_a_map_of_each_pair_in_seconds_of_its_sound(browser, page, run):
    browser.open(page)
    experiments = Select(at(browser, "pair-experiment"))
    assert not at(browser, "pair-map-box").is_displayed()
    assert "lens-prosody" not in [option.text for option in experiments.options]  # it patches no pair
    names = [option.text for option in experiments.options]
    experiments.select_by_index(next(i for i, name in enumerate(names) if name.startswith("timeline-prosody")))
    at(browser, "pair-next").send_keys(Keys.ENTER)
    browser.draw_everything()
    assert "One of 10 parts was written at a time" in text(browser, "#pair-summary")
    cells = browser.run("""
        return [...document.querySelectorAll("#pair-map .role-mark.mark-rect path")]
          .map((cell) => cell.getAttribute("aria-label"));
    """)
    pair = rows(run / "pair_list_timeline-prosody.jsonl")[1]
    moved = {
        (record["layer"], record["part"]): pytest.approx(record["delta_logit_target"], abs=2e-3)
        for record in rows(run / "patching_records_timeline-prosody.jsonl")
        if record["pair_id"] == pair["pair_id"]
    }
    drawn = [re.search(r"; layer: (\d+); part: (\d+);.* target: (.*)", cell.replace("−", "-")) for cell in cells]
    assert {(int(cell[1]), int(cell[2])): float(cell[3]) for cell in drawn} == moved and len(cells) == 30
    file = DEMO_DATA / pair["prosody_label_a"] / f"{pair['text_id_a']}.flac"
    assert f"{soundfile.info(file).duration:.2f}"[:3] in text(browser, "#clip-a dl")
    experiments.select_by_index(0)
    assert not at(browser, "pair-map-box").is_displayed()
    browser.drain()
    assert browser.complaints == []


def test_probabilities_sum_to_one(browser, page):
    browser.open(page)
    browser.driver.find_element(By.CSS_SELECTOR, "[value=probabilities]").click()
    for values, _ in table(browser).values():
        assert sum(values) == pytest.approx(1, abs=0.003)


@pytest.mark.parametrize("side", ["a", "b"])
def test_the_sound_plays_and_is_the_clip(browser, page, run, side):
    browser.open(page)
    label = rows(run / "pair_list_prosody.jsonl")[0]
    file = DEMO_DATA / label[f"prosody_label_{side}"] / f"{label[f'text_id_{side}']}.flac"
    played = browser.run(f"""
        const audio = document.querySelector("#clip-{side} audio");
        await audio.play();
        for (let i = 0; i < 100 && audio.currentTime < 0.2; i++) await new Promise((go) => setTimeout(go, 50));
        audio.pause();
        return {{ time: audio.currentTime, duration: audio.duration, error: audio.error?.message }};
    """)
    assert played["error"] is None and played["time"] >= 0.2
    assert played["duration"] == pytest.approx(soundfile.info(file).duration, abs=0.2)


@pytest.mark.parametrize("width", [400, 800, 1280])
def test_the_page_never_scrolls_sideways(browser, page, width):
    browser.open(page, width)
    browser.draw_everything()
    assert browser.run("return document.documentElement.scrollWidth") <= width
    inside = """return [...document.querySelectorAll("svg")].filter((svg) =>
        svg.getBoundingClientRect().width > svg.closest(".chart").clientWidth + 1)
        .map((svg) => svg.closest(".chart").dataset.figure)"""
    assert browser.run(inside) == []


def test_light_and_dark_follow_the_system_until_the_reader_chooses(browser, page):
    def colours():
        browser.draw_everything()
        return browser.run("""
            const ink = document.querySelector(".chart .role-axis-label text, .chart .role-axis text");
            return [getComputedStyle(document.body).backgroundColor, ink.getAttribute("fill")];
        """)

    browser.open(page, scheme="light")
    light = colours()
    browser.open(page, scheme="dark")
    dark = colours()
    assert light[0] != dark[0] and light[1] != dark[1]
    at(browser, "theme").send_keys(Keys.ENTER)
    assert at(browser, "theme").text == "Theme: light"
    assert colours() == light
    browser.run("localStorage.clear()")


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser, page):
    browser.open(page)
    reached = []
    for _ in range(60):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        reached.append(
            browser.run("""
            const here = document.activeElement;
            return [here.id || here.tagName, getComputedStyle(here).outlineStyle];
        """)
        )
    names = [name for name, _ in reached]
    for name in (
        "theme",
        "pair-experiment",
        "pair-filter",
        "pair-search",
        "pair-select",
        "pair-next",
        "AUDIO",
        "SUMMARY",
    ):
        assert name in names
    assert all(outline != "none" for name, outline in reached if name not in ("BODY", "AUDIO"))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory, call):
    """A run on a manifest whose every free text tries to be something else than text."""
    folder = tmp_path_factory.mktemp("hostile")
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["clip_id", "path", "text_id", "text", "semantic_label", "prosody_label", "speaker"])
        for number, words in enumerate(HOSTILE):
            for label in ("happy", "sad"):
                name = f"{number}-{label}.flac"
                shutil.copy(DEMO_DATA / label / f"sad_implicit_{number % 3 + 1}.flac", folder / name)
                table.writerow([f"{words} {label}", name, f"{number} {words}", words, "sad", label, words])
    out = folder / "run"
    call("patch", "--no-need", "--kind", "prosody", "--data", folder / "manifest.csv", "--out", out, *FEW)
    return report.write_report(Results(out, find_clips=find_clips))


def test_printed_before_scrolling_it_has_every_figure_and_folded_part(browser, page):
    browser.open(page)
    browser.run("""
        window.states = [];
        const state = () => [
          document.querySelectorAll('.chart[data-figure]').length,
          document.querySelectorAll('.chart[data-figure] svg').length,
          document.querySelectorAll('details:not([open])').length,
        ];
        matchMedia('print').addEventListener('change', () => states.push(state()));
        addEventListener('afterprint', () => states.push(state()));
        return state();
    """)
    n_folded = browser.run("return document.querySelectorAll('details:not([open])').length")
    fresh = len(browser.cdp("Page.printToPDF")["data"])
    figures, drawn, folded = browser.run("return states.find(([, drawn]) => drawn)")
    assert figures == drawn > 6
    assert n_folded > 0 and browser.run("return document.querySelectorAll('details:not([open])').length") == n_folded
    browser.draw_everything()
    assert fresh > 0.8 * len(browser.cdp("Page.printToPDF")["data"])


def test_each_figure_has_a_name_of_its_own(browser, page):
    browser.open(page)
    browser.draw_everything()
    names = browser.run(
        "return [...document.querySelectorAll('.chart')].map((box) => "
        "(box.querySelector('[aria-roledescription=visualization]') ?? box).getAttribute('aria-label'))"
    )
    assert len(names) > 6 and all(names) and len(set(names)) == len(names)


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_what_data_say_stays_text(browser, hostile, number):
    browser.open(hostile)
    browser.draw_everything()
    at(browser, "pair-search").send_keys(f"{('script', 'quotes', 'break', 'onerror')[number]}")
    browser.run("document.getElementById('pair-select').dispatchEvent(new Event('change'))")
    shown = browser.run("return document.querySelector('#clip-a .text').textContent")
    assert shown == f"“{HOSTILE[number]}”"
    assert browser.run("return window.hacked ?? null") is None
    assert browser.run("return document.scripts.length") == 6
    assert browser.run("return document.querySelectorAll('main img, main b').length") == 0
    browser.drain()
    assert browser.complaints == []


def test_without_its_data_the_page_says_so_and_goes_on(browser, run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    config = json.loads((out / "patching_config.json").read_text())
    config["data"]["source"] = str(tmp_path / "gone")
    (out / "patching_config.json").write_text(json.dumps(config))
    browser.open(report.write_report(Results(out, find_clips=find_clips)))
    assert "no sound" in text(browser, "#pairs .caution")
    assert not browser.driver.find_element(By.CSS_SELECTOR, "#clip-a audio").is_displayed()
    at(browser, "pair-next").click()
    assert "Pair 2 of 4" in text(browser, "#pair-summary")
    browser.drain()
    assert browser.complaints == []


def test_a_page_of_5000_pairs_opens_in_three_seconds_and_says_what_it_leaves_out(browser, page, tmp_path):
    """The least of three tries, from the address to the first pair shown; 29,380 more are in the records."""
    html = page.read_text(encoding="utf-8")
    embedded = re.search(r'<script[^>]*id="pairs-data"[^>]*>(.*?)</script>', html, re.DOTALL)
    data = json.loads(embedded[1])
    (main,) = [experiment for experiment in data["experiments"] if experiment["name"] == "prosody"]
    main["pairs"], main["left_out"] = main["pairs"] * 1250, 29_380
    large = tmp_path / "report.html"
    large.write_text(html[: embedded.start(1)] + json.dumps(data) + html[embedded.end(1) :], encoding="utf-8")
    taken = []
    for _ in range(3):
        browser.open(large)
        assert "Pair 1 of 5000 (this page has a sample of 5000 of 34380 pairs; " in text(browser, "#pair-summary")
        taken.append(browser.run("return performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert 0 < min(taken) < 3000, taken
    Select(at(browser, "pair-select")).select_by_index(4999)
    assert "Pair 5000 of 5000" in text(browser, "#pair-summary")
    browser.drain()
    assert browser.complaints == []
