"""A command line that names everything it lacks at once."""

from typing import Any

from typer.core import TyperCommand


class NamesAll(TyperCommand):
    """A command whose error lists every required option and argument that was not given, not the first alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        asked = set(args) & set(ctx.help_option_names)
        if not asked and not ctx.resilient_parsing:
            given = self.make_parser(ctx).parse_args(args=list(args))[0]
            lacking = [_name(one) for one in self.params if one.required and given.get(one.name or "") is None]
            if len(lacking) > 1:
                ctx.fail(f"{', '.join(lacking[:-1])} and {lacking[-1]} are missing.")
        return super().parse_args(ctx, args)


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return str(parameter.opts[0])
    return str(parameter.metavar or parameter.name.upper())
