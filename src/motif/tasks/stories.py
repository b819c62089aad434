"""Stories of somebody who gains and loses things, told in English; asked is how many there are in the end.

    Mia had 4 apples. Ben gave Mia 3 apples. Mia lost 2 apples on the way home. How many apples does Mia have now?

The *plot* of a story is how it begins and which wordings follow. Names, things and numbers are drawn for the plot. The
plot decides the side, so a held-out story never was a training story with other names, things or numbers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from motif.config import StoriesConfig
from motif.method.tree import Question
from motif.tasks.procedural import ProceduralTask, parts, running_counts
from motif.tasks.splits import Split, split_of

TEST_ONE_IN = 8
DRAWN = 12_000
"""Plots drawn for both sides together, repeats included."""

OPENINGS = (
    "{name} had {some}.",
    "{name} began the day with {some}.",
    "In the morning, {name} owned {some}.",
    "There were {some} in {name}'s basket.",
    "{name} set out with {some}.",
    "At first, {name} had {some}.",
)
GAINS = (
    "{other} gave {name} {some}.",
    "{name} found {some} in the grass.",
    "{name} bought {some} at the market.",
    "{name} won {some} in a game.",
    "{name} picked up {more}.",
    "{other} brought {some} for {name}.",
    "{name} got {some} for helping {other}.",
    "{name} took {more} out of a box.",
    "{some} came for {name} by post.",
    "{other} returned {some} to {name}.",
    "{name} was handed {some} by {other}.",
    "After lunch, {name} collected {some}.",
    "{name} discovered {more} under the bed.",
    "On Monday, {other} shared {some} with {name}.",
    "{name} traded a book for {some}.",
    "As a present, {name} received {some}.",
    "{name} added {some} to the pile.",
    "{other} dropped {some}, and {name} kept them.",
)
LOSSES = (
    "{name} gave {some} to {other}.",
    "{name} lost {some} on the way home.",
    "{name} sold {some} to {other}.",
    "{name} threw {some} away.",
    "{other} took {some} from {name}.",
    "{name} broke {some} by accident.",
    "{name} left {some} on the bus.",
    "{other} borrowed {some} from {name}.",
    "{name} put {some} aside for charity.",
    "A dog ran off with {some} that belonged to {name}.",
    "{name} dropped {some} into the river.",
    "After school, {name} handed {some} to {other}.",
    "{name} traded {some} for a pencil.",
    "{name} shared {some} with {other}.",
    "{some} fell out of {name}'s bag.",
    "{name} used {some} for a project.",
    "{other} won {some} from {name}.",
    "{name} sent {some} to {other} by post.",
)
UNSEEN_GAINS = (
    "{other} slipped {some} into {name}'s pocket.",
    "{name} dug up {some} in the garden.",
    "{name} inherited {some} from an aunt.",
    "{name} fished {some} out of the pond.",
    "A neighbour left {some} at {name}'s door.",
    "{name} was awarded {some} at the fair.",
)
UNSEEN_LOSSES = (
    "{name} misplaced {some} in the park.",
    "{other} persuaded {name} to part with {some}.",
    "The wind carried off {some} of {name}'s.",
    "{name} donated {some} to the school.",
    "{name} paid {other} with {some}.",
    "A thief stole {some} from {name}.",
)
SEEN = tuple((text, 1) for text in GAINS) + tuple((text, -1) for text in LOSSES)
UNSEEN = tuple((text, 1) for text in UNSEEN_GAINS) + tuple((text, -1) for text in UNSEEN_LOSSES)
"""What may happen: the wording, and whether it adds (1) or takes (-1)."""
NAMES = (
    "Mia", "Ben", "Ana", "Tom", "Eva", "Sam", "Lea", "Max", "Zoe", "Leo", "Amy", "Dan", "Ida", "Jack", "Lily",
    "Noah", "Emma", "Paul", "Rosa", "Hugo", "Nina", "Omar", "Kate", "Ivan", "Sara", "Finn", "Ruth", "Adam", "Maya",
    "Carl",
)  # fmt: skip
THINGS = (
    "apple", "pear", "plum", "nut", "egg", "coin", "card", "stamp", "shell", "stone", "marble", "button", "pencil",
    "sticker", "cookie", "lemon", "bead", "ball", "ticket", "rose", "cup", "candle", "feather", "key", "ring",
    "bean",
)  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """How a story begins and what happens, as places in `OPENINGS` and in the list of wordings."""

    number: int
    opening: int
    events: tuple[int, ...]

    @property
    def key(self) -> str:
        """What decides the side."""
        return f"story {self.opening} {self.events}"


@dataclass(frozen=True)
class Story:
    """A plot with names, things and numbers. counts: how many there are at the beginning and after each event."""

    name: str
    thing: str
    opening: str
    events: tuple[str, ...]
    counts: tuple[int, ...]

    @property
    def question(self) -> str:
        """What is asked."""
        return f"How many {self.thing}s does {self.name} have now?"

    def told(self) -> list[str]:
        """The events; the first with the beginning before it."""
        return [f"{self.opening} {self.events[0]}", *self.events[1:]]

    def calculation(self, event: int) -> str:
        """What an event (from 0) does to the count, such as `4 + 3 = 7.`"""
        before, after = self.counts[event : event + 2]
        return f"{before} {'+' if after > before else '-'} {abs(after - before)} = {after}."

    def state(self, event: int) -> str:
        """The running count after an event (from 0), in a sentence."""
        return f"{self.name} has {_some(self.counts[event + 1], self.thing)}."


def plots(settings: StoriesConfig, split: Split) -> list[Plot]:
    """The distinct plots of one side, in a fixed random order; the same whatever the variant."""
    unseen = settings.unseen_wordings and split == "test"
    wordings = UNSEEN if unseen else SEEN
    rng = random.Random(f"stories {settings.shortest} {settings.longest}")
    drawn: dict[str, Plot] = {}
    for number in range(DRAWN):
        length = rng.randint(settings.shortest, settings.longest)
        events = tuple(rng.randrange(len(wordings)) for _ in range(length))
        plot = Plot(number + 1, rng.randrange(len(OPENINGS)), events)
        drawn.setdefault(plot.key, plot)
    return [plot for plot in drawn.values() if split_of(plot.key, TEST_ONE_IN) == split]


def told(plot: Plot, settings: StoriesConfig, unseen: bool = False) -> Story:
    """A plot with the names, things and numbers of a variant."""
    rng = random.Random(f"{plot.key} {settings.variant} {settings.largest}")
    name, *others = rng.sample(NAMES, 1 + len(plot.events))
    thing = rng.choice(THINGS)
    wordings = [(UNSEEN if unseen else SEEN)[event] for event in plot.events]
    counts = running_counts([sign for _, sign in wordings], settings.largest, rng)
    events = []
    for index, (text, _) in enumerate(wordings):
        step = abs(counts[index + 1] - counts[index])
        some, more = _some(step, thing), _some(step, thing, "more ")
        sentence = text.format(name=name, other=others[index], some=some, more=more)
        events.append(sentence.replace("kept them", "kept it") if step == 1 else sentence)
    opening = OPENINGS[plot.opening].format(name=name, some=_some(counts[0], thing))
    if counts[0] == 1:
        opening = opening.replace("There were", "There was")
    return Story(name, thing, opening, tuple(events), tuple(counts))


def _some(count: int, thing: str, more: str = "") -> str:
    return f"{count} {more}{thing}{'s' * (count != 1)}"


def story_of(plot: Plot, settings: StoriesConfig, split: Split) -> Story:
    """The story that a plot becomes on one side."""
    return told(plot, settings, settings.unseen_wordings and split == "test")


def questions(settings: StoriesConfig, split: Split) -> list[Question]:
    """The questions of one side, in a fixed random order; their lines are the numbers of their plots."""
    made = []
    for plot in plots(settings, split):
        story = story_of(plot, settings, split)
        name = f"stories-{settings.shortest}-{settings.longest}-{plot.number}"
        asked, gold = story.question, str(story.counts[-1])
        if settings.in_pieces:
            pieces = tuple(" ".join(part) for part in parts(story.told(), settings.events_per_piece))
            made.append(Question(name, asked, gold, plot.number, pieces=pieces))
        else:
            text = " ".join([*story.told(), asked])
            made.append(Question(name, text, gold, plot.number, steps=len(story.events)))
    return made


def solution(story: Story, events_per_piece: int) -> str:
    """The worked solution: a line an event, or a piece, whose annotation says how many there are then.

    Of a whole story a line tells the event before it calculates, and the annotation repeats it, so that the next round
    finds where to go on.
    """
    events = range(len(story.events))
    if events_per_piece:
        lines = [
            f"{' '.join(story.calculation(at) for at in piece)}<<{story.state(piece[-1])}>>"
            for piece in parts(events, events_per_piece)
        ]
    else:
        lines = [f"{story.events[at]} {story.calculation(at)}<<{story.events[at]} {story.state(at)}>>" for at in events]
    return "\n".join(lines)


def solutions(settings: StoriesConfig) -> dict[int, str]:
    """The worked solutions of the training questions, by their lines."""
    size = settings.events_per_piece
    return {plot.number: solution(story_of(plot, settings, "train"), size) for plot in plots(settings, "train")}


TASK = ProceduralTask(
    "numeric",
    lambda data, split: questions(data.stories, split),
    worked=lambda data: solutions(data.stories),
)
