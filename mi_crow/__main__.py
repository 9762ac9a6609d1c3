"""`python -m mi_crow` is the `mi-crow` command."""

from mi_crow.cli import main

raise SystemExit(main())
