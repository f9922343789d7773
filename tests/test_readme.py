"""The Python of the README and of each page runs, top to bottom, as a reader would paste it."""

import re
import shlex
from pathlib import Path

import pytest

from scorefield.cli import main
from scorefield.cli.app import app

README = Path(__file__).parents[1] / "README.md"
PAGES = [README, *sorted((README.parent / "docs").rglob("*.md"))]


def blocks(language: str, page: Path = README) -> list[str]:
    fence = rf"```(?:\{{code-cell\}} )?{language}\n(.*?)```"
    found = re.findall(fence, page.read_text(encoding="utf-8"), re.DOTALL)
    return [re.sub(r"\A:tags:.*\n", "", block) for block in found]


@pytest.mark.slow
def test_the_python_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, str(README), "exec"), names)
    assert (tmp_path / "runs/moons/model.safetensors").is_file()
    assert "tensor" in capsys.readouterr().out


def commands(page: Path) -> list[str]:
    text = "\n".join(blocks("sh", page)).replace("\\\n", " ")
    return [line.split("#")[0] for line in text.splitlines() if line.startswith("scorefield ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_shell_examples_are_commands_that_exist(page, monkeypatch):
    monkeypatch.setattr("scorefield.cli.config_file.read_settings", lambda path: {})
    for command in commands(page):
        app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def test_the_readme_has_shell_examples():
    assert len(commands(README)) >= 3
    with pytest.raises(SystemExit) as end:
        main(["sample", "nowhere", "--no-such-option"])
    assert end.value.code == 2


def test_the_make_targets_it_names_exist():
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\S+)", "\n".join(blocks("sh")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("python", page):
        exec(compile(block, str(page), "exec"), names)
