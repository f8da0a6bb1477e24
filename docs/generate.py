"""Writes docs/man and docs/completion from the programs' own options, so that these and `--help` cannot disagree.

    make man                                       or: .venv/bin/python docs/generate.py
    .venv/bin/python docs/generate.py --check      names the files that are not as they would be written, and exits 1

argparse has no public way to look at a parser; what is read here of it has been the same since Python 3.2.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fullsend_protocol import __version__
from fullsend_protocol.shared.exit_codes import MEANING
from fullsend_receiver.cli import main as receiver_cli
from fullsend_sender.cli import main as sender_cli

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE: Final = Path(__file__).resolve().parent
_FILES: Final = frozenset({"FILE", "DIR"})


@dataclass(frozen=True, slots=True)
class Argument:
    """One option, or one positional. `flags`: empty for a positional; `value`: what it takes, "" for nothing."""

    flags: tuple[str, ...]
    value: str
    help: str
    choices: tuple[str, ...]
    many: bool
    needed: bool

    def usage(self) -> str:
        """Return its form in a synopsis."""
        text = f"{self.flags[-1]} {self.value}".strip() if self.flags else self.value
        text += " ..." if self.many else ""
        return text if self.needed else f"[{text}]"


@dataclass(frozen=True, slots=True)
class Command:
    """A program (`name` is "") or one of its commands. `everywhere`: options that every command takes, too."""

    program: str
    section: int
    name: str
    about: str
    examples: str
    arguments: tuple[Argument, ...]
    everywhere: tuple[Argument, ...] = ()
    commands: tuple[Command, ...] = ()

    @property
    def page(self) -> str:
        return f"{self.program}-{self.name}" if self.name else self.program

    @property
    def options(self) -> tuple[Argument, ...]:
        return tuple(each for each in self.arguments if each.flags)

    @property
    def positionals(self) -> tuple[Argument, ...]:
        return tuple(each for each in self.arguments if not each.flags)


def programs() -> tuple[Command, Command]:
    """Return both programs with their commands, as their parsers are."""
    return (
        _program(sender_cli.make_parser(), 1),
        _program(receiver_cli.make_parser(), 8),
    )


def _program(parser: argparse.ArgumentParser, section: int) -> Command:
    own = _arguments(parser)
    everywhere = tuple(each for each in own if "--version" not in each.flags and each.flags)
    found: list[Command] = []
    for action in parser._actions:  # noqa: SLF001 - see above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - see above
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001 - see above
            for name, sub in action.choices.items():
                arguments = [each for each in _arguments(sub) if each.flags not in {one.flags for one in everywhere}]
                about = texts[name]
                found.append(Command(parser.prog, section, name, about, sub.epilog or "", tuple(arguments), everywhere))
    return Command(parser.prog, section, "", parser.description or "", parser.epilog or "", own, commands=tuple(found))


def _arguments(parser: argparse.ArgumentParser) -> tuple[Argument, ...]:
    found = []
    for action in parser._actions:  # noqa: SLF001 - see above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - see above
            continue
        choices = tuple(map(str, action.choices or ()))
        metavar = action.metavar if isinstance(action.metavar, str) else "|".join(choices) or action.dest.upper()
        value = "" if action.nargs == 0 else metavar
        many = action.nargs in {"*", "+"} or isinstance(action, argparse._AppendAction)  # noqa: SLF001 - see above
        needed = action.required if action.option_strings else action.nargs not in {"*", "?"}
        text = "show this help" if "--help" in action.option_strings else action.help or ""
        found.append(Argument(tuple(action.option_strings), value, text, choices, many, needed))
    return tuple(found)


# --- man pages -------------------------------------------------------------------------------------------------------


def man_page(command: Command, program: Command) -> str:
    """Return a page in roff (man(7))."""
    title = command.page
    kind = "System Administration" if command.section == 8 else "User Commands"  # noqa: PLR2004 - man's sections
    lines = [
        '.\\" Made by docs/generate.py; changes here are lost.',
        f'.TH {title.upper().replace("-", chr(92) + "-")} {command.section} "" "fullsend {__version__}" "{kind}"',
        ".SH NAME",
        f"{_roff(title)} \\- {_roff(command.about.rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_roff(' '.join([command.program, *([command.name] if command.name else [])]))}",
    ]
    if command.commands:
        lines += [r"[\fIOPTION\fR] ... \fICOMMAND\fR ..."]
    lines += [_roff(each.usage()) for each in (*command.options, *command.positionals) if "--help" not in each.flags]
    lines += [".SH DESCRIPTION", _roff(command.about[:1].upper() + command.about[1:].rstrip(".") + ".")]
    if command.commands:
        lines += [".SH COMMANDS"]
        for each in command.commands:
            lines += [".TP", f"\\fB{_roff(each.page)}\\fR({each.section})", _roff(each.about)]
    if command.positionals:
        lines += [".SH ARGUMENTS", *_listed(command.positionals)]
    lines += [".SH OPTIONS", *_listed((*command.options, *command.everywhere))]
    if command.examples:
        lines += [
            ".SH EXAMPLES",
            ".nf",
            *map(_roff, command.examples.removeprefix("examples:").strip("\n").split("\n")),
            ".fi",
        ]
    lines += [".SH EXIT STATUS", *_exits(command)]
    other = "receiver" if program.program == "fullsendd" else "sender"
    variable = "FULLSENDD_CONFIG" if program.program == "fullsendd" else "FULLSEND_CONFIG"
    lines += [
        ".SH ENVIRONMENT",
        ".TP",
        f".B {_roff(variable)}",
        "The configuration, where \\fB\\-\\-config\\fR does not name one.",
    ]
    if program.program == "fullsend":
        lines += [
            ".TP",
            r"\fBFULLSEND_\fISETTING\fR",
            r"A setting of the file's first part, as FULLSEND_LEVEL: above the file, below the options.",
        ]
    lines += [
        ".SH FILES",
        ".TP",
        f".I /etc/fullsend/{other}.toml",
        "The configuration. docs/operations.md has all of its settings.",
    ]
    pages = [each for each in (program, *program.commands) if each.page != command.page]
    lines += [".SH SEE ALSO", ",\n".join(f"\\fB{_roff(each.page)}\\fR({each.section})" for each in pages)]
    return "\n".join(lines) + "\n"


def _listed(arguments: Sequence[Argument]) -> Iterator[str]:
    for each in arguments:
        flags = ", ".join(f"\\fB{_roff(flag)}\\fR" for flag in each.flags)
        value = f"\\fI{_roff(each.value)}\\fR" if each.value else ""
        yield from (".TP", " ".join(filter(None, (flags, value))), _roff(each.help) or "See above.")


def _exits(command: Command) -> Iterator[str]:
    if command.name == "status":
        yield "As the plugins of Nagios: 0 OK, 1 warning, 2 critical, 3 unknown."
        return
    for code, meaning in MEANING.items():
        yield from (".TP", f".B {int(code)}", _roff(meaning))


def _roff(text: str) -> str:
    """Escape roff's control characters."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


# --- completion ------------------------------------------------------------------------------------------------------


def _after(command: Command) -> list[Argument]:
    """Return all options that are allowed after a command."""
    return [
        *command.options,
        *(each for each in command.everywhere if each.flags not in {o.flags for o in command.options}),
    ]


def bash(program: Command) -> str:
    """Return the completion of a program for bash."""
    function = f"_{program.program}"
    names = [each.name for each in program.commands]
    lines = [
        f"# Completion of {program.program} in bash. Made by docs/generate.py; changes here are lost.",
        f"{function}() {{",
        '    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command="" word words=""',
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        f"        case $word in {' | '.join(names)}) command=$word && break ;; esac",
        "    done",
        "    case $command:$previous in",
    ]
    for command in (program, *program.commands):
        for option in _after(command):
            if not option.value:
                continue
            pattern = " | ".join(f"{command.name}:{flag}" for flag in option.flags)
            if option.choices:
                do = f"mapfile -t COMPREPLY < <(compgen -W '{' '.join(option.choices)}' -- \"$current\")"
            elif option.value in _FILES:
                do = 'mapfile -t COMPREPLY < <(compgen -f -- "$current")'
            else:
                do = "COMPREPLY=()"
            lines.append(f"        {pattern}) {do} && return ;;")
    lines += ["    esac", "    case $command in"]
    for command in (program, *program.commands):
        words = [flag for option in _after(command) for flag in option.flags]
        words += names if not command.name else []
        lines.append(f"        '{command.name}') words='{' '.join(words)}' ;;")
    lines += ["    esac"]
    here = [each.name for each in program.commands if _takes_datasets(each)]
    if here:
        lines += [
            f"    if [[ $current != -* ]]; then case $command in {' | '.join(here)})",
            "        words=$(zfs list -H -o name -t filesystem,volume 2>/dev/null) ;;",
            "    esac; fi",
        ]
    lines += [
        '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")',
        "}",
        f"complete -F {function} {program.program}",
    ]
    return "\n".join(lines) + "\n"


def _takes_datasets(command: Command) -> bool:
    """Whether its arguments are datasets of this host: those of the sender are, where they may be missing or many."""
    return command.program == "fullsend" and any(each.value.startswith("DATASET") for each in command.positionals)


def zsh(program: Command) -> str:
    """Return the completion of a program for zsh."""
    lines = [
        f"#compdef {program.program}",
        f"# Completion of {program.program} in zsh. Made by docs/generate.py; changes here are lost.",
        f"_{program.program}_datasets() {{",
        "    local -a names",
        '    names=(${(f)"$(zfs list -H -o name -t filesystem,volume 2>/dev/null)"})',
        "    compadd -a names",
        "}",
        f"_{program.program}() {{",
        "    local -a commands",
        "    local state line",
        "    commands=(",
        *(f"        {_quoted(each.name + ':' + each.about)}" for each in program.commands),
        "    )",
        "    _arguments -C \\",
        *(f"        {spec} \\" for option in program.options for spec in _zsh_specs(option)),
        "        '1:command:->command' '*::argument:->argument'",
        "    case $state in",
        "        command) _describe command commands ;;",
        "        argument)",
        "            case $words[1] in",
    ]
    for command in program.commands:
        specs = [spec for option in _after(command) for spec in _zsh_specs(option)]
        specs.append("'*:dataset:_fullsend_datasets'" if _takes_datasets(command) else "'*:argument:'")
        lines.append(f"                {command.name}) _arguments {' '.join(specs)} ;;")
    lines += ["            esac ;;", "    esac", "}", f'_{program.program} "$@"']
    return "\n".join(lines) + "\n"


def _zsh_specs(option: Argument) -> Iterator[str]:
    text = option.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
    value = ""
    if option.choices:
        value = f":{option.value.replace('|', ' or ')}:({' '.join(option.choices)})"
    elif option.value:
        value = f":{option.value.replace(':', ' ')}:{'_files' if option.value in _FILES else ' '}"
    for flag in option.flags:
        yield _quoted(f"{'*' if option.many else ''}{flag}[{text}]{value}")


def fish(program: Command) -> str:
    """Return the completion of a program for fish."""
    name = program.program
    lines = [
        f"# Completion of {name} in fish. Made by docs/generate.py; changes here are lost.",
        f"complete -c {name} -f",
        *(
            f"complete -c {name} -n __fish_use_subcommand -a {each.name} -d {_fish_quoted(each.about)}"
            for each in program.commands
        ),
    ]
    for command in (program, *program.commands):
        when = f"'__fish_seen_subcommand_from {command.name}'" if command.name else "__fish_use_subcommand"
        for option in _after(command):
            words = [f"complete -c {name} -n {when}"]
            words += [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
            if option.choices:
                words.append(f"-x -a '{' '.join(option.choices)}'")
            elif option.value:
                words.append("-r -F" if option.value in _FILES else "-x")
            lines.append(" ".join([*words, "-d", _fish_quoted(option.help)]))
        if _takes_datasets(command):
            datasets = "command -q zfs; and zfs list -H -o name -t filesystem,volume 2>/dev/null"
            lines.append(f"complete -c {name} -n {when} -a '({datasets})'")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# --- files -----------------------------------------------------------------------------------------------------------


def files() -> dict[str, str]:
    """Return all files, by their names below docs/."""
    made: dict[str, str] = {}
    for program in programs():
        for command in (program, *program.commands):
            made[f"man/man{command.section}/{command.page}.{command.section}"] = man_page(command, program)
        # By the names that the shells search for.
        made[f"completion/bash/{program.program}"] = bash(program)
        made[f"completion/zsh/_{program.program}"] = zsh(program)
        made[f"completion/fish/{program.program}.fish"] = fish(program)
    return made


def differing(folder: Path) -> list[str]:
    """Return the files below `folder` that differ from what would be written, are missing, or are superfluous."""
    made = files()
    there = {str(path.relative_to(folder)) for kind in ("man", "completion") for path in (folder / kind).glob("*/*")}
    return sorted(
        name
        for name in there | made.keys()
        if name not in there or name not in made or (folder / name).read_text(encoding="utf-8") != made[name]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or check them. Returns: the exit code."""
    parser = argparse.ArgumentParser(description="Write man pages and completions from the programs' own options.")
    parser.add_argument("--check", action="store_true", help="write nothing; name the files that differ")
    options = parser.parse_args(arguments)
    stale = differing(HERE)
    if options.check:
        for name in stale:
            print(f"docs/{name}: not as docs/generate.py would write it: run `make man`", file=sys.stderr)
        return 1 if stale else 0
    made = files()
    for name in stale:
        path = HERE / name
        if name in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[name], encoding="utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
