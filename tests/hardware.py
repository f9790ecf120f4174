"""The device and the dtype of tests/test_hardware.py, which two environment variables name.

    VOICEPATCH_TEST_DEVICE=cuda:0 VOICEPATCH_TEST_DTYPE=bfloat16 pytest tests/test_hardware.py

It may be several, as in `cuda:0,cuda:1`. Without them it is two CUDA devices that are not there
(tests/fake_devices.py), in float32.
"""

import os
from contextlib import nullcontext
from types import SimpleNamespace

import torch

from tests.fake_devices import fake_devices
from voicepatch.models.devices import DTYPES
from voicepatch.models.placement import spread

NAME = os.environ.get("VOICEPATCH_TEST_DEVICE")
DEVICE = NAME or "cuda:0,cuda:1"
FIRST, *OTHERS = map(torch.device, DEVICE.split(","))
DTYPE_NAME = os.environ.get("VOICEPATCH_TEST_DTYPE", "float32")
DTYPE = DTYPES[DTYPE_NAME]


def there():
    """Within it, `DEVICE` can be used."""
    return nullcontext() if NAME else fake_devices(2)


def placed(llm):
    """The decoder on `DEVICE`, in `DTYPE`."""
    if OTHERS:
        spread(SimpleNamespace(llm=llm.to(DTYPE)), (FIRST, *OTHERS))
        return llm
    return llm.to(FIRST, DTYPE)
