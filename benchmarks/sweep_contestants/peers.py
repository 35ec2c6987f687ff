"""The contestants that are no Hydra sweepers: ``python peers.py KIND TRIALS SLOTS SECONDS TICKETS STORAGE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import optuna
from sweep_contestants_work import work


def bare_optuna(trials: int, slots: int, seconds: list[float], tickets: str, storage: str) -> None:
    """Run Optuna's own loop, with threads for slots."""
    study = optuna.create_study(storage=storage, study_name="bench", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: work(trial.suggest_float("x", 0, 1), seconds, tickets), n_trials=trials, n_jobs=slots)


def ray_tune(trials: int, slots: int, seconds: list[float], tickets: str, storage: str, scheduler: str | None) -> None:
    """Run Ray Tune with Optuna's search, and its own ways to stop trials early."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    folder = str(Path(__file__).parent)
    schedulers = {"median": MedianStoppingRule, "asha": ASHAScheduler}
    ray.init(
        num_cpus=slots, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": folder}}, logging_level=40
    )

    def trainable(config: dict[str, float]) -> None:
        tune.report({"value": work(config["x"], seconds, tickets), "training_iteration": 1})

    tuner = tune.Tuner(
        trainable,
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(
            metric="value", mode="min", num_samples=trials,
            search_alg=ConcurrencyLimiter(OptunaSearch(), max_concurrent=slots),
            scheduler=schedulers[scheduler]() if scheduler else None,
        ),
        run_config=tune.RunConfig(name="bench", storage_path=str(Path(tickets).parent / "ray"), verbose=0),
    )  # fmt: skip
    results = tuner.fit()
    if results.num_errors or len(results) != trials:
        raise RuntimeError(f"{results.num_errors} of {len(results)} trials failed, {trials} were asked for")


if __name__ == "__main__":
    kind, trials, slots, seconds, tickets, storage = sys.argv[1:]
    arguments = (int(trials), int(slots), json.loads(seconds), tickets, storage)
    if kind == "optuna":
        bare_optuna(*arguments)
    else:
        ray_tune(*arguments, kind.partition("-")[2] or None)
