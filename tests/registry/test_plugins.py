"""What a plugin registers besides experiments: on demand, under a name of its own, and gone with the plugin."""

import sys

import pytest

from voicepatch.errors import BAD_INPUT, BAD_USAGE, UserError
from voicepatch.registry import plugins as module
from voicepatch.registry.catalogue import add_plugin, catalogue, experiment_figures, load_intervention, reset_plugins
from voicepatch.registry.plugins import Registry, plugins

METRIC = """\
import sys
from tests.registry.test_plugins import metric
sys.imports = getattr(sys, "imports", 0) + 1


@metric
def entropy(records):
    return 0
"""
EXPERIMENT = """\
from voicepatch import intervention


@intervention(figures="FIGURES")
def my_idea(lm, pair, layer):
    return 0
"""


def metric(function):
    module.METRICS.add(
        function.__name__, function, f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
    )
    return function


@pytest.fixture(autouse=True)
def metrics(monkeypatch):
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.setattr(module, "_registries", [])
    monkeypatch.setattr(module, "METRICS", Registry("metric"), raising=False)
    return module.METRICS


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def refused(call, status):
    with pytest.raises(UserError) as error:
        call()
    assert error.value.status == status
    return str(error.value)


def test_a_plugin_is_imported_when_its_metrics_are_needed_and_once(write, metrics, monkeypatch):
    monkeypatch.setattr("sys.imports", 0, raising=False)
    add_plugin(write("idea.py", METRIC))
    catalogue()
    assert sys.imports == 0
    assert list(metrics.all()) == ["entropy"] and list(metrics.all()) == ["entropy"]
    assert sys.imports == 1


def test_what_a_plugin_registered_is_gone_with_it(write, metrics):
    add_plugin(write("idea.py", METRIC))
    assert metrics.all()
    reset_plugins()
    assert not metrics.all() and not plugins()


def test_a_name_that_is_registered_already_is_refused_with_both_files(write, metrics):
    first, second = write("one.py", METRIC), write("two.py", METRIC)
    add_plugin(first)
    add_plugin(second)
    assert refused(metrics.all, BAD_USAGE) == f"{second}:6: entropy is a metric already, in {first}:6; rename it"
    reset_plugins()
    add_plugin(write("twice.py", METRIC + METRIC))
    assert "twice.py:14: entropy is a metric already" in refused(metrics.all, BAD_USAGE)


def test_an_object_of_the_program_cannot_be_replaced(write, metrics):
    metrics.add("entropy", print, f"{module.__file__}:1")
    add_plugin(write("idea.py", METRIC))
    assert f"entropy is a metric already, in {module.__file__}:1" in refused(metrics.all, BAD_USAGE)


def test_a_notebook_registers_nothing(metrics):
    metrics.add("entropy", print, "/tmp/ipykernel_1/2.py:3")
    assert not metrics.all()


def test_a_file_that_is_run_again_registers_what_it_holds_now(write, metrics):
    path = write("idea.py", METRIC + EXPERIMENT.replace('figures="FIGURES"', ""))
    add_plugin(path)
    assert list(metrics.all()) == ["entropy"]
    path.write_text("\n\n" + path.read_text().replace("entropy", "other"))
    load_intervention("my-idea")
    assert list(metrics.all()) == ["other"]


def test_a_folder_is_a_plugin_of_all_its_files_that_register_something(write, tmp_path, metrics):
    write("folder/metric.py", METRIC)
    write("folder/idea.py", EXPERIMENT.replace('figures="FIGURES"', ""))
    write("folder/helper.py", "raise RuntimeError('nobody asked for it')\n")
    add_plugin(tmp_path / "folder")
    assert [path.name for path in plugins()] == ["idea.py", "metric.py"]
    assert "my-idea" in catalogue() and list(metrics.all()) == ["entropy"]


def test_what_registers_nothing_is_refused(write, tmp_path):
    path = write("folder/idea.py", "import metric\n")
    assert f"--plugin {path}: registers nothing; decorate a function" in refused(lambda: add_plugin(path), BAD_USAGE)
    line = refused(lambda: add_plugin(path.parent), BAD_USAGE)
    assert f"--plugin {path.parent}: no file of the folder registers anything" in line


@pytest.mark.parametrize(
    "line", ["corpus(1)", "MINE = corpora.corpus(1)", "@family(1)\ndef f(): ...", "@x.metric\ndef f(): ..."]
)
def test_every_way_to_register_is_seen(write, line):
    add_plugin(write("idea.py", line))
    assert len(plugins()) == 1


def test_a_plugin_that_cannot_be_imported_is_named_with_its_line(write, metrics):
    path = write("idea.py", f"{METRIC}\nimport no_such_library\n")
    add_plugin(path)
    assert f"{path}:10: cannot be imported" in refused(metrics.all, BAD_INPUT)


@pytest.mark.parametrize("name", ["figures/mine.py", "mine.py"])
def test_the_figures_of_an_experiment_are_a_module_beside_it(write, name):
    write(name, "answer = 42\n")
    add_plugin(write("idea.py", EXPERIMENT.replace("FIGURES", "mine")))
    assert load_intervention("my-idea").figures == "mine"
    assert experiment_figures("my-idea").answer == 42
    assert experiment_figures("patch") is None and experiment_figures("not-there") is None


def test_figures_that_are_not_there_are_refused_before_the_experiment_runs(write):
    path = write("idea.py", EXPERIMENT.replace("FIGURES", "mine"))
    add_plugin(path)
    assert f"{path}:5: figures='mine': there is no file" in refused(lambda: load_intervention("my-idea"), BAD_INPUT)
