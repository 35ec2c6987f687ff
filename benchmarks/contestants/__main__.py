"""One contestant in a process of its own: python -m contestants ENGINE CONFIG_JSON BLOCK, started by engine.py."""

from __future__ import annotations

import json
import sys
import warnings

from contestants.turns import Channel

if __name__ == "__main__":
    channel = Channel()
    warnings.simplefilter("ignore")
    from contestants.engines import ENGINES

    ENGINES[sys.argv[1]](json.loads(sys.argv[2]), channel, int(sys.argv[3]))
