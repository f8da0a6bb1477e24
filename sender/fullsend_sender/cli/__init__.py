"""`fullsend`: the command line, one module a command.

    main           the parser, and what every command needs: errors, exit codes, logging
    arguments      options that several commands take
    configuration  the settings of a command
    results        the output of commands: lines for a person, JSON for a program
    join, ...      the commands: `add` adds the parser, `run` runs the command

Slow modules are imported only after the command is known. `fullsend --version` and a mistyped option answer within 0.15
s, so the commands themselves import pydantic, ssl, asyncio and zstandard.

stdout has results only; stderr everything else.
"""
