"""Several processes share the trees of a step that has fewer questions than there are processes."""

import pytest

from motif.config import load_recipe
from motif.display import Display
from motif.distributed import Processes
from motif.session import open_session
from motif.training.progress import Clock, Progress
from motif.training.rollouts import Part, Rollouts, joined
from support.scripted import WELL_FORMED, recipe_of_sums, script


def saying(question, path):
    """Every response is another one, and so is what follows it."""
    return WELL_FORMED.format("".join(map(str, path)) if len(path) == 1 else f"\\boxed{{{path[0]}}}")


@pytest.mark.parametrize(("questions", "responses", "counts"), [(1, 3, (1, 2, 3, 4)), (2, 4, (2, 3, 5, 9))])
def test_parts_make_the_whole_and_children_stay_with_their_parent(
    tmp_path, tiny_model, monkeypatch, questions, responses, counts
):
    samplers = script(monkeypatch, saying)
    shape = {"branching": [responses, 2], "questions_per_step": questions}
    recipe = load_recipe(recipe_of_sums(tmp_path, tiny_model, rollout=shape))
    session = open_session(recipe)
    found = {}
    for count in counts:
        asked, parts = [], []
        for rank in range(count):
            session.processes, before = Processes(rank, count), samplers[0].asked
            rollouts = Rollouts(session, Progress(512), Display(quiet=True))
            sampled = rollouts._sample(1, 0, Clock())
            asked.append(samplers[0].asked - before)
            parts.append(list(zip(rollouts.part.places, sampled.by_place(), strict=True)))
        found[count] = [
            (tree.question, [(node.path, node.token_ids, node.verdict) for node in tree.walk()])
            for [tree] in joined(parts)
        ]
        # Each asks once for its first-round responses, and once for what follows each of them.
        assert sum(asked) == questions * responses + min(count, max(count - asked.count(0), questions))
        assert asked.count(0) == max(0, count - questions * responses)
    assert all(trees == found[counts[0]] for trees in found.values())
    assert [len(walked) for _, walked in found[counts[0]]] == [3 * responses] * questions
    session.close()


def test_a_tree_is_not_divided_where_it_is_judged_as_a_whole_or_servers_sample_it():
    one = ["rollout.questions_per_step=1", "model.adapter=lora", "rollout.branching=[4,2,1]"]
    for more, roots in [
        ([], [0, 1]),
        (["rollout.refill=2"], [0, 1, 2, 3]),
        (['sampler.urls=["http://127.0.0.1:1"]'], [0, 1, 2, 3]),
    ]:
        recipe = load_recipe("demo", [*one, *more])
        assert list(Part.of(Processes(0, 2), recipe).roots) == roots
        assert bool(len(Part.of(Processes(1, 2), recipe).places)) == (not more)
