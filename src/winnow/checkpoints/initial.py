"""What a stage takes over: whose weights ``init_from`` means, and how far its model may differ from the one they come from."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor, nn

from winnow.checkpoints.class_order import ClassHead, in_class_order
from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.layouts import aligned, tensors_of, with_frozen_weights
from winnow.checkpoints.references import FileTensor
from winnow.checkpoints.seal import is_sealed
from winnow.checkpoints.state_dicts import LoadReport, compared, load_matching, read_state
from winnow.errors import CheckpointError, ConfigError, WeightsError
from winnow.run_folder import write_whole

logger = logging.getLogger(__name__)

REPORT = "init_from.json"
_OF_STAGE = re.compile(r"(?P<stage>[\w.-]+):(?P<which>best|last)")


@dataclass(frozen=True)
class StageWeights:
    """``<stage>:best`` or ``<stage>:last``: a checkpoint of a stage in the same run folder."""

    stage: str
    which: str

    @classmethod
    def read(cls, init_from: str | None) -> StageWeights | None:
        """Parse ``<stage>:best`` or ``<stage>:last``; return None for a path or None."""
        match = _OF_STAGE.fullmatch(init_from) if init_from is not None else None
        return cls(match["stage"], match["which"]) if match else None

    def path(self, run_folder: Path) -> Path:
        return run_folder / self.stage / "checkpoints" / f"{self.which}.pth"


def initial_weights(init_from: str, run_folder: Path | None) -> Path:
    """Return the file that ``init_from`` means in ``run_folder``, which holds a folder per stage (None: there are no
    stages). ConfigError where it is not there, with what to do.
    """
    named = StageWeights.read(init_from)
    if named is not None and run_folder is None:
        raise ConfigError(f"training.init_from={init_from!r} names a stage, but stage=single has none; give a path")
    path = Path(init_from) if named is None or run_folder is None else named.path(run_folder)
    if path.is_file():
        return path
    if named is None:
        raise ConfigError(f"training.init_from={init_from!r}: there is no file {path.absolute()}")
    if named.which == "best" and (path.parent / "last.pth").is_file():
        raise ConfigError(
            f"training.init_from={init_from!r}: {named.stage} never gave a value of its objective, so it has no best.pth; "
            f"start from {named.stage}:last"
        )
    raise ConfigError(
        f"training.init_from={init_from!r}: there is no {path}; run the stages in order (a pipeline), or stage={named.stage} "
        f"first with hydra.run.dir={run_folder}, or give training.init_from=PATH (null: random weights)"
    )


def require_allowed(report: LoadReport, prefixes: Sequence[str]) -> None:
    """Raise WeightsError that lists every parameter outside of ``prefixes`` that is not the same on both sides."""
    kinds = {
        "missing (in the model only)": report.missing,
        "reshaped": report.reshaped,
        "unexpected (in the weights only)": report.unexpected,
    }
    for prefix in prefixes:
        if not any(is_under(name, [prefix]) for names in kinds.values() for name in names):
            logger.info("stage.init_allow_missing: nothing differs under %s", prefix)
    wrong = {kind: [name for name in names if not is_under(name, prefixes)] for kind, names in kinds.items()}
    if any(wrong.values()):
        lists = "".join(f"\n  {len(names)} {kind}: {', '.join(names)}" for kind, names in wrong.items() if names)
        raise WeightsError(
            f"training.init_from={report.source}: {report.matched} parameters match, but others differ where "
            f"stage.init_allow_missing={list(prefixes)} does not allow it:{lists}\nadd the prefixes of those that are meant to "
            "differ, as [heads.dense]"
        )


def is_under(name: str, prefixes: Iterable[str]) -> bool:
    """Return whether a parameter's name begins with one of the dotted ``prefixes``."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def write_report(report: LoadReport, folder: Path) -> None:
    """Write ``init_from.json``: every name, where the log shows the first few."""
    write_whole(folder / REPORT, json.dumps(asdict(report), indent=2) + "\n")


def load_initial_weights(
    model: nn.Module,
    path: Path,
    may_differ: Sequence[str] | None = None,
    frozen_source: str | None = None,
    head: ClassHead | None = None,
) -> LoadReport:
    """Take what fits by name and shape from a checkpoint or a weights file, and say what did and what did not.

    The averaged weights where a checkpoint has them. ``may_differ`` (``stage.init_allow_missing``) holds the prefixes of the
    parameters that need not be the same on both sides; None: all. ``frozen_source`` (training.frozen_source) says where a file
    is now that a checkpoint takes frozen weights from. Rows of classes follow their names (``head``: the model's). Raises
    CheckpointError for a damaged checkpoint, WeightsError for a file that can't be read, fits nowhere, or differs elsewhere.
    """
    classes: Sequence[str] | None
    in_file: dict[str, FileTensor] = {}  # of a checkpoint of winnow's, which may be deleted, nothing is referenced
    if is_sealed(path):
        state, classes = _checkpoint_weights(path, frozen_source)
    else:
        state, in_file, classes = _foreign_weights(path, model)
    if head is not None:
        state = in_class_order(state, model.state_dict(), head, classes, str(path))
    report = compared(model.state_dict(), state, str(path))
    if report.matched == 0:
        raise WeightsError(f"training.init_from={path}: none of its {len(state)} tensors fits this model")
    if may_differ is not None:
        require_allowed(report, may_differ)
    load_matching(model, state, str(path), in_file)
    report.log()
    return report


def _checkpoint_weights(path: Path, frozen_source: str | None) -> tuple[dict[str, Tensor], Sequence[str] | None]:
    """Return the tensors and the names of the classes."""
    checkpoint = with_frozen_weights(read_checkpoint(path), path, frozen_source)
    average = checkpoint["ema_state_dict"]
    weights = average if average is None else average.get("weights") if isinstance(average, Mapping) else average
    state = tensors_of(checkpoint["model_state_dict"] if average is None else weights)
    classes = checkpoint["classes"]
    are_names = classes is None or (
        isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)
    )
    if state is None or not are_names:
        raise CheckpointError(
            f"{path} holds no weights as winnow writes them: tensors by name, and classes by their names"
        )
    return state, classes


def _foreign_weights(
    path: Path, model: nn.Module
) -> tuple[dict[str, Tensor], dict[str, FileTensor], Sequence[str] | None]:
    """Return the tensors by the model's names, which of the file each is, and the names of the classes, None if not known."""
    given = read_state(path)
    state, changed = aligned(given, model.state_dict())
    if changed is not None:
        logger.warning("weights of %s: %s, for so they fit this model", path, changed)
    names = {id(value): name for name, value in given.items()}
    in_file = {name: FileTensor(str(path), path, names[id(value)]) for name, value in state.items()}
    return state, in_file, given.classes
