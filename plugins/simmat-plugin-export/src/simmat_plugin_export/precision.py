"""Convert the network of the encoder to half precision or 8-bit integers.

The sensor's part of the encoder, the prompt decoder and the dense head stay in single precision: most of the time is
spent in the network, while click positions and values in physical units need the precision.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from simmat_plugin_export.tracing import simplified

Precision = Literal["fp32", "fp16", "int8-dynamic", "int8-static"]
Feeds = Mapping[str, npt.NDArray[Any]]
Convert = Callable[[onnx.ModelProto], onnx.ModelProto]


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that computes in half precision, with inputs and outputs in single precision."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(model, keep_io_types=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        onnx.save(half, file)  # the nodes are not sorted
        return simplified(file)


def quantized_dynamic(
    model: onnx.ModelProto, *, kept: Sequence[str] = ()
) -> onnx.ModelProto:
    """Return a model with 8-bit matrix products, and the range of activations measured in every call.

    Convolutions stay in single precision, as onnxruntime is slower with dynamically quantized ones; so do the nodes
    named in `kept`.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        out = Path(folder) / "out.onnx"
        quantize_dynamic(
            model,
            out,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept),
        )
        return onnx.load(out)


def quantized_static(
    model: onnx.ModelProto, feeds: Iterable[Feeds], *, kept: Sequence[str] = ()
) -> onnx.ModelProto:
    """Return a model with 8-bit matrix products and convolutions; activations have the ranges found on `feeds`.

    The nodes named in `kept` stay in single precision.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Returns the inputs one by one."""

        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> dict[str, Any] | None:
            """Return the next inputs; None at the end."""
            return next((dict(one) for one in self._feeds), None)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        out = Path(folder) / "out.onnx"
        quantize_static(
            model,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul"],
            per_channel=True,
            reduce_range=True,  # without VNNI, 16-bit sums of 8-bit products overflow
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept),
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load(out)


class _quiet:
    """Silence the warnings of onnxruntime's quantizer."""

    def __enter__(self) -> None:
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._level)


def as_feeds(planes: Iterator[tuple[Any, Any]]) -> Iterator[Feeds]:
    """Return inputs of the network, one image each: (C, S, S) planes and (S, S) content."""
    for image, content in planes:
        yield {"planes": np.asarray(image)[None], "content": np.asarray(content)[None]}
