from hydra_plugins.winnow_sweeper._trial_task import set_others_result_aside


def test_a_result_that_lay_there_before_does_not_count(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    set_others_result_aside(tmp_path, "study 3")
    assert not (tmp_path / "result.json").exists()
    assert (tmp_path / "result.json.before").read_text() == "{}"


def test_the_result_of_the_trials_own_job_stays(tmp_path):
    set_others_result_aside(tmp_path, "study 3")
    (tmp_path / "result.json").write_text("{}")
    set_others_result_aside(tmp_path, "study 3")
    assert (tmp_path / "result.json").exists()
    set_others_result_aside(tmp_path, "other 3")  # the folder was copied into another study
    assert not (tmp_path / "result.json").exists()
