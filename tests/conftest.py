"""Settings for every test."""

import torch

# The models here are so small that a second thread only waits for the first, most of all on a busy machine.
torch.set_num_threads(1)
