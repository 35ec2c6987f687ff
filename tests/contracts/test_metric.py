"""Every metric of winnow keeps the contract of ``protocols.Metric``."""

from detection_parts import batch, nothing_found, target, truth_as_detections
from ink_parts import moved, some, tiles, truth
from map_parts import CITIES
from map_parts import batch as map_batch
from map_parts import found as found_lines
from map_parts import lines as map_lines
from pair_model_parts import pair_batch as one_batch
from pair_model_parts import persons

from winnow.families.detection.batch import Detections
from winnow.families.detection.metrics.coco_ap import CocoAp
from winnow.families.ink.metric import InkMetric
from winnow.families.maps.lines import CLASSES
from winnow.families.maps.metric import MapMetric
from winnow.families.pairs.metrics.pair_metric import PairMetric
from winnow.testing.metric import MetricContract


class CocoApContract(MetricContract):
    backend = "hotcoco"

    def make_metric(self):
        return CocoAp(["car", "bus"], [1, 2], score_threshold=0.0, max_detections=10, backend=self.backend)

    def make_parts(self):
        full = target([[5, 5, 40, 40], [30, 20, 90, 60]], [0, 1], image_id=1)
        other = target([[10, 10, 30, 50]], [0], image_id=2)
        bare = target([], [], image_id=3)
        found = truth_as_detections(full, score=0.8)
        wrong = Detections(other.boxes + 3, other.boxes.new_tensor([0.6]), other.labels)
        false = Detections(full.boxes, full.boxes.new_tensor([0.7, 0.5]), full.labels)
        return [
            ([found, nothing_found()], batch(full, target([[1, 1, 9, 9]], [1], image_id=4))),
            ([wrong], batch(other)),
            ([false], batch(bare)),
        ]


class TestCocoAp(CocoApContract):
    pass


class TestCocoApByPycocotools(CocoApContract):
    backend = "pycocotools"


class TestPairs(MetricContract):
    """By day, at night, and of nobody."""

    def make_metric(self):
        return PairMetric(["person"], score_threshold=0.0)

    def make_parts(self):
        size = (512, 640)
        day = persons([100, 100, 140, 200], [300, 100, 340, 180], image_id="set06/V000/I00019", size=size)
        night = persons([50, 50, 90, 150], image_id="set09/V000/I00019", size=size)
        bare = persons(image_id="set09/V000/I00039", size=size)
        false = Detections(day.boxes[:1], day.boxes.new_tensor([0.7]), day.labels[:1])
        return [([truth_as_detections(day)], one_batch(day)), ([false], one_batch(night)), ([false], one_batch(bare))]


class TestInk(MetricContract):
    full = True

    def make_metric(self):
        return InkMetric(0.5, 0.3, full=self.full)

    def make_parts(self):
        whole = tiles(((4, 0, 9), 3.0), ((8, 2, 4), 1.5), None, ((12, 0, 15), 6.0))
        parts = [some(whole, 0, 1), some(whole, 3), some(whole, 2)]
        # Of an empty tile something is found.
        found = [truth(parts[0]), moved(truth(parts[1]), 1), truth(some(whole, 0))]
        return list(zip(found, parts, strict=True))


class TestInkWithoutFullHeads(TestInk):
    full = False


class TestMaps(MetricContract):
    def make_metric(self):
        return MapMetric(CLASSES, CITIES, max_lines=50)

    def make_parts(self):
        one = map_lines(("divider", [[0, 0], [0, 20]]), ("ped_crossing", [[1, 1], [4, 1], [4, 3], [1, 1]]))
        other = map_lines(("divider", [[5, 0], [5, 20]]), ("boundary", [[9, -20], [9, 20]]))
        return [
            (
                [found_lines(one, score=0.5), found_lines(other, score=0.5, moved=(0.7, 0.0))],
                map_batch(one, other, cities=CITIES),
            ),
            ([found_lines(one, score=0.7)], map_batch(other)),
            ([found_lines(other, score=0.6)], map_batch(map_lines())),
        ]
