"""Runs several commands of Spack in one process: starting it takes most of the
time of those that do little.

Run by 'spack python': the first argument is a file with a JSON list of commands,
each an object with 'args' (list of text) and, if what is in a directory of
configuration shall hold from this command on, 'scope' (its path). What each command
writes to standard output is a line of standard output here: a JSON string. The
calls are those of Spack 0.21 to 0.23.
"""

import contextlib
import io
import json
import sys

import spack.config
import spack.environment
import spack.main


def push_scope(path):
    directory = getattr(spack.config, "DirectoryConfigScope", spack.config.ConfigScope)
    spack.config.CONFIG.push_scope(directory("uenv-ci:" + path, path))


def run(args):
    parser = spack.main.make_argument_parser()
    command = parser.add_command(args[0])
    parsed, unknown = parser.parse_known_args(args)
    out = io.StringIO()
    code = 1
    try:
        with contextlib.redirect_stdout(out):
            code = spack.main._invoke_command(command, parser, parsed, unknown)
    finally:
        # Each begins where a process of its own would.
        spack.environment.deactivate()
        if code:
            sys.stderr.write(out.getvalue())
    if code:
        sys.exit(code)
    return out.getvalue()


with open(sys.argv[1]) as file:
    commands = json.load(file)
for command in commands:
    if "scope" in command:
        push_scope(command["scope"])
    print(json.dumps(run(command["args"])), flush=True)
