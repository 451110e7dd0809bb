"""Groups of commands: in the order they are defined, with the closest name for a wrong one."""

from __future__ import annotations

import click

__all__ = ["OrderedGroup"]


class OrderedGroup(click.Group):
    """Commands in the order they are defined, which is the order a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; without a word the help is the answer, and no success."""
        if not args and ctx.parent is not None and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the closest name when there is none."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], list(self.commands), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(error.message + hint, ctx) from None
