"""Which files are mutated, and the tests of each: those that call its functions. Tests of whole sweeps and those that are marked
slow are left out. Quick ones run first, whatever their order here.

The code of COCO AP (families/detection/metrics) is left out: benchmarks/evaluation_rivals.py finds no difference between it,
hotcoco and pycocotools in 5,000 random sets, so it may be replaced."""

from __future__ import annotations

ENGINE, DETECTION, SWEEPER, SWEEP = (
    "src/winnow/engine", "src/winnow/families/detection", "src/hydra_plugins/winnow_sweeper", "src/winnow/sweep",
)  # fmt: skip
FAMILY_TESTS, SWEEPER_TESTS = "tests/families/detection", "tests/winnow_sweeper"

TESTS_OF: dict[str, tuple[str, ...]] = {
    f"{ENGINE}/step.py": (
        "tests/engine/test_step.py", "tests/engine/test_counts.py", "tests/engine/test_gradients.py",
        "tests/engine/test_precision.py", "tests/engine/test_memory.py", "tests/engine/test_loop.py",
    ),
    f"{ENGINE}/loop.py": (
        "tests/checkpoints/test_disk_room.py", "tests/engine/test_stop.py", "tests/engine/test_state.py",
        "tests/engine/test_counts.py", "tests/engine/test_restorable.py", "tests/engine/test_resume_changed.py",
        "tests/engine/test_loop.py",
    ),
    f"{ENGINE}/state.py": ("tests/engine/test_state.py", "tests/engine/test_loop.py"),
    f"{ENGINE}/evaluate.py": (
        "tests/engine/test_evaluate.py", "tests/engine/test_counts.py", "tests/engine/test_memory.py",
        "tests/contracts/test_evaluation.py", "tests/engine/test_loop.py",
    ),
    f"{ENGINE}/ema.py": ("tests/engine/test_ema.py", "tests/engine/test_frozen.py", "tests/engine/test_loop.py"),
    f"{ENGINE}/schedule.py": ("tests/engine/test_schedule.py", "tests/engine/test_resume_changed.py"),
    f"{ENGINE}/precision.py": ("tests/engine/test_precision.py", "tests/engine/test_memory.py"),
    f"{DETECTION}/transforms.py": (
        f"{FAMILY_TESTS}/test_transforms.py", f"{FAMILY_TESTS}/test_trainable.py", f"{FAMILY_TESTS}/test_samples.py",
    ),
    f"{DETECTION}/samples.py": (f"{FAMILY_TESTS}/test_trainable.py", f"{FAMILY_TESTS}/test_samples.py"),
    f"{DETECTION}/models/set_criterion.py": (
        f"{FAMILY_TESTS}/models/test_set_criterion.py", f"{FAMILY_TESTS}/models/test_deformable_detr.py",
    ),
    f"{DETECTION}/models/matcher.py": (
        f"{FAMILY_TESTS}/models/test_matcher.py", f"{FAMILY_TESTS}/models/test_set_criterion.py",
    ),
    f"{DETECTION}/models/fcos.py": (f"{FAMILY_TESTS}/models/test_fcos.py", "tests/contracts/test_task.py"),
    f"{DETECTION}/models/fcos_matching.py": (f"{FAMILY_TESTS}/models/test_fcos.py",),
    f"{SWEEPER}/_judge.py": (f"{SWEEPER_TESTS}/test_judge.py",),
    f"{SWEEPER}/_supply.py": (
        f"{SWEEPER_TESTS}/test_supply.py", f"{SWEEPER_TESTS}/test_points.py", f"{SWEEPER_TESTS}/test_trouble_of_place.py",
    ),
    f"{SWEEPER}/_trials_file.py": (
        f"{SWEEPER_TESTS}/test_secrets_of_sweep.py", f"{SWEEPER_TESTS}/test_trials_file.py",
    ),
    f"{SWEEPER}/_trials_rows.py": (f"{SWEEPER_TESTS}/test_trials_file.py",),
    f"{SWEEP}/pruners.py": ("tests/sweep/test_median_threshold.py", "tests/sweep/test_forecast_pruner.py"),
    f"{SWEEP}/forecast.py": ("tests/sweep/test_forecast.py", "tests/sweep/test_forecast_pruner.py"),
    f"{SWEEP}/promotion.py": ("tests/sweep/test_promoted_entries.py", "tests/sweep/test_promotion_trust.py"),
    f"{SWEEP}/promotion_command.py": (
        f"{SWEEPER_TESTS}/test_secrets_of_sweep.py", "tests/sweep/test_promotion_trust.py",
    ),
    f"{SWEEP}/promoted_entries.py": ("tests/sweep/test_promoted_entries.py",),
}  # fmt: skip
