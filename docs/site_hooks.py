"""Hooks of the documentation's site: pictures and examples from other folders, and the command line's help."""

import re
from pathlib import Path

import typer
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("benchmarks/results/*.svg", "examples/*.py", "CHANGELOG.md", "CONTRIBUTING.md")


def on_files(files, config):
    """Adds files of other folders to the site, under their own paths."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), content=path.read_bytes()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to other folders become links within the site; the command line's help takes its place."""
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", _commands())
    top = "../" * page.file.src_uri.count("/")
    outside = r"\]\(docs/" if page.file.src_uri in OUTSIDE else r"\]\((?:\.\./)+(?=benchmarks/|examples/|CHANGELOG\.md)"
    return re.sub(outside, f"]({top}", markdown)


def _commands() -> str:
    """The help of each command, as it is printed."""
    from deeplift_fast.cli import app

    command = typer.main.get_command(app)
    parts = []
    for name, each in command.commands.items():
        context = typer.Context(each, info_name=f"deeplift-fast {name}", max_content_width=100)
        rows = [_option(parameter) for parameter in each.params if not parameter.hidden]
        parts.append(
            f"## `{context.command_path}`\n\n{each.help}\n\n| option | meaning |\n| --- | --- |\n" + "\n".join(rows)
        )
    return "\n\n".join(parts)


def _option(parameter) -> str:
    names = ", ".join(f"`{each}`" for each in (*parameter.opts, *parameter.secondary_opts))
    shown = names if parameter.param_type_name == "option" else f"`{parameter.metavar or parameter.name.upper()}`"
    meaning, default = (parameter.help or "").replace("|", "/"), parameter.default
    if default is True:
        default = parameter.opts[0]
    if not parameter.required and default is not None and default is not False:
        meaning += f" Default: `{getattr(default, 'value', default)}`."
    return f"| {shown} | {meaning} |"
