"""Small data sets of pairs, for tests of the family."""

from composed import compose_plain


def pair_values(choice, *overrides, **changes):
    """Return the keys of ``data=choice`` for its builder."""
    values = compose_plain(f"data={choice}", *overrides)["data"] | changes
    values.pop("_target_")
    return values


def synthetic_values(folder, **changes):
    return pair_values("pairs_synthetic", root=str(folder), **{"num_train": 5, "num_val": 4} | changes)
