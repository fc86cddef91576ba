"""Entry point of the `dreamprm` command. `--version` answers before anything is imported."""

from __future__ import annotations

import sys


def main() -> None:
    if sys.argv[1:] in (["--version"], ["-V"]):
        from dreamprm_cli import __version__

        print(f"dreamprm {__version__}")
        return
    try:
        from dreamprm_cli.app import run

        run()
    except KeyboardInterrupt:  # while modules are still being imported, or an error is being told
        sys.exit(130)


if __name__ == "__main__":
    main()
