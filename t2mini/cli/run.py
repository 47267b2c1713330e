"""
One run of the command line: parse, call, print.
"""
import json
import os
import sys

from ..machine.files import finite
from .options import build_parser
from .verbs import VERBS


def run(argv=None):
    """Parse, call, print. -> exit status."""
    for name in ("stdout", "stderr"):               # closed by who started us: print into nothing
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")   # letters it cannot show
    if sys.stdin is None:                           # its number must not become that of a file
        os.open(os.devnull, os.O_RDONLY)
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")         # bytes that are no letters go on
    parser, verbs = build_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        verbs.get(args.verb, parser).unknown(unknown[0])
    if not args.verb:
        parser.print_help()
        return 2
    if getattr(args, "data", None):
        os.environ["T2MINI_DATA"] = args.data       # whoever asks for a task by name finds it

    result = VERBS[args.verb](args)
    if getattr(args, "json", False):
        print(json.dumps(finite(result), allow_nan=False))
    sys.stdout.flush()
    if getattr(args, "unwritten", None):            # of a file beside the result
        raise args.unwritten
    return 0
