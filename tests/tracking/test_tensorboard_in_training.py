"""TensorBoard files of a training that is killed and resumed."""

from killed_parts import TINY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from winnow.checkpoints.file import read_checkpoint


def test_a_killed_and_resumed_training_shows_every_step_once(warm_program, tmp_path):
    arguments = [*TINY, "training.max_epochs=4", "tracking.tensorboard=true", "hydra.run.dir=run"]
    assert warm_program.start(tmp_path, *arguments, TROUBLE="kill forward 15").wait() == -9
    killed_at = read_checkpoint(tmp_path / "run/checkpoints/last.pth")["step"]
    assert 0 < killed_at < 12
    warm_program.run(tmp_path, *arguments, "training.resume=auto")
    shown = EventAccumulator(str(tmp_path / "run/tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert [event.step for event in shown.Scalars("train/loss")] == sorted({*range(1, 13)})
    assert [event.step for event in shown.Scalars("val/map")] == [3, 6, 9, 12]
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 2
