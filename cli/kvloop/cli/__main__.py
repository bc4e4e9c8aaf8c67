"""`python -m kvloop.cli`: what `kvloop up` starts its parts with."""

from kvloop.cli.main import main

raise SystemExit(main())
