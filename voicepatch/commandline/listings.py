"""Commands that list what the program has: interventions, tasks, corpora, model families."""

import click

from pairs.corpora import corpus_list
from voicepatch.commandline import showing
from voicepatch.commandline.options import plugin_option
from voicepatch.commandline.program import debug_option
from voicepatch.models.family import declared_families
from voicepatch.registry.catalogue import catalogue
from voicepatch.types.task import load_task, task_names


@click.command(name="list")
@plugin_option
def list_interventions() -> None:
    """Show all interventions, one line each."""
    for name, entry in catalogue().items():
        kind = "main" if entry.main else "control" if entry.control else "variant"
        click.echo(f"{name:<14}{kind:<9}{entry.summary}")


@click.command()
@debug_option
def tasks() -> None:
    """Show the tasks that --task takes by name, with their questions."""
    for name in task_names():
        click.echo(f"{name:<18}{load_task(name).asked()}")


@click.command()
@plugin_option
@debug_option
def corpora() -> None:
    """Show the corpora that --data recognises, their sources, and the contents of a full download."""
    click.echo(corpus_list())


@click.command()
@plugin_option
@debug_option
def models() -> None:
    """Show the model families; the family of a checkpoint is recognised from its config.json."""
    click.echo(showing.family_list(declared_families()))


commands = (list_interventions, tasks, corpora, models)
