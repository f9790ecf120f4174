"""A function that writes noise into a file."""

import pytest
import soundfile

from tests.robust.sounds.made import CONTAINERS, noise


@pytest.fixture
def write(tmp_path):
    """A function that writes two seconds of noise in a container."""

    def write(name, seconds=2, channels=1):
        container, subtype, rate = CONTAINERS[name]
        path = tmp_path / name
        soundfile.write(path, noise(seconds, rate, channels), rate, format=container, subtype=subtype)
        return path

    return write
