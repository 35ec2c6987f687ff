"""``python -m winnow`` is ``winnow``."""

from winnow.commands.cli import main

raise SystemExit(main())
