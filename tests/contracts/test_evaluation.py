"""Every evaluation of winnow keeps the contract of ``protocols.Evaluation``, with the small models of its family."""

import pytest
import torch
from composed import compose_plain
from drawn_ink import stroke_values
from ink_parts import SETTINGS
from map_model_parts import tiny_map_task
from pair_model_parts import tiny_task
from pairs_parts import synthetic_values

from winnow.families.detection.data import digits_data
from winnow.families.detection.evaluation import box_evaluation
from winnow.families.detection.models.deformable_detr import deformable_detr_tiny
from winnow.families.detection.models.fcos_tiny import fcos_tiny
from winnow.families.ink.evaluation import ink_evaluation
from winnow.families.ink.model.inktrace import inktrace
from winnow.families.ink.strokes.data import ink_strokes
from winnow.families.maps.data import map_synthetic
from winnow.families.maps.evaluation import map_evaluation
from winnow.families.pairs.data import pairs_synthetic
from winnow.families.pairs.evaluation import pair_evaluation
from winnow.testing.evaluation import EvaluationContract


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def values_of(config, key):
    return {name: value for name, value in config[key].items() if name != "_target_"}


class TestBoxes(EvaluationContract):
    @pytest.fixture(autouse=True)
    def _values(self, folder):
        self.config = compose_plain(
            "model=fcos_tiny", "model.channels=[8,8,16,16]", "model.head_channels=32", "data.num_train=4", "data.num_val=3",
            "data.size=64", "data.image_size=64", f"data.root={folder / 'digits'}", "evaluation.score_threshold=0",
        )  # fmt: skip

    def make_evaluation(self):
        return box_evaluation(**values_of(self.config, "evaluation"))

    def make_data(self, loading):
        return digits_data(loading=loading, **values_of(self.config, "data"))

    def make_task(self, arguments):
        torch.manual_seed(0)
        return fcos_tiny(**arguments, **values_of(self.config, "model"))


class TestBoxesOfDetr(TestBoxes):
    @pytest.fixture(autouse=True)
    def _model(self, _values):
        self.model = values_of(
            compose_plain("model=deformable_detr_tiny", "model.d_model=32", "model.ffn_dim=64"), "model"
        )

    def make_task(self, arguments):
        torch.manual_seed(0)
        return deformable_detr_tiny(**arguments, **self.model)


class TestPairs(EvaluationContract):
    @pytest.fixture(autouse=True)
    def _values(self, folder):
        self.pairs = synthetic_values(folder / "pairs", num_train=4, num_val=3)
        self.evaluation = values_of(compose_plain("model=pair_faster_rcnn_tiny", "data=pairs_synthetic"), "evaluation")

    def make_evaluation(self):
        return pair_evaluation(**self.evaluation)

    def make_data(self, loading):
        return pairs_synthetic(loading=loading, **self.pairs)

    def make_task(self, arguments):
        return tiny_task(**arguments, macl={"weight": 0.2})


class TestInk(EvaluationContract):
    @pytest.fixture(autouse=True)
    def _values(self, folder):
        self.strokes = stroke_values(folder / "strokes", num_train=4, num_val=3, image_size=32)
        self.evaluation = values_of(compose_plain("model=inktrace", "data=ink_strokes"), "evaluation")

    def make_evaluation(self):
        return ink_evaluation(**self.evaluation)

    def make_data(self, loading):
        return ink_strokes(loading=loading, **self.strokes)

    def make_task(self, arguments):
        torch.manual_seed(0)
        return inktrace(**arguments, **SETTINGS)


class TestMaps(EvaluationContract):
    def make_evaluation(self):
        return map_evaluation(**values_of(compose_plain("evaluation=maps"), "evaluation"))

    def make_data(self, loading):
        values = values_of(compose_plain("data=map_synthetic"), "data")
        return map_synthetic(loading=loading, **values | {"num_train": 4, "num_val": 3, "image_size": 32})

    def make_task(self, arguments):
        return tiny_map_task(**arguments)
