"""Opening somebody's run folder runs nothing of theirs; one's own runs ask nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from motif.cli.app import app
from motif.config import Recipe, Trust, load_recipe
from motif.config.trust import remember
from motif.errors import RecipeError
from motif.evaluation.target import find_target
from motif.run_files import ADAPTER, CHECKPOINTS, METRICS, RECIPE, SUMMARY, TREES
from motif.runs.read import recipe_of

EVIL = "from pathlib import Path\nPath(__file__).with_name('PWNED').touch()\ndef judge(gold, answer): return True\n"


@pytest.fixture(autouse=True)
def _nothing_known(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A stranger's run folder, with a grader beside the recipe."""
    folder = tmp_path / "runs" / "demo"
    (folder / ADAPTER).mkdir(parents=True)
    (folder / RECIPE).write_text('name = "demo"\n[data]\ntask = "arithmetic"\ngrader = "evil.py:judge"\n')
    (folder / METRICS).write_text("")
    (folder / SUMMARY).write_text('{"status": "finished", "steps": 1}')
    (folder / "evil.py").write_text(EVIL)
    return folder


def test_every_command_that_would_grade_asks_first(run):
    recipe = str(run / RECIPE)
    for command in (
        ["eval", str(run)],
        ["eval", "embedded", "--recipe", recipe],
        ["probe", str(run)],
        ["train", recipe, "--dry-run"],
        ["train", recipe, "--dry-run", "--on", "8xH100"],
        ["train", recipe, "--out", str(run), "--resume"],
        ["export", str(run)],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2 and "is a program that grading runs" in done.stderr, command
        assert f"--trust-grader {run / 'evil.py'}" in done.stderr
    for call in (lambda: recipe_of(run), lambda: load_recipe(recipe), lambda: find_target(str(run))):
        with pytest.raises(RecipeError, match="--trust-grader"):
            call()
    assert not (run / "PWNED").exists()


def test_what_does_not_grade_does_not_ask(run):
    assert CliRunner().invoke(app, ["vllm-command", str(run / RECIPE)]).exit_code == 0
    assert recipe_of(run, trust=Trust(uses=())).name == "demo"
    assert find_target(str(run), task="chain").recipe.data.grader == ""
    assert recipe_of(run, ["data.grader=exact"]).data.grader == "exact"
    given = f"{run / 'evil.py'}:judge"
    assert recipe_of(run, [f"data.grader={given}"]).data.grader == given


def test_a_grader_that_was_confirmed_is_known_from_then_on(run, tmp_path):
    with pytest.raises(RecipeError, match=rf"--trust-grader other.py: the grader of .* is {run / 'evil.py'}:judge"):
        recipe_of(run, trust=Trust("other.py"))
    assert recipe_of(run, trust=Trust(str(run / "evil.py")))
    assert recipe_of(run) and load_recipe(run / RECIPE)
    elsewhere = tmp_path / "copied"
    run.rename(elsewhere)
    assert recipe_of(elsewhere)  # by its content, wherever it lies
    (elsewhere / "evil.py").write_text(EVIL + "# changed\n")
    with pytest.raises(RecipeError, match="--trust-grader"):
        recipe_of(elsewhere)


def test_another_function_of_a_known_file_is_asked_for(run):
    recipe_of(run, trust=Trust(str(run / "evil.py")))
    (run / RECIPE).write_text('[data]\ntask = "arithmetic"\ngrader = "evil.py:Path"\n')
    with pytest.raises(RecipeError, match=r"evil\.py:Path"):
        recipe_of(run)


@pytest.mark.parametrize(
    "imports", ["import helper", "from helper import x", "from .helper import x", "import helper.sub"]
)
@pytest.mark.parametrize("helper", ["helper.py", "helper/__init__.py"])
def test_what_a_grader_imports_beside_it_belongs_to_it(run, imports, helper):
    (run / "evil.py").write_text(f"{imports}\n{EVIL}")
    (run / helper).parent.mkdir(exist_ok=True)
    (run / helper).write_text("x = 1\n")
    recipe_of(run, trust=Trust(str(run / "evil.py")))
    assert recipe_of(run)
    (run / helper).write_text("x = 2\n")
    with pytest.raises(RecipeError, match="--trust-grader"):
        recipe_of(run)


def test_a_file_that_comes_into_a_known_graders_way_is_noticed(run):
    (run / "evil.py").write_text(f"import rich_helper\n{EVIL}")
    recipe_of(run, trust=Trust(str(run / "evil.py")))
    (run / "rich_helper.py").write_text("x = 1\n")
    with pytest.raises(RecipeError, match="--trust-grader"):
        recipe_of(run)


@pytest.mark.parametrize("grader", ["shutil:move", "os:system", "evil:judge", "pytest:main", "no_such_module:f"])
def test_a_module_is_a_program_too(run, grader, monkeypatch):
    monkeypatch.chdir(run)
    (run / RECIPE).write_text(f'[data]\ntask = "arithmetic"\ngrader = "{grader}"\n')
    with pytest.raises(RecipeError, match="--trust-grader"):
        recipe_of(run)
    assert recipe_of(run, trust=Trust(recipe_of(run, trust=Trust(uses=())).data.grader))
    assert not (run / "PWNED").exists()


def test_ones_own_runs_ask_nothing(run):
    remember(load_recipe(run / RECIPE, trust=Trust(uses=())))  # as training does
    assert recipe_of(run) and find_target(str(run))


@pytest.mark.parametrize("mark", [METRICS, TREES, SUMMARY, CHECKPOINTS, ADAPTER, "adapter_model.safetensors"])
def test_a_recipe_of_the_users_own_is_trusted_outside_run_folders_only(tmp_path, mark):
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "mine.toml").write_text('[data]\ntask = "arithmetic"\ngrader = "evil.py:judge"\n')
    assert load_recipe(tmp_path / "mine.toml").data.grader == f"{tmp_path / 'evil.py'}:judge"
    (tmp_path / mark).mkdir()
    with pytest.raises(RecipeError, match="--trust-grader"):
        load_recipe(tmp_path / "mine.toml")


def test_a_link_to_a_run_folders_recipe_is_the_run_folders(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "link.toml").symlink_to(run / RECIPE)
    (tmp_path / "mine" / "evil.py").write_text(EVIL)
    (run / "below").mkdir()
    (run / "below" / "other.toml").write_text(f'[data]\ntask = "arithmetic"\ngrader = "{run}/evil.py:judge"\n')
    for file in (tmp_path / "mine" / "link.toml", run / "below" / "other.toml"):
        with pytest.raises(RecipeError, match="--trust-grader"):
            load_recipe(file)


SERVERS = """
[sampler]
urls = ["http://evil.example:8000"]
api_key_variable = "AWS_SECRET_ACCESS_KEY"
adapter_dir = "/adapters"
copy_command = "touch PWNED {target}"
remove_command = "rm -r {target}"
"""


def test_commands_servers_and_files_elsewhere_are_asked_for(run, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (run / RECIPE).write_text(f'[rounds]\nsystem_prompt_file = "{tmp_path}/secret.txt"\n{SERVERS}')
    with pytest.raises(RecipeError) as refused:
        recipe_of(run)
    for said in ("sampler.urls", "AWS_SECRET_ACCESS_KEY", "copy_command", "remove_command", "system_prompt_file"):
        assert said in str(refused.value)
    given = ["sampler.urls=[]", "sampler.copy_command=", "sampler.remove_command=", "rounds.system_prompt_file="]
    assert recipe_of(run, given).sampler.urls == []
    for command in (["solve", "1 + 1", "--run", str(run)], ["serve", str(run)]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2 and "system_prompt_file" in done.stderr and "urls" not in done.stderr, command
    remember(recipe_of(run, trust=Trust(uses=())))
    assert recipe_of(run)


def test_a_prompt_file_inside_the_folder_is_the_runs_own(run):
    (run / "prompt.txt").write_text("Think.")
    (run / RECIPE).write_text('[rounds]\nsystem_prompt_file = "prompt.txt"\n')
    assert recipe_of(run)
    (run / "prompt.txt").unlink()
    (run / "prompt.txt").symlink_to("/etc/hostname")
    with pytest.raises(RecipeError, match="a file outside the folder"):
        recipe_of(run)


def test_without_a_place_to_remember_it_asks_again(run, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    remember(Recipe())
    assert recipe_of(run, trust=Trust(str(run / "evil.py")))
    with pytest.raises(RecipeError, match="--trust-grader"):
        recipe_of(run)
