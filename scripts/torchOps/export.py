"""Writes PyTorch's own samples of ops (OpInfo), with results, gradients and second-order gradients, for checkTorchOps.ts to compare with.

Usage: python export.py FOLDER NAME..., names as OpInfo has them ('add', 'max.binary'). Ends with code 3 where torch or numpy is missing. For each name FOLDER gets NAME.jsonl, a sample a line, and NAME.bin with the numbers. A tensor in a sample is
{'tensor': [dtype, shape, offset in NAME.bin], 'number': n}; tensors that are the same object have the same number. Integers are stored as i32.
"""

import json
import math
import random
import sys
import types
import unittest
import warnings

try:
    import numpy as np
    import torch
except ImportError as error:
    print(f'no module {error.name}')
    sys.exit(3)

# torch.testing imports it for its own test classes, which are not used here.
sys.modules.setdefault('expecttest', types.SimpleNamespace(TestCase=unittest.TestCase))

warnings.filterwarnings('ignore')
torch.set_num_threads(1)

# Samples with larger tensors are left out, and so are those beyond so many of one op, dtype and kind.
LARGEST = 20_000
MOST = 250
# Second-order gradients are taken where the inputs have at most so many elements together.
LARGEST_SECOND = 400

STORED = {
    torch.float64: ('f64', '<f8'), torch.float32: ('f32', '<f4'), torch.bool: ('bool', '<i4'),
    **{t: ('i32', '<i4') for t in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)},
}


class NotStored(Exception):
    """A sample that the format does not take: large, sparse, complex, beyond i32."""


class Numbers:
    """The binary file: arrays one after the other, each from a multiple of 8 bytes on."""

    def __init__(self, path):
        self.file = open(path, 'wb')
        self.length = 0

    def add(self, tensor):
        if tensor.dtype not in STORED or tensor.layout != torch.strided or tensor.numel() > LARGEST:
            raise NotStored
        dtype, stored = STORED[tensor.dtype]
        values = tensor.detach().contiguous().numpy()
        if dtype == 'i32' and values.size and (values.max() > 2**31 - 1 or values.min() < -2**31):
            raise NotStored
        data = values.astype(stored).tobytes()
        padding = -self.length % 8
        offset = self.length + padding
        self.file.write(b'\0' * padding + data)
        self.length = offset + len(data)
        return {'tensor': [dtype, list(tensor.shape), offset]}

    def add_optional(self, tensor):
        return None if tensor is None else self.add(tensor)


def mapped(value, on_tensor):
    """The same arguments with every tensor replaced."""
    if isinstance(value, torch.Tensor):
        return on_tensor(value)
    if isinstance(value, (list, tuple)):
        return [mapped(v, on_tensor) for v in value]
    if isinstance(value, dict):
        return {k: mapped(v, on_tensor) for k, v in value.items()}
    return value


def once(change):
    """Changes each tensor once: arguments that are one tensor stay one."""
    done = {}

    def on_tensor(tensor):
        if id(tensor) not in done:
            done[id(tensor)] = (tensor, change(tensor))
        return done[id(tensor)][1]

    return on_tensor


def encoded(value, tensors, numbers):
    """An argument as JSON; tensors met on the way are listed in `tensors`."""
    if isinstance(value, torch.Tensor):
        for number, tensor in enumerate(tensors):
            if tensor[0] is value:
                return tensor[1]
        reference = {**numbers.add(value), 'number': len(tensors)}
        tensors.append((value, reference))
        return reference
    if isinstance(value, np.number):
        value = value.item()
    if isinstance(value, (bool, str, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {'number': str(value)}
    if isinstance(value, torch.dtype):
        return {'dtype': str(value)}
    if isinstance(value, (list, tuple)):
        return [encoded(v, tensors, numbers) for v in value]
    if isinstance(value, dict):
        return {k: encoded(v, tensors, numbers) for k, v in value.items()}
    raise NotStored


def outputs_of(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [t for part in result if isinstance(part, (torch.Tensor, list, tuple)) for t in outputs_of(part)]


def random_like(tensor, generator):
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)


def gradients(record, outputs, tensors, numbers, n, second):
    """Adds the gradients of the outputs, for random cotangents, and those of these gradients."""
    generator = torch.Generator().manual_seed(1000 + n)
    of = [i for i, t in enumerate(outputs) if t.requires_grad and t.is_floating_point()]
    wrt = [(t, reference['number']) for t, reference in tensors if t.requires_grad]
    if not of or not wrt:
        return
    leaves = [t for t, _ in wrt]
    cotangents = [random_like(outputs[i], generator) for i in of]
    second = second and sum(t.numel() for t in leaves) <= LARGEST_SECOND
    found = torch.autograd.grad([outputs[i] for i in of], leaves, cotangents, allow_unused=True, retain_graph=second)
    record['gradients'] = {
        'of': of, 'wrt': [number for _, number in wrt], 'cotangents': [numbers.add(c) for c in cotangents],
        'values': [numbers.add_optional(g) for g in found],
    }
    if not second:
        return
    varied = [c.clone().requires_grad_(True) for c in cotangents]
    found = torch.autograd.grad([outputs[i] for i in of], leaves, varied, allow_unused=True, create_graph=True)
    live = [(i, g) for i, g in enumerate(found) if g is not None and g.requires_grad]
    if not live:
        return
    directions = [random_like(g, generator) for _, g in live]
    found = torch.autograd.grad([g for _, g in live], leaves + varied, directions, allow_unused=True)
    record['second'] = {
        'of': [i for i, _ in live], 'cotangents': [numbers.add(d) for d in directions], 'values': [numbers.add_optional(g) for g in found],
    }


def sample_record(op, dtype, kind, n, sample, numbers):
    differentiated = op.supports_autograd and dtype.is_floating_point
    given = [sample.input, *sample.args]

    def own(tensor):
        fresh = tensor.detach()
        return fresh.clone().requires_grad_(True) if differentiated and fresh.is_floating_point() else fresh

    change = once(own)
    args, kwargs = mapped(given, change), mapped(sample.kwargs, change)
    tensors = []
    record = {'dtype': STORED[dtype][0], 'kind': kind, 'n': n}
    record['args'], record['kwargs'] = encoded(args, tensors, numbers), encoded(kwargs, tensors, numbers)
    outputs = outputs_of(op(*args, **kwargs))
    record['outputs'] = [numbers.add(t) for t in outputs]
    if dtype == torch.float32:
        # The same from the same numbers in f64: what the f32 result approximates.
        wide = once(lambda t: t.detach().double() if t.dtype == torch.float32 else t.detach())
        try:
            exact = outputs_of(op(*mapped(given, wide), **mapped(sample.kwargs, wide)))
            record['exact'] = [numbers.add(t) if t.dtype == torch.float64 else None for t in exact]
        except RuntimeError:
            pass
    if differentiated:
        second = dtype == torch.float64 and kind == 'sample' and op.supports_gradgrad
        gradients(record, outputs, tensors, numbers, n, second)
    return record


def export(op, name, folder):
    numbers = Numbers(f'{folder}/{name}.bin')
    refused = 0
    with open(f'{folder}/{name}.jsonl', 'w') as lines:
        for dtype in (torch.float64, torch.float32, torch.int32, torch.bool):
            if not op.supports_dtype(dtype, 'cpu'):
                continue
            for kind in ('sample', 'reference'):
                if kind == 'reference' and getattr(op, 'reference_inputs_func', None) is None:
                    continue
                torch.manual_seed(1)
                random.seed(1)
                np.random.seed(1)
                make = op.sample_inputs if kind == 'sample' else op.reference_inputs
                n = 0
                for sample in make('cpu', dtype, requires_grad=False):
                    if n == MOST:
                        break
                    torch.manual_seed(7)
                    try:
                        record = sample_record(op, dtype, kind, n, sample, numbers)
                    except NotStored:
                        continue
                    except (RuntimeError, TypeError, NotImplementedError):
                        refused += 1  # by torch itself
                        continue
                    lines.write(json.dumps(record) + '\n')
                    n += 1
    numbers.file.close()
    print(name, f'({refused} refused by torch)' if refused else '', flush=True)


def main():
    from torch.testing._internal.common_methods_invocations import op_db

    folder, *names = sys.argv[1:]
    known = {op.name + ('.' + op.variant_test_name if op.variant_test_name else ''): op for op in op_db}
    for name in names:
        if name not in known:
            sys.exit(f'{name}: torch {torch.__version__} has no OpInfo of this name')
    for name in names:
        export(known[name], name, folder)


main()
