"""Commands and groups of commands: click's, with etcdctl's flags and a help that needs no web."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from textwrap import dedent, indent
from typing import Any, Final

import click

from coord.cli.failure import CommandError
from coord.cli.flags import HELP, Flag, Parsed, list_value, parse
from coord.cli.quoting import quote
from coord.cli.settings import GLOBAL_FLAGS, Settings, settings_of

Run = Callable[[Parsed, Settings], None]
_HELP_COLUMN: Final = 30


class Command(click.Command):
    """One command. `run` gets its line, read, and the settings.

    `usage` is what follows the name in the help, `text` says what the command does, `examples` are lines to paste.
    One that is not `is_of_clients` does without the global flags.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        *,
        usage: str,
        text: str,
        examples: str,
        flags: Sequence[Flag] = (),
        is_of_clients: bool = True,
    ) -> None:
        about = dedent(text).strip()
        super().__init__(name, help=about, short_help=about.split("\n\n")[0].replace("\n", " "))
        self.run = run
        self.usage = usage
        self.examples = dedent(examples).strip()
        self.flags = tuple(flags)
        self.global_flags = GLOBAL_FLAGS if is_of_clients else ()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the flags as click knows them, for completion in a shell."""
        return _click_options((*self.flags, *_inherited(ctx), *self.global_flags, HELP))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the line; `--help` shows the help and ends the command."""
        if ctx.resilient_parsing:
            return []
        ctx.obj = _read(ctx, args, (*self.flags, *_inherited(ctx), *self.global_flags))
        return []

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        return self.run(ctx.obj, settings_of(ctx.obj))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write usage, meaning, examples and flags."""
        formatter.write(f"Usage: {ctx.command_path} {self.usage}".rstrip() + "\n\n")
        formatter.write(indent(self.help or "", "  ") + "\n")
        if self.examples:
            formatter.write("\nExamples:\n" + indent(self.examples, "  ") + "\n")
        _write_flags(formatter, "Flags", self.flags)
        _write_flags(formatter, "Global flags", (*_inherited(ctx), *self.global_flags, HELP))


class Group(click.Group):
    """Commands under one name, given at once or loaded when they are used.

    `lazy` maps a name to `module:attribute` and the line that the list of commands shows. A command may be
    shortened as far as it stays the only one that begins so.
    """

    def __init__(
        self,
        name: str,
        *,
        text: str,
        commands: Sequence[Command] = (),
        lazy: Mapping[str, tuple[str, str]] | None = None,
        flags: Sequence[Flag] = (),
        epilog: str = "",
    ) -> None:
        about = dedent(text).strip()
        super().__init__(name, help=about, commands=list(commands), short_help=about.split("\n\n")[0])
        self.lazy = dict(lazy or {})
        self.flags = tuple(flags)
        self.epilog = dedent(epilog).strip()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the flags as click knows them, for completion in a shell."""
        return _click_options((*self.flags, *GLOBAL_FLAGS, HELP))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*self.commands, *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name or of the only one that begins so, loading it if need be."""
        names = self.list_commands(ctx)
        found = [cmd_name] if cmd_name in names else [name for name in names if name.startswith(cmd_name)]
        if len(found) != 1 or not cmd_name:
            return None
        if found[0] in self.commands:
            return self.commands[found[0]]
        module, attribute = self.lazy[found[0]][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the flags that stand before the command."""
        if ctx.resilient_parsing:
            rest = [word for word in args if not word.startswith("-")]
        else:
            ctx.obj = _read(ctx, args, (*self.flags, *_inherited(ctx), *GLOBAL_FLAGS), stop_at_word=True)
            rest = [*ctx.obj.words, *ctx.obj.rest]
        ctx.args = rest
        return rest

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first of `args` names; raises `CommandError` if there is none."""
        command = self.get_command(ctx, args[0])
        if command is None and not ctx.resilient_parsing:
            raise CommandError(
                f"unknown command {quote(args[0])} for {quote(ctx.command_path)}",
                hint=f"Run '{ctx.command_path} --help' for usage.",
            )
        return (command.name if command else None), command, args[1:]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named; without one show the help."""
        if not ctx.args:
            click.echo(self.get_help(ctx))
            return None
        _, command, rest = self.resolve_command(ctx, ctx.args)
        assert command is not None
        with command.make_context(command.name, rest, parent=ctx) as inner:
            return command.invoke(inner)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write usage, meaning, commands and flags."""
        formatter.write(f"Usage: {ctx.command_path} <command> [flags]\n\n")
        formatter.write(indent(self.help or "", "  ") + "\n\nCommands:\n")
        for name in self.list_commands(ctx):
            short = self.lazy[name][1] if name in self.lazy else self.commands[name].short_help
            formatter.write(f"  {name:<14}{short}\n")
        if self.epilog:
            formatter.write("\n" + self.epilog + "\n")
        _write_flags(formatter, "Flags", (*self.flags, *GLOBAL_FLAGS, HELP))
        formatter.write(f"\nRun '{ctx.command_path} <command> --help' for more about a command.\n")


def _inherited(ctx: click.Context) -> tuple[Flag, ...]:
    parent = ctx.parent.command if ctx.parent is not None else None
    return parent.flags if isinstance(parent, Group) else ()


def _read(ctx: click.Context, args: list[str], flags: Sequence[Flag], *, stop_at_word: bool = False) -> Parsed:
    """Read `args`, on top of what stood before the names of the groups."""
    try:
        line = parse(args, flags, stop_at_word=stop_at_word)
    except CommandError as failure:
        failure.hint = failure.hint or f"Run '{ctx.command_path} --help' for usage."
        raise
    if line.given.get("help"):
        click.echo(ctx.get_help())
        ctx.exit()
    before: Mapping[str, Any] = ctx.parent.obj.given if ctx.parent is not None and ctx.parent.obj else {}
    given = {**before, **line.given}
    for flag in flags:
        if flag.read is list_value and flag.name in before and flag.name in line.given:
            given[flag.name] = (*before[flag.name], *line.given[flag.name])
    return Parsed(line.words, given, line.defaults, line.after_dashes, line.rest)


def _click_options(flags: Sequence[Flag]) -> list[click.Parameter]:
    return [
        click.Option(
            [f"--{flag.name}", *([f"-{flag.short}"] if flag.short else [])], is_flag=flag.is_bool, help=flag.help
        )
        for flag in flags
    ]


def _write_flags(formatter: click.HelpFormatter, title: str, flags: Sequence[Flag]) -> None:
    if not flags:
        return
    formatter.write(f"\n{title}:\n")
    for flag in flags:
        short = f"-{flag.short}, " if flag.short else "    "
        left = f"  {short}--{flag.name} {flag.metavar}".rstrip()
        default = "" if flag.is_bool or flag.default in ("", 0) else f" [default: {flag.shown(flag.default)}]"
        text = click.wrap_text(
            flag.help + default, 110, " " * _HELP_COLUMN, " " * _HELP_COLUMN, preserve_paragraphs=False
        )
        beside = left.ljust(_HELP_COLUMN) + text[_HELP_COLUMN:]
        formatter.write((beside if len(left) < _HELP_COLUMN - 1 else f"{left}\n{text}") + "\n")
