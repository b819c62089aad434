"""What the pages say is so: links lead somewhere, settings and options exist, and every command runs, or says why not.

The commands of a page run in order, in one folder that looks like a fresh checkout. Long ones are cut short
(`SHORT`): that a command works and prints what the page shows is tested here, how well a model learns elsewhere.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from motif.cli.app import app
from motif.compare.study import load_study
from motif.config import Recipe, Section, load_recipe
from support import forked
from support.markdown import LINKED, PAGES, REMARKS, ROOT, Block, anchors, blocks, links, without_code

LANGUAGES = {"sh", "python", "toml", "json", "text", "mermaid"}
BLOCKS = [block for page in PAGES for block in blocks(page) if not block.language.startswith("{")]
COMMANDS = typer.main.get_command(app).commands
RUN = re.compile(r"(?:^|[\s`(|&;])(?:\S*/)?motif ((?:[a-z][a-z-]*)\b[^`|>&;#]*)")


def name(value: object) -> str:
    if isinstance(value, Block):
        return value.where
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


# -- without running anything ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links_lead_to_files_and_headings(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(file), f"{target}: no such heading, but {sorted(anchors(file))}"


@pytest.mark.parametrize("block", BLOCKS, ids=name)
def test_blocks_are_of_a_known_kind_and_remarks_are_understood(block):
    assert block.language in LANGUAGES, "name the language of the block"
    assert not block.remark or REMARKS.fullmatch(block.remark), f"unknown remark, or no reason: {block.remark!r}"
    if block.language == "json":
        for line in block.text.splitlines():
            json.loads(line)
    if block.language == "python":
        compile(block.text, block.where, "exec")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_stand_in_blocks_that_are_run(page):
    indented = [line for line in page.read_text().splitlines() if re.match(r" {4}(motif|make|python|pip) ", line)]
    assert not indented, "use a ```sh block"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "toml"], ids=name)
def test_recipes_and_studies_are_valid(block, tmp_path):
    file = tmp_path / "block.toml"
    file.write_text(block.text)
    if "[arms." in block.text:
        assert load_study(file).arms
    else:
        load_recipe(file)


def options_of(text: str) -> Iterator[tuple[str, str]]:
    """(command, option) for every option of ours in `text`."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        for call in RUN.findall(line):
            words = call.split()
            if words[0] in COMMANDS:
                yield from ((words[0], word.partition("=")[0]) for word in words[1:] if word.startswith("--"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_and_settings_exist(page):
    text = page.read_text()
    for command, option in options_of(text):
        known = {
            each for parameter in COMMANDS[command].params for each in [*parameter.opts, *parameter.secondary_opts]
        }
        assert option in known | {"--help"}, f"motif {command} has no option {option}"
    for block in (block for block in BLOCKS if block.page == page and block.status):
        text = text.replace(block.text, "")  # a refusal that is shown
    settings = {*settings_of(Recipe)}
    for setting in re.findall(r"--set '?([a-z_]+(?:\.[a-z_]+)+)=", text):
        assert setting in settings | {"section.key"}, f"--set {setting}: no such setting"


def settings_of(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings and sections."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from settings_of(field.annotation, f"{prefix}{name}.")


def test_settings_named_in_the_text_exist():
    """`train.steps` and the like, in running text."""
    settings = {*settings_of(Recipe)}
    sections = {setting.partition(".")[0] for setting in settings if "." in setting}
    for page in PAGES:
        for setting in re.findall(r"`([a-z]+(?:\.[a-z_]+)+)(?: ?= ?[^`]*)?`", page.read_text()):
            if setting.partition(".")[0] in sections and not setting.endswith((".py", ".toml")):
                assert setting in settings, f"{page.name}: {setting} is no setting"


def test_every_page_is_in_the_table_of_contents():
    """Or Sphinx would refuse the site; said here because this runs everywhere."""
    index = (ROOT / "docs" / "index.md").read_text()
    entries = {line.strip() for line in index.splitlines() if line.strip()}
    for page in (ROOT / "docs").glob("*.md"):
        listed = any(fnmatch.fnmatch(page.stem, entry) for entry in entries)
        assert listed or page.stem == "index", f"add {page.stem} to a toctree in docs/index.md"


def test_reading_markdown(tmp_path):
    """The reader that all of the above relies on."""
    page = ROOT / "docs" / "index.md"
    text = (
        "# A `b`: c!\n\n## Same\n## Same\n\n<!-- not run: it takes an hour -->\n```sh\nmotif train x\n```\n[a](b.md#c)"
    )
    file = tmp_path / "x.md"
    file.write_text(
        text + "\n`[no](link)`\n\n    [no](link)\n\n<!-- exits with 2 -->\n\n```toml\n# m.toml, here\na = 1\n```\n"
    )
    first, second = blocks(file)
    assert (first.language, first.text, first.excused, first.line) == ("sh", "motif train x\n", True, 7)
    assert (second.file, second.status, second.excused) == ("m.toml", 2, False)
    assert list(links(file)) == ["b.md#c"]
    assert anchors(file) == {"a-b-c", "same", "same-1"}
    assert "motif" not in without_code(file)
    assert REMARKS.fullmatch("not run: ") is None
    assert page in PAGES


# -- running it --------------------------------------------------------------------------------------------------------


SHORT = {
    "train": "--set train.steps=2 --set eval.questions=8 --set rollout.questions_per_step=2",
    "eval": "--questions 8",
    "probe": "--questions 2 --continuations 16",
}
"""What is added to long commands, so that the pages run in a minute or two."""
SHORTENED = f"""
import sys
if not {{"--dry-run", "--help"}} & set(sys.argv):
    sys.argv += {SHORT!r}.get((sys.argv + [""])[1], "").split()
sys.argv[0] = "motif"
from motif.cli.app import main
main()
"""


def shortened(code: str) -> str:
    """Code of a page with as few steps and questions."""
    for long, short in (
        (r"train\.steps=\d+", "train.steps=2"),
        (r"(?<![.\w])steps=\d+", "steps=1"),
        (r"eval\.questions=\d+", "eval.questions=8"),
        (r"\[:200\]", "[:8]"),
    ):
        code = re.sub(long, short, code)
    return code


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    """A folder with `motif` and `python` as the pages call them."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "short.py").write_text(SHORTENED)
    forked.install(folder, "motif", [str(folder / "short.py")])
    forked.install(folder, "python", [])
    return folder


@pytest.fixture(scope="session")
def trained(programs, tmp_path_factory) -> Path:
    """A finished run of two steps, which pages that do not train one themselves call runs/demo."""
    folder = tmp_path_factory.mktemp("trained")
    done = run("motif train demo", folder, programs)
    assert done.returncode == 0, done.stdout
    return folder / "runs" / "demo"


def checkout(folder: Path, programs: Path) -> None:
    """Make `folder` look like a checkout in which `make` has set up .venv."""
    for path in ROOT.iterdir():
        if path.name not in (".git", ".venv", "runs", "build"):
            (folder / path.name).symlink_to(path)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(programs)
    (folder / ".venv" / ".ready").touch()


def trains_demo(page: list[Block]) -> bool:
    starts = (
        re.match(r"(make|motif train) demo *[\n#]", block.text) for block in page if not (block.excused or block.status)
    )
    return any(starts)


def plain(text: str, loose: bool) -> list[str]:
    """Lines without colours and with single spaces; with `loose`, without numbers."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    if loose:
        text = re.sub(r"[+−]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", "#", text)
        text = re.sub(r"(?:# (?:h|min|s) ?)+", "# s ", text)  # a duration, however long
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def assert_shown(block: Block, printed: str) -> None:
    """Every line of the block is printed, in this order."""
    loose = "but for its numbers" in block.remark
    rest = iter(plain(printed, loose))
    for line in plain(block.text, loose):
        pattern = ".*".join(re.escape(part) for part in line.split("…"))
        assert any(re.fullmatch(pattern, other) for other in rest), f"{block.where}: not printed: {line}\n\n{printed}"


def run(script: str, folder: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "120"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, text=True, timeout=300, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="forks a process that has loaded torch")
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_run(page, programs, trained, tmp_path):
    found = [block for block in BLOCKS if block.page == page]
    if not any(block.language in ("sh", "python") and not block.excused for block in found):
        pytest.skip("nothing to run on this page")
    checkout(tmp_path, programs)
    if not trains_demo(found):
        shutil.copytree(trained, tmp_path / "runs" / "demo")
    printed = ""
    for block in found:
        if block.is_output:
            assert_shown(block, printed)
        elif block.excused:
            continue
        elif block.file:
            (tmp_path / block.file).write_text(block.text)
        elif block.language in ("sh", "python"):
            script = block.text if block.language == "sh" else f"python -c {shlex.quote(shortened(block.text))}"
            done = run(script, tmp_path, programs)
            printed = done.stdout
            assert done.returncode == block.status, f"{block.where}\n{block.text}\n{printed}"


def test_pages_name_commands_that_exist():
    for page in PAGES:
        for block in (block for block in BLOCKS if block.page == page and block.language == "sh"):
            for line in block.text.splitlines():
                called = re.match(r"(?:\.venv/bin/)?motif ([\w-]+)", line)
                assert not called or called[1] in COMMANDS, f"{block.where}: motif {called[1]}"


NOTEBOOKS = {
    "motif": ("2 steps, ", "of 12 trajectories right"),
    "own_reward": ("finished after 2 steps", "near/mean"),
}
"""What the notebooks print."""


@pytest.mark.slow
@pytest.mark.parametrize("notebook_name", NOTEBOOKS)
def test_the_notebooks_run_from_top_to_bottom(notebook_name, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("MOTIF_NOTEBOOK_STEPS", "2")
    monkeypatch.setenv("MOTIF_NOTEBOOK_QUESTIONS", "8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(ROOT / "examples" / f"{notebook_name}.ipynb", 4)
    assert all(cell.outputs for cell in notebook.cells if cell.cell_type == "code"), "commit it as it was run"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell["outputs"] = []
    kernel = tmp_path / "kernels" / "forked"
    kernel.mkdir(parents=True)
    command = [forked.python(), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "forked", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    settings = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=800, kernel_name="forked", resources=settings).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    for expected in NOTEBOOKS[notebook_name]:
        assert expected in printed


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    [command] = [line for line in (ROOT / "Makefile").read_text().splitlines() if "sphinx" in line]
    arguments = command.split("-m sphinx ")[1].replace("build/docs", str(tmp_path)).split()
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-d", str(tmp_path / "trees"), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    settings = (tmp_path / "docs" / "settings.html").read_text()
    assert "rollout.branching" in settings
    assert "Children per node" in settings
    for page in tmp_path.rglob("*.html"):
        if page.parent.name != "_downloads":
            loaded = re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=\"(https?:[^\"]*)\"", page.read_text())
            assert not loaded, f"{page.name} loads {loaded}"
