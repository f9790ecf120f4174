"""The device and the dtype of tests/test_hardware.py, which two environment variables name.

    VOICEPATCH_TEST_DEVICE=cuda:0 VOICEPATCH_TEST_DTYPE=bfloat16 pytest tests/test_hardware.py

Without them it is a CUDA device that is not there (tests/fake_devices.py), in float32.
"""

import os
from contextlib import nullcontext

from tests.fake_devices import fake_devices
from voicepatch.models.devices import DTYPES

NAME = os.environ.get("VOICEPATCH_TEST_DEVICE")
DEVICE = NAME or "cuda:0"
DTYPE_NAME = os.environ.get("VOICEPATCH_TEST_DTYPE", "float32")
DTYPE = DTYPES[DTYPE_NAME]


def there():
    """Within it, `DEVICE` can be used."""
    return nullcontext() if NAME else fake_devices()
