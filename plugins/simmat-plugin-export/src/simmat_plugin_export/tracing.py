"""Trace a module to ONNX with a dynamic number of images, prompts and pixels.

`torch.onnx` with `dynamo=False` takes seconds where the exporter of torch.export takes minutes, and works with every
torch from 2.4 on. But it treats every size of a tensor as dynamic, which many operators refuse. So the module first
runs twice, on inputs that differ only in their dynamic sizes: sizes that are equal in both runs are constants.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

OPSET = 17
"""Operator set of onnxruntime 1.13 and later."""

MAX_FILE_BYTES = 2**31 - 2**26
"""Most bytes of weights inside a file; larger ones are in a separate file, as protobuf is limited to 2 GiB."""

Dynamic = Mapping[str, Mapping[int, str]]
"""Name of an input or output -> axis -> name of its size."""

_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]
_FLATTEN = (torch.flatten, torch.Tensor.flatten)


def trace(
    module: nn.Module,
    inputs: Sequence[Tensor],
    others: Sequence[Tensor],
    *,
    names: Sequence[str],
    outputs: Sequence[str],
    dynamic: Dynamic,
) -> onnx.ModelProto:
    """Trace a module to an ONNX model.

    Args:
        module: maps tensors to one tensor or a tuple of them.
        inputs: inputs for tracing.
        others: inputs with all dynamic sizes different.
        names: names of the inputs.
        outputs: names of the outputs.
        dynamic: names of the dynamic sizes.

    Raises:
        torch.onnx.errors.OnnxExporterError: an operator has no equivalent, or its sizes are not constant.
    """
    module = module.eval()
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # about sizes that become constants, which are checked, and deprecations
        warnings.simplefilter("ignore")
        one, other = _sizes(module, inputs), _sizes(module, others)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            torch.onnx.export(
                # the mode that the exporter leaves it in
                _Fixed(module, one, other).eval(),
                tuple(inputs),
                str(file),
                input_names=list(names),
                output_names=list(outputs),
                dynamic_axes={name: dict(axes) for name, axes in dynamic.items()},
                opset_version=OPSET,
                **_old_exporter(),
            )
            return simplified(file)


def simplified(file: Path) -> onnx.ModelProto:
    """Read a model with constants folded by onnxruntime, so that it loads in half the time."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    )
    # the result could be larger than protobuf allows
    if file.stat().st_size > MAX_FILE_BYTES // 2:
        return onnx.load(file)
    options.optimized_model_filepath = str(file.with_suffix(".folded"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath)
    # no operator has another domain
    domains = [one for one in model.opset_import if not one.domain]
    del model.opset_import[:]
    model.opset_import.extend(domains)
    return model


def _old_exporter() -> dict[str, Any]:
    """Return the option that selects the tracing exporter; torch 2.4 has only that one."""
    return {} if torch.__version__.startswith("2.4.") else {"dynamo": False}


def _sizes(module: nn.Module, inputs: Sequence[Tensor]) -> list[Any]:
    """Return the sizes that a module reads while it is traced, when it may compute in another way."""
    with _Recorded() as mode:
        torch.jit.trace(module, tuple(inputs), check_trace=False)  # type: ignore[no-untyped-call]
        sizes: list[Any] = mode.sizes
    return sizes


def _asks_size(function: Any) -> bool:
    return bool(function is torch.Tensor.size or function == _SHAPE)


class _Recorded(TorchFunctionMode):
    """Records every size that a module reads or flattens, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[Any] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in _FLATTEN:
            self.sizes.append(tuple(_SHAPE(args[0])))
        if _asks_size(func):
            one = not isinstance(found, tuple)
            self.sizes.append(int(found) if one else tuple(int(size) for size in found))
        return found


class _Replayed(TorchFunctionMode):
    """Returns plain numbers for sizes that are equal in two runs, and traced values for others."""

    def __init__(self, one: Sequence[Any], other: Sequence[Any]) -> None:
        super().__init__()
        self._sizes = zip(one, other, strict=True)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if (
            func is F.adaptive_avg_pool2d
            and (kernel := _whole_kernel(*args)) is not None
        ):
            return F.avg_pool2d(args[0], kernel)
        if func is F.rms_norm:  # ONNX has it from opset 23 on
            return _rms_norm(*args, **(kwargs or {}))
        if func is F.interpolate and (kwargs or {}).get("antialias"):
            # ONNX has no such operator. Models ask it for tables of positions, which depend on no input.
            return torch.from_numpy(func(*args, **kwargs).detach().numpy().copy())
        # the exporter would make the other sizes constants
        if func is torch.Tensor.unflatten:
            image, axis, sizes = args
            shape, axis = _SHAPE(image), axis % image.ndim
            return image.reshape(*shape[:axis], *sizes, *shape[axis + 1 :])
        # the exporter writes negative axes, which ONNX refuses
        if func is torch.Tensor.movedim:
            args = (args[0], *(axis % args[0].ndim for axis in args[1:]))
        if func in _FLATTEN:
            return _flatten(*next(self._sizes), *args, **(kwargs or {}))
        if (
            func is torch.repeat_interleave
            and len(args) == 2
            and _SHAPE(args[0])[0] == 1
        ):
            return args[0].expand(args[1], *[-1] * (args[0].ndim - 1))
        if func is torch.Tensor.repeat_interleave and len(args) == 3:
            # The exporter makes a negative axis positive in place, and with it every -1 that a model reshapes by.
            args = (*args[:2], args[2] % args[0].ndim)
        found = func(*args, **(kwargs or {}))
        if not _asks_size(func):
            return found
        one, other = next(self._sizes)
        if isinstance(one, int):
            return one if one == other else found
        return tuple(
            a if a == b else size for a, b, size in zip(one, other, found, strict=True)
        )


class _Fixed(nn.Module):
    """A module with constant sizes where two runs agree."""

    def __init__(
        self, module: nn.Module, one: Sequence[Any], other: Sequence[Any]
    ) -> None:
        super().__init__()
        self.module, self._one, self._other = module, one, other

    def forward(self, *inputs: Tensor) -> Any:
        """Run the module."""
        with _Replayed(self._one, self._other):
            return self.module(*inputs)


def _flatten(
    one: Sequence[int],
    other: Sequence[int],
    image: Tensor,
    start_dim: int = 0,
    end_dim: int = -1,
) -> Tensor:
    """Flatten axes to a length that is written out if two runs agree on it.

    Without it the exporter writes -1, which onnxruntime cannot resolve in an empty tensor: the points of a mask prompt.
    """
    axes = slice(start_dim % max(image.ndim, 1), end_dim % max(image.ndim, 1) + 1)
    if not one or one[axes] != other[axes]:
        return image.flatten(start_dim, end_dim)
    shape = [
        a if a == b else size
        for a, b, size in zip(one, other, _SHAPE(image), strict=True)
    ]
    return image.reshape(
        *shape[: axes.start], math.prod(one[axes]), *shape[axes.stop :]
    )


def _rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Compute `F.rms_norm` by simpler operators."""
    axes = tuple(range(-len(normalized_shape), 0))
    least = torch.finfo(input.dtype).eps if eps is None else eps
    scaled = input * torch.rsqrt(input.square().mean(axes, keepdim=True) + least)
    return scaled if weight is None else scaled * weight


def _whole_kernel(image: Tensor, size: Any) -> tuple[int, int] | None:
    """Return the kernel of the mean pooling that equals an adaptive one; None if the sizes do not divide."""
    height, width = (int(side) for side in _SHAPE(image)[-2:])
    rows, columns = (
        (size, size) if isinstance(size, int) else (int(side) for side in size)
    )
    if height % rows or width % columns:
        return None
    return height // rows, width // columns
