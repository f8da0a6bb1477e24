"""`fullsend`: the command line, one module a command.

    main           the parser, and what happens around every command: errors, exit codes, logging
    arguments      what several commands take
    configuration  the settings that a command goes by
    results        what commands say of what they have done: lines for a person, JSON for a program
    join, ...      the commands: `add` says what each takes, `run` does it

Nothing heavy is imported before it is known which command runs. `fullsend --version` and a mistyped option answer
within 0.15 s, so pydantic, ssl, asyncio and zstandard are imported inside the commands.

stdout carries results only; stderr everything else.
"""
