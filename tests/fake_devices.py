"""Devices that are not there: tensors on the processor that claim to be on `cuda:0`, and refuse to meet others.

    with fake_devices(2):                        # cuda:0 and cuda:1
        subject = load_subject(model, device="cuda:1")

All numbers are those of the processor. A claim belongs to a tensor's memory, so views share it. As on a real device, a
tensor in another place is an error, unless it is a number (no dimension), an index or the source of a copy.
`torch.cuda` counts the memory that is claimed.
"""

import threading
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

GIB = 1 << 30
CPU = torch.device("cpu")
# What may take tensors of several devices: copies from one to another, and indices, which may be on the processor.
COPIES = ("copy_", "_to_copy", "set_")
INDEXED = ("index", "index_put", "index_put_")
TO_NUMPY = (torch.Tensor.numpy, torch.Tensor.__array__)


class _Claim:
    """What a storage claims: its device, and the bytes that it takes there as long as it lives."""

    def __init__(self, device, nbytes, memory):
        self.device, self.nbytes, self.memory = device, nbytes, memory
        memory.now[device] += nbytes
        memory.peak[device] = max(memory.peak[device], memory.now[device])

    def __del__(self):
        self.memory.now[self.device] -= self.nbytes


class _Memory:
    def __init__(self):
        self.now, self.peak = defaultdict(int), defaultdict(int)


def claimed(tensor):
    """The device that a tensor claims to be on."""
    if tensor.layout is not torch.strided:
        return CPU
    with torch._C.DisableTorchFunction():
        claim = getattr(tensor.untyped_storage(), "claim", None)
    return claim.device if claim else CPU


def _named(device):
    """The device of a name or a number; `cuda` is the first one."""
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def _tensors_in(parts):
    """The tensors among the arguments or results of an operation, which are at most lists and tuples of them."""
    for part in parts:
        if isinstance(part, torch.Tensor):
            yield part
        elif isinstance(part, (list, tuple)):
            yield from _tensors_in(part)


class _Claims(TorchFunctionMode):
    """Answers for `tensor.device`, and takes the device out of a call: its result claims that device."""

    def __init__(self, rules):
        super().__init__()
        self.rules = rules

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function == torch.Tensor.device.__get__:
            return self._seen(args[0])
        if function == torch.Tensor.is_cuda.__get__:
            return self._seen(args[0]).type == "cuda"
        if function == torch.Tensor.is_cpu.__get__:
            return self._seen(args[0]).type == "cpu"
        if function is torch._C._nn._parse_to:  # of Module.to, which moves each tensor then
            return function(*args, **kwargs)
        if function in TO_NUMPY and claimed(args[0]) != CPU:
            raise TypeError(f"can't convert a tensor on {claimed(args[0])} to numpy; use Tensor.cpu() first")
        if function is torch.Tensor.cuda:
            function, args, kwargs = torch.Tensor.to, (args[0], *(args[1:2] or [0])), {}
        target, args, kwargs = self._target(function, args, kwargs)
        if target is None or target.type == "meta":
            return function(*args, **kwargs)
        before, self.rules.call.target = self.rules.call.target, target
        try:
            result = function(*args, **kwargs)
            if isinstance(result, torch.Tensor) and result.device.type == "cpu" and claimed(result) != target:
                result = result.clone()
        finally:
            self.rules.call.target = before
        if isinstance(result, torch.Tensor) and result.requires_grad and isinstance(args[0], torch.Tensor):
            source = claimed(args[0])
            if source != target and result is not args[0]:  # of a real copy, autograd takes the gradient back
                result.register_hook(lambda gradient: self.rules.copied_to(source, gradient))
        return result

    @staticmethod
    def _seen(tensor):
        with torch._C.DisableTorchFunction():
            real = tensor.device
        return real if real.type != "cpu" else claimed(tensor)

    def _target(self, function, args, kwargs):
        """The device that a call names, and its arguments with the processor in that place."""
        name = getattr(function, "__name__", "")
        if name == "cpu":
            return CPU, args, kwargs
        if name in ("to", "type_as") and len(args) > 1 and isinstance(args[1], torch.Tensor):
            return self._seen(args[1]), args, kwargs
        if name.startswith("new_") and args and isinstance(args[0], torch.Tensor) and kwargs.get("device") is None:
            return self._seen(args[0]), args, kwargs
        named = [part for part in args if isinstance(part, torch.device)]
        if name == "to":
            named += [part for part in args[1:] if isinstance(part, str)]
            named += [part for part in args[1:2] if type(part) is int]
        if kwargs.get("device") is not None:
            named.append(kwargs["device"])
        if not named:
            return None, args, kwargs
        target = _named(named[0])
        if target.type == "cuda" and target.index >= self.rules.n_devices:
            raise RuntimeError(f"CUDA error: invalid device ordinal {target}")
        real = CPU if target.type == "cuda" else target
        args = tuple(real if any(part is one for one in named) else part for part in args)
        return target, args, kwargs | ({"device": real} if "device" in kwargs else {})


class _Call(threading.local):
    """The device that the call of this thread names, None where it names none."""

    target = None


class _Rules(TorchDispatchMode):
    """Refuses operations on tensors of several devices, and claims the device of what is made for each result."""

    def __init__(self, n_devices):
        super().__init__()
        self.n_devices, self.call, self.memory = n_devices, _Call(), _Memory()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        given = list(_tensors_in((*args, *kwargs.values())))
        device = self._device_of(name, args, given)
        if name == "histc" and not args[0].is_floating_point():  # which the processor computes of floats alone
            result = function(args[0].float(), *args[1:], **kwargs).to(args[0].dtype)
        else:
            result = function(*args, **kwargs)
        old = {tensor.untyped_storage()._cdata for tensor in given if tensor.layout is torch.strided}
        for made in _tensors_in((result,)):
            if made.layout is not torch.strided or made.device.type != "cpu":
                continue
            storage = made.untyped_storage()
            if storage._cdata in old or hasattr(storage, "claim"):
                continue
            wanted = self.call.target or device
            if wanted != CPU:
                storage.claim = _Claim(wanted, storage.nbytes(), self.memory)
        return result

    def copied_to(self, device, tensor):
        """A copy of a tensor that claims a device; for where no function can be given one."""
        copy = tensor.clone()
        storage = copy.untyped_storage()
        storage.claim = _Claim(device, storage.nbytes(), self.memory)
        return copy

    def _device_of(self, name, args, given):
        """The one device of an operation's tensors; `RuntimeError` as of torch where there are several."""
        if name in COPIES:
            return claimed(given[0])
        if name in INDEXED:
            indices = [part for part in args[1] if isinstance(part, torch.Tensor)]
            given = [tensor for tensor in given if not any(tensor is one and claimed(one) == CPU for one in indices)]
        devices = list(dict.fromkeys(claimed(tensor) for tensor in given if tensor.dim()))
        numbers = [claimed(tensor) for tensor in given if not tensor.dim()]
        devices += [one for one in dict.fromkeys(numbers) if one not in devices and (one != CPU or not devices)]
        if len(devices) > 1:
            both = " and ".join(map(str, devices))
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {both}")
        return devices[0] if devices else CPU


@contextmanager
def fake_devices(n_devices=1, memory=80 * GIB):
    """Within it there are so many CUDA devices, each with `memory` bytes; gives what counts their memory."""
    rules = _Rules(n_devices)
    used, run = rules.memory, threading.Thread.run

    def run_there(thread):  # modes of torch are those of a thread
        with rules, _Claims(rules):
            run(thread)

    def at(counts):
        return lambda device=0: counts[_named(device if device is not None else 0)]

    answers = {
        "device_count": lambda: n_devices,
        "current_device": lambda: 0,
        "mem_get_info": lambda device=0: (memory - used.now[_named(device)], memory),
        "memory_allocated": at(used.now),
        "memory_reserved": at(used.now),
        "max_memory_allocated": at(used.peak),
        "reset_peak_memory_stats": lambda device=0: used.peak.update({_named(device): used.now[_named(device)]}),
        "get_device_name": lambda device=0: "fake",
        "get_device_capability": lambda device=0: (8, 0),
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: None,
    }
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(threading.Thread, "run", run_there))
        stack.enter_context(rules)
        stack.enter_context(_Claims(rules))
        yield used
