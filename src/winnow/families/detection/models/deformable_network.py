"""transformers' Deformable DETR as winnow runs it: every layer's outputs, boxes in float32, the paper's start."""

from __future__ import annotations

import importlib.util
import logging
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig
from transformers.models.deformable_detr.modeling_deformable_detr import inverse_sigmoid

from winnow.checkpoints.class_order import ClassHead, in_class_order
from winnow.checkpoints.state_dicts import load_matching, of_classes, read_state
from winnow.errors import WeightsError
from winnow.families.detection.models.conv_backbone import ConvBackbone
from winnow.families.detection.models.deformable_attention import UncheckedEncoderLayer
from winnow.families.detection.models.pixels import PixelNormalizer
from winnow.families.pretrained_folder import model_from_folder

logger = logging.getLogger(__name__)

CLASS_PRIOR = 0.01
INITIAL_SIZE_LOGIT = -2.0  # boxes start at 12 % of the image's sides
ATTENTION_START = re.compile(r"(sampling_offsets|attention_weights)\.")  # transformers starts these as the paper does
BOX_HEAD_END = re.compile(r"bbox_embed\.(\d+)\.layers\.2\.(weight|bias)$")
EARLY_BACKBONE = re.compile(r"backbone\.model\.(embedder\.|encoder\.stages\.0\.|conv1\.|bn1\.|layer1\.)")


class SetOutputs(NamedTuple):
    """Of all L decoder layers, the last one last: ``logits`` (L, B, Q, C) and ``boxes_cxcywh`` (L, B, Q, 4) in
    fractions of each image without its padding."""

    logits: Tensor
    boxes_cxcywh: Tensor


class DeformableDetrNetwork(DeformableDetrForObjectDetection):
    """The network of transformers, so that its weights load; its forward gives all decoder layers, without labels.

    Every decoder layer has its own heads, whether fresh or loaded, unless the config's ``share_heads`` says that all have the
    last one's, as in the authors' code without refinement. Only runs after ``make_ready``.
    """

    # transformers ties the heads of all layers in a fresh network, not in most loaded ones, and fails on a meta tensor
    # where it compares tied heads of another number of classes. The box heads stay tied to the decoder's all the same.
    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012 — declared so by transformers
    normalize: PixelNormalizer

    def forward(self, images: Tensor, pixel_mask: Tensor) -> SetOutputs:
        """Run the network on ``images`` (B, 3, H, W) uint8, ``pixel_mask`` (B, H, W) True on image and False on padding."""
        decoded = self.model(self.normalize(images, pixel_mask), pixel_mask=pixel_mask)
        states = decoded.intermediate_hidden_states.unbind(1)
        references = [decoded.init_reference_points, *decoded.intermediate_reference_points.unbind(1)[:-1]]
        logits = [head(state) for head, state in zip(self.class_embed, states, strict=True)]
        boxes = [
            _around(reference, head(state))
            for head, state, reference in zip(self.bbox_embed, states, references, strict=True)
        ]
        return SetOutputs(torch.stack(logits), torch.stack(boxes))


class TinyDeformableDetrNetwork(DeformableDetrNetwork):
    """The same with a ``ConvBackbone``, whose channels stand in the config as those of the ResNet that it replaces."""

    def __init__(self, config: DeformableDetrConfig) -> None:
        super().__init__(config)
        resnet: Any = config.backbone_config
        self.model.backbone.model = ConvBackbone([resnet.embedding_size, *resnet.hidden_sizes])


class Float32Linear(nn.Linear):
    """A linear layer that autocast leaves alone."""

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


class Float32GroupNorm(nn.GroupNorm):
    """A group norm that autocast leaves alone, as CUDA's does anyway and the CPU's does not."""

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


def resnet_config(**sizes: Any) -> ResNetConfig:
    """Return the config of a ResNet of transformers (ResNet-50 without ``sizes``) that gives the maps of strides 8, 16
    and 32.
    """
    values: dict[str, Any] = {"out_features": ["stage2", "stage3", "stage4"], **sizes}
    return ResNetConfig(**values)


def fresh_network(kind: type[DeformableDetrNetwork], config: DeformableDetrConfig) -> DeformableDetrNetwork:
    """Build a network with random weights, all of it trainable."""
    network = kind(config)
    make_ready(network, random_names=None)
    choose_trainable(network, weights_loaded=False)
    return network


def network_from_file(
    kind: type[DeformableDetrNetwork], config: DeformableDetrConfig, path: Path
) -> DeformableDetrNetwork:
    """Build a network whose entries come from a state dict or a winnow checkpoint, where name and shape fit; the rest
    starts random. Raises WeightsError if the file is unreadable, or fills less than half of the network.
    """
    network = fresh_network(kind, config)
    head = ClassHead(class_names(config), class_rows(network))
    report = load_matching(network, of_classes(read_state(path), network, head, str(path)), str(path))
    report.log()
    report.require_match()
    choose_trainable(network, weights_loaded=True)
    return network


def network_from_folder(
    kind: type[DeformableDetrNetwork], config: DeformableDetrConfig, folder: Path
) -> DeformableDetrNetwork:
    """Build the same from a folder of ``save_pretrained``, with transformers' renaming of older weights."""
    network, report = model_from_folder(kind, folder, config=config, ignore_mismatched_sizes=True)
    _order_classes(network, folder, report.random_names)
    make_ready(network, report.random_names)
    choose_trainable(network, weights_loaded=True)
    return network


def _order_classes(network: DeformableDetrNetwork, folder: Path, random_names: Collection[str]) -> None:
    """Put the rows of loaded class heads into the order of the run's classes, by the names in the folder's config."""
    rows = {name: count for name, count in class_rows(network).items() if name not in random_names}
    if not (folder / "config.json").is_file():
        return
    stored: Any = DeformableDetrConfig.from_pretrained(folder, local_files_only=True)
    state = network.state_dict()
    head = ClassHead(class_names(network.config), rows)
    network.load_state_dict(
        in_class_order(state, state, head, class_names(stored), str(folder)) if rows else {}, strict=False
    )


def stored_config(folder: Path, options: Mapping[str, Any]) -> DeformableDetrConfig:
    """Return the config beside the weights with ``options`` put over it. Raises WeightsError if it is absent, of
    another model, of the two-stage variant, or needs timm and timm is not installed.
    """
    try:
        values, _ = DeformableDetrConfig.get_config_dict(folder, local_files_only=True)
    except OSError as error:
        raise WeightsError(f"{str(folder)!r} has no readable config.json: {error}") from error
    kind = values.get("model_type")
    if kind != DeformableDetrConfig.model_type or values.get("two_stage"):
        what = "the two-stage variant" if kind == DeformableDetrConfig.model_type else f"a {kind!r} model"
        raise WeightsError(f"{str(folder)!r} holds {what}; winnow runs one-stage deformable_detr")
    config: Any = DeformableDetrConfig.from_dict(values, **options)
    for name in ("with_box_refine", "num_queries"):
        if name in values and values[name] != options[name]:
            logger.warning("model.%s=%s, but the weights were trained with %s", name, options[name], values[name])
    if config.backbone_config.model_type == "timm_backbone" and importlib.util.find_spec("timm") is None:
        raise WeightsError(
            f"the weights in {str(folder)!r} have a timm backbone, and timm is not installed: `pip install timm`"
        )
    return config


def make_ready(network: DeformableDetrNetwork, random_names: Collection[str] | None) -> None:
    """Mend what transformers leaves unlike the paper, after building or loading.

    ``random_names`` are the entries that loaded weights did not fill, None when nothing was loaded. Class heads get the
    focal prior, box heads start at the reference points, queries apart from each other (transformers draws them so
    small that all reference points start at the image's centre).
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters(remove_duplicate=False):
            if random_names is None or name in random_names:
                _start_as_in_paper(name, parameter, network.config.with_box_refine)
    _keep_in_float32(network)
    for layer in network.model.encoder.layers:
        layer.__class__ = UncheckedEncoderLayer
    if getattr(network.config, "share_heads", False):
        share_heads(network)
    network.normalize = PixelNormalizer()


def share_heads(network: DeformableDetrNetwork) -> None:
    """Give all decoder layers the last one's heads, the ones that predict."""
    classes: Any = network.class_embed
    boxes: Any = network.bbox_embed
    network.class_embed = nn.ModuleList([classes[-1]] * len(classes))
    network.bbox_embed = nn.ModuleList([boxes[-1]] * len(boxes))


def choose_trainable(network: DeformableDetrNetwork, weights_loaded: bool) -> None:
    """Freeze the stem and the first stage of a loaded ResNet, as in the paper; all else learns. transformers freezes
    the whole of its own ResNet and nothing of timm's.
    """
    frozen = 0
    for name, parameter in network.named_parameters():
        is_early = weights_loaded and EARLY_BACKBONE.search(name) is not None
        parameter.requires_grad_(not is_early)
        frozen += parameter.numel() if is_early else 0
    if frozen:
        logger.info("backbone: stem and first stage keep their loaded weights (%s values frozen)", frozen)


def class_rows(network: DeformableDetrNetwork) -> dict[str, int]:
    """Return the entries that hold a row per class, for ``class_order.ClassHead``."""
    return {name: 1 for name in network.state_dict() if name.startswith("class_embed.")}


def class_names(config: DeformableDetrConfig) -> list[str]:
    """Return the classes of a config in their order."""
    names: Any = config.id2label
    return [names[index] for index in sorted(names)]


def _around(reference: Tensor, delta: Tensor) -> Tensor:
    logit = inverse_sigmoid(reference.float())
    return (delta + nn.functional.pad(logit, (0, 4 - logit.shape[-1]))).sigmoid()


def _start_as_in_paper(name: str, parameter: nn.Parameter, with_box_refine: bool) -> None:
    if "backbone" in name or ATTENTION_START.search(name):
        return
    end = BOX_HEAD_END.search(name)
    if end is not None:
        nn.init.zeros_(parameter)
        # With refinement the later layers correct the first one's box, so only the first brings the size in.
        if end[2] == "bias" and (end[1] == "0" or not with_box_refine):
            parameter[2:] = INITIAL_SIZE_LOGIT
    elif "class_embed" in name:
        if name.endswith("bias"):
            nn.init.constant_(parameter, -math.log(1 / CLASS_PRIOR - 1))
    elif "query_position_embeddings" in name:
        nn.init.normal_(parameter)
    elif parameter.ndim > 1 and "level_embed" not in name:
        nn.init.xavier_uniform_(parameter)


def _keep_in_float32(network: DeformableDetrNetwork) -> None:
    """Keep in float32 what makes boxes and reference points: a bfloat16 box has steps of up to 1/256 of the image."""
    box_heads: Any = network.bbox_embed
    for layers in [network.class_embed, *(head.layers for head in box_heads)]:
        for index, linear in enumerate(layers):
            layers[index] = _float32_linear(linear)
    if network.config.with_box_refine:
        network.model.decoder.bbox_embed = network.bbox_embed
    network.model.reference_points = _float32_linear(network.model.reference_points)
    # The precision of sampling locations follows these norms' output.
    for projection in network.model.input_proj:
        norm = projection[1]
        exact = Float32GroupNorm(norm.num_groups, norm.num_channels, eps=norm.eps)
        exact.weight, exact.bias = norm.weight, norm.bias
        projection[1] = exact


def _float32_linear(linear: Any) -> Float32Linear:
    exact = Float32Linear(linear.in_features, linear.out_features)
    exact.weight, exact.bias = linear.weight, linear.bias
    return exact
