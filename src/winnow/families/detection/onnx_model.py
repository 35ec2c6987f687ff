"""A detector as an ONNX model of one picture: uint8 pixels of any size in; resized, normalised, looked at and read off inside."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from winnow.families.detection.data import PAD_MULTIPLE

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
"""The first whose Resize has ``antialias``."""
INPUT, OUTPUTS = "image", ("boxes", "scores", "labels")
_PARTS = ("images", "pixel_mask", "size", "original_size")
# Of the picture that is traced, in px: large enough that no map of it has one row or column.
_TRACED = (256, 320)
_MOST_BLOCKS = 1000  # of PAD_MULTIPLE px per side

_PAD = """
    sides = Cast <to = 11> (original_size)
    longest = ReduceMax <keepdims = 1> (sides)
    wanted = Constant <value = double[1] {{ {size} }}> ()
    scale = Div (wanted, longest)
    scaled = Mul (sides, scale)
    rounded = Round (scaled)
    least = Constant <value = double[1] {{ 1.0 }}> ()
    whole = Max (rounded, least)
    size = Cast <to = 7> (whole)
"""
_SQUARE = """
    size = Constant <value = int64[2] {{ {size}, {size} }}> ()
"""
# exclude_outside, or edges would be another picture's: torch's kernel, as Pillow's, weighs what is inside alone.
_PREPARATION = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
preparation (uint8[height, width, 3] image)
    => (uint8[1, 3, rows, columns] images, bool[1, rows, columns] pixel_mask, int64[2] size, int64[2] original_size)
{{
    original_size = Shape <start = 0, end = 2> (image)
    {resized_size}
    resized = Resize <axes = [0, 1], mode = "linear", coordinate_transformation_mode = "half_pixel", antialias = 1,
        exclude_outside = 1> (image, , , size)
    channels_first = Transpose <perm = [2, 0, 1]> (resized)
    multiple = Constant <value = int64[1] {{ {multiple} }}> ()
    one = Constant <value = int64[1] {{ 1 }}> ()
    size_and_more = Add (size, multiple)
    almost = Sub (size_and_more, one)
    blocks = Div (almost, multiple)
    padded_size = Mul (blocks, multiple)
    padding = Sub (padded_size, size)
    nothing_2 = Constant <value = int64[2] {{ 0, 0 }}> ()
    nothing_4 = Constant <value = int64[4] {{ 0, 0, 0, 0 }}> ()
    padding_3 = Concat <axis = 0> (nothing_4, padding)
    padding_2 = Concat <axis = 0> (nothing_2, padding)
    padded = Pad (channels_first, PAD_OF_PIXELS)
    first = Constant <value = int64[1] {{ 0 }}> ()
    images = Unsqueeze (padded, first)
    on_image = ConstantOfShape <value = bool[1] {{ 1 }}> (size)
    padded_mask = Pad (on_image, padding_2)
    pixel_mask = Unsqueeze (padded_mask, first)
}}
""".replace("PAD_OF_PIXELS", "padding_3")


def onnx_detector(network: nn.Module, image_size: int, square: bool) -> ModelProto:
    """Return ``network``, what a task's ``exportable`` gives, behind the resizing of evaluation to ``image_size`` px: ``image``
    (H, W, 3) uint8 in; ``boxes`` (N, 4) float32 xyxy in its pixels, ``scores`` (N,) and ``labels`` (N,) int64 out.

    Raises what torch's exporter raises for a network that it does not take.
    """
    from onnx import compose

    for name in ("onnx_ir", "onnxscript"):  # they say of each of their passes what it removed
        logging.getLogger(name).setLevel(logging.WARNING)
    looked_at = _traced(network.cpu().to(memory_format=torch.contiguous_format).eval())
    prepared = compose.add_prefix(_preparation(image_size, square, looked_at.ir_version), "prepared/")
    joined = compose.merge_models(prepared, looked_at, io_map=[(f"prepared/{part}", part) for part in _PARTS])
    _rename_input(joined, f"prepared/{INPUT}")
    for node in joined.graph.node:  # where in this machine's files each was traced
        node.ClearField("metadata_props")
    return joined


def _preparation(image_size: int, square: bool, ir_version: int) -> ModelProto:
    from onnx import parser

    resized_size = (_SQUARE if square else _PAD).format(size=image_size if square else float(image_size))
    return parser.parse_model(
        _PREPARATION.format(ir_version=ir_version, opset=OPSET, multiple=PAD_MULTIPLE, resized_size=resized_size)
    )


def _traced(network: nn.Module) -> ModelProto:
    """Return ``network`` alone, for pictures padded to any multiple of ``PAD_MULTIPLE`` px."""
    height, width = _TRACED
    example: tuple[Tensor, ...] = (
        torch.zeros(1, 3, height, width, dtype=torch.uint8), torch.ones(1, height, width, dtype=torch.bool),
        torch.tensor([height, width - 7]), torch.tensor([2 * height, 2 * width]),
    )  # fmt: skip
    rows, columns = (PAD_MULTIPLE * torch.export.Dim(name, min=1, max=_MOST_BLOCKS) for name in ("rows", "columns"))
    shapes: Any = ({2: rows, 3: columns}, {1: rows, 2: columns}, None, None)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own, of names that it gives and of what torchvision calls
        program = torch.onnx.export(
            network, example, dynamo=True, opset_version=OPSET, dynamic_shapes=shapes, verbose=False,
            input_names=list(_PARTS), output_names=list(OUTPUTS),
            optimize=False,  # onnxscript 0.7's optimizer leaves names undefined in Deformable DETR's graph
        )  # fmt: skip
    assert program is not None
    return program.model_proto


def _rename_input(model: ModelProto, name: str) -> None:
    for node in model.graph.node:
        for place, value in enumerate(node.input):
            if value == name:
                node.input[place] = INPUT
    for value in model.graph.input:
        if value.name == name:
            value.name = INPUT
    for output in model.graph.output:  # its lengths are sums of the exporter's own names
        output.type.tensor_type.shape.dim[0].dim_param = "found"
