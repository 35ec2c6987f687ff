"""Names in a run folder that several parts of winnow must agree on."""

PIPELINE_RECORD = "pipeline.yaml"
"""Where a run folder holds a folder per stage: what the stages began with."""
