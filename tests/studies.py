"""Studies in memory with finished trials, for tests of pruners."""

import optuna
from optuna.trial import TrialState, create_trial


def curve(values, first=1, every=1):
    """Return values of epochs ``first``, ``first`` + ``every`` …; a mapping is taken as it is."""
    return dict(values) if isinstance(values, dict) else {first + every * n: value for n, value in enumerate(values)}


def study_of(pruner, finished, direction="maximize", state=TrialState.COMPLETE):
    study = optuna.create_study(direction=direction, pruner=pruner)
    for values in finished:
        reported = curve(values)
        value = list(reported.values())[-1] if state == TrialState.COMPLETE else None
        study.add_trial(create_trial(state=state, value=value, intermediate_values=reported))
    return study


def asked(study, values):
    """Return a running trial of ``study`` that has reported ``values``; what the pruner says about it now."""
    trial = study.ask()
    for epoch, value in curve(values).items():
        trial.report(value, epoch)
    return trial.should_prune()


def pruned_at(study, values):
    """Return the epoch in which a new trial is pruned, asked after each report; None where it runs to its end."""
    trial = study.ask()
    for epoch, value in curve(values).items():
        trial.report(value, epoch)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
    study.tell(trial, 0.0)
    return None


def messages(caplog):
    """Return what winnow logged."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("winnow")]
