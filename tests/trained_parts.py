"""The short run that the tests of trained models share."""

RUN = [
    "model=fcos_tiny", "tracking=off", "data.num_train=24", "data.num_val=8", "training.max_epochs=2", "training.batch_size=4",
    "training.num_workers=0", "training.ema.decay=0.5", "training.scheduler.warmup_steps=2", "evaluation.score_threshold=0",
]  # fmt: skip
