"""``lamina``: finds the verb, and turns every way to fail into a sentence and an exit code.

* 0: done; also when the reader of a pipe has had enough (``lamina predict … | head``);
* 2: the user's mistake, one sentence on standard error;
* 1: ours, said to be a bug; ``LAMINA_DEBUG=1`` adds the traceback;
* 130: Ctrl-C; nothing half-written is left behind.

Nothing heavy is imported here or at the top of a verb's file: ``lamina --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from lamina import __version__
from lamina.cli.console import note, one_line

# Who typed a verb did not call the estimator's method that an error names
_METHOD = re.compile(r"^Tabular(Classifier|Regressor)\.\w+: ")
VERBS = (
    "fit",
    "predict",
    "evaluate",
    "explain",
    "show",
    "encode",
    "decode",
    "render",
    "prove",
    "anatomy",
    "accelerate",
    "memories",
    "bench",
    "info",
)


class Verbs(click.Group):
    """The group of all verbs, each in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the verbs in the order of use."""
        return list(VERBS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """Import the verb's module and return its command."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"lamina.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; a closed pipe ends it quietly, and warnings read as notes."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: note(_METHOD.sub("", str(message)))
                result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still buffered must go somewhere, or Python complains when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        return result

    def main(  # type: ignore[override]  # always ends the process, as click's standalone mode does
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run and exit with a code of the module's first lines."""
        extra["standalone_mode"] = False
        try:
            code = super().main(args, prog_name or "lamina", **extra)
        except (click.Abort, KeyboardInterrupt):
            _say("stopped; nothing was written.")
            sys.exit(130)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(2)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "lamina"
            _say(f"{error.format_message()} See: {command} --help")
            sys.exit(2)
        except Exception as error:
            sys.exit(_explain(error))
        sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> int:
    """Say what went wrong, and return the exit code that says whose mistake it was."""
    from lamina.core.errors import LaminaError  # NumPy is in memory by now, or soon

    if isinstance(error, LaminaError | click.ClickException):
        _say(_METHOD.sub("", str(error)))
        return 2
    if isinstance(error, OSError) and error.strerror:
        _say(f"{error.strerror}: {error.filename or 'standard output'}.")
        return 2
    if isinstance(error, MemoryError):
        told = str(error).removeprefix("lamina: ")  # the engine's says how many bytes
        _say(told or "expected more memory than there is. Use fewer rows or hidden units.")
        return 2
    debug = os.environ.get("LAMINA_DEBUG", "") not in ("", "0")
    if debug:
        traceback.print_exception(error)
    advice = "Please report it" + ("." if debug else "; LAMINA_DEBUG=1 shows where it happened.")
    _say(f"this is a bug in lamina ({type(error).__name__}: {error}). {advice}")
    return 1


def _say(sentence: str) -> None:
    """Print one line on standard error, even if that is closed."""
    with contextlib.suppress(OSError):
        click.echo(f"lamina: {one_line(sentence)}", err=True)


@click.group(
    "lamina",
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: lamina fit people.csv --target income",
)
@click.version_option(__version__, prog_name="lamina", message="%(prog)s %(version)s")
def cli() -> None:
    """Train and use multilayer perceptrons at the speed of your CPU.

    Every verb explains itself: lamina fit --help. Errors are one sentence on standard error;
    exit code 2 means a mistake in the call or the data, 1 a bug in lamina.
    """


def main() -> NoReturn:
    """Run the command line and exit."""
    cli.main()


if __name__ == "__main__":
    main()
