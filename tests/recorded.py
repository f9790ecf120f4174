"""What a run's configuration records of an experiment's declaration.

recorded("random")               # of an experiment of interventions/, or of a made one that only has a name
"""

from interventions import catalogue
from voicepatch.registry.intervention import Declared


def recorded(name, **keywords):
    entry = catalogue().get(name) or Declared(name=name, doc="", options={})
    return entry.recorded() | keywords
