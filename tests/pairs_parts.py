"""Small data sets of pairs, for tests of the family."""

import numpy as np
from composed import compose_plain
from PIL import Image


def pair_values(choice, *overrides, **changes):
    """Return the keys of ``data=choice`` for its builder."""
    values = compose_plain(f"data={choice}", *overrides)["data"] | changes
    values.pop("_target_")
    return values


def synthetic_values(folder, **changes):
    return pair_values("pairs_synthetic", root=str(folder), **{"num_train": 5, "num_val": 4} | changes)


def write_cameras(folder, names, size=(64, 48), infrared_size=None):
    """Write pictures of noise at ``folder/{visible,infrared}/NAME.png``; those of a pair have the same edges."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        grey = np.kron(rng.integers(40, 200, (6, 8)), np.ones((8, 8)))
        visible = np.stack([grey, grey * 0.8, grey * 0.6], axis=2) + rng.normal(0, 4, (48, 64, 3))
        for modality, pixels in (("visible", visible), ("infrared", 220 - grey + rng.normal(0, 4, (48, 64)))):
            path = folder / modality / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.resize(infrared_size or size if modality == "infrared" else size).save(path)


def write_voc(path, boxes, size=(64, 48), name="person"):
    """Write boxes (xyxy) as VOC XML."""
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for x1, y1, x2, y2 in boxes
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height><depth>1</depth></size>{objects}</annotation>"
    )


def write_llvip(folder, train=("010001", "010002", "010003", "020001", "020002"), test=("190001",)):
    """Write a small LLVIP of two training scenes and one test scene, a box in each pair."""
    write_cameras(folder, [f"train/{name}" for name in train] + [f"test/{name}" for name in test])
    for name in (*train, *test):
        write_voc(folder / "Annotations" / f"{name}.xml", [(4, 4, 24, 40)])
    return folder
