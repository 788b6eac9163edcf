"""Verb-first command lines over Hydra: `rainshift train region=melanesia model=resnet`.

A domain lists its verbs and calls `main`; each verb's configuration is `conf/<verb>.yaml` of its package, composed with
the groups there and in `geoml/conf`. Functions are referred to by name and imported when their verb is called, which
keeps listing, completion and `--help` fast.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import geoml
from geoml.cli.definitions import App, Verb, load_function
from geoml.cli.streams import any_character, discard_output, output_fails
from geoml.errors import MachineError, UserError, missing_packages

__all__ = ["main"]

#: Exit codes after Ctrl-C and after the reader of standard output has closed the pipe.
INTERRUPTED, BROKEN_PIPE = 130, 141


def main(app: App, argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    It is 0 for success, 1 for a lack of disk space, memory or open files (`MachineError`), 2 for other user errors,
    130 if interrupted. A `UserError` is printed as one line on standard error; any other exception keeps its traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    any_character()
    try:
        code = _dispatch(app, arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        return _refused(error)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last saved state", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader closed the pipe
        discard_output()
        return BROKEN_PIPE
    except OSError as error:
        return _refused(_explained(error))
    except MemoryError as error:
        return _refused(MachineError(f"not enough memory: {error or 'an array cannot be made'}"))


def _explained(error: OSError) -> UserError:
    """Return a message for an unhandled error of the operating system; raise the error if there is no clear message."""
    from geoml.runs.files import machine_error

    if error.errno in (errno.EACCES, errno.EPERM) and error.filename is not None:
        return UserError(f"{error.filename}: {error.strerror}; this user may not read or write it")
    place = error.filename or ("standard output" if output_fails() else "a file")
    explained = None if error.errno in (errno.EEXIST, errno.ENOTDIR) else machine_error(error.errno, place)
    if explained is None:
        raise error
    if place == "standard output":
        discard_output()
    return explained


def _refused(error: UserError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1 if isinstance(error, MachineError) else 2


def _dispatch(app: App, arguments: list[str]) -> int:
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help", "help"):
        print(_listing(app))
        return 0
    if first in ("-V", "--version"):
        import importlib.metadata  # costs as much as the whole listing

        print(f"{app.name} {importlib.metadata.version('geoml')}")
        return 0
    if first in ("-sc", "--shell-completion"):
        return _complete(app, arguments[1:])
    if first.startswith("-") or "=" in first:
        raise UserError(f"expected a verb, not {first!r}: {app.name} VERB [KEY=VALUE …]")
    verb = app.verb(first)
    if geoml._cache and app.extra != "mcp":  # what serves experts compiles nothing
        print(f"neither this installation nor the home can be written: caches are in {geoml._cache}", file=sys.stderr)
    if verb.plain:
        return _run_plain(app, verb, arguments[1:])
    from geoml.cli import verbs

    return verbs.run(app, verb, arguments[1:])


def _listing(app: App) -> str:
    title = f"{app.name}: {app.help}" if app.help else app.name
    if not app.verbs:
        return f"{title}\n\nNo verbs are defined; `{app.name} --version` prints the version."
    width = max(len(verb.name) for verb in app.verbs)
    return "\n".join(
        [
            title,
            "",
            f"  {app.name} VERB [KEY=VALUE …]  {app.name} VERB --help  {app.name} --version",
            "",
            *(f"  {verb.name.ljust(width)}  {verb.help}" for verb in app.verbs),
            "",
            f'Completion of verbs, groups and keys: eval "$({app.name} -sc install=bash)"',
        ]
    )


def _run_plain(app: App, verb: Verb, arguments: list[str]) -> int:
    from geoml.cli.tables import show

    function = load_function(verb.function, extra=app.extra)
    with missing_packages(app.extra):
        try:
            result = function(arguments)
        except SystemExit as leaving:  # argparse: help asked for, or arguments it refused
            if not leaving.code and verb.example:
                print(f"\nexample:\n  {verb.example}")
            return leaving.code if isinstance(leaving.code, int) else 0
    if isinstance(result, int):
        return result
    show(result or [])
    return 0


def _complete(app: App, arguments: list[str]) -> int:
    """Complete a command line (`-sc query=SHELL`, the line in COMP_LINE) or print its installation script."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if any(argument.startswith("query=") for argument in arguments):
        typing_verb = len(words) < 2 or (len(words) == 2 and not line[-1:].isspace())
        if typing_verb:
            start = words[1] if len(words) == 2 else ""
            print(" ".join(verb.name for verb in app.verbs if verb.name.startswith(start)))
            return 0
        verb = next((verb for verb in app.verbs if verb.name == words[1]), None)
        if verb is None or verb.plain:
            return 0
        # Hydra's completion plug-ins do not know verbs: remove the verb from the line.
        before, _, after = line.partition(words[1])
        os.environ["COMP_LINE"] = before.rstrip() + after
    else:
        verb = None
    from geoml.cli import verbs

    verbs.complete(app, verb, arguments)
    return 0
