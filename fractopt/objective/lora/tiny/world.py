"""The invented world of the tiny task: people, what is known of them, and what is asked.

160 people have four attributes (colour, home, food, job), each one of eight values. Pre-training
teaches the facts and the Alpaca prompt; the fine-tune has to learn eight words that pre-training
never saw, each standing for one attribute ("Tell the hue of Bola."). Questions are about people the
fine-tune never names, so an answer needs both what was learnt and what must not be forgotten.

Only `Random.random()` is drawn from: it is the one stream Python promises not to change, and the
shipped files have to come out byte for byte under every version.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TypeVar

T = TypeVar("T")

VALUES: dict[str, tuple[str, ...]] = {
    "colour": ("amber", "black", "coral", "green", "ivory", "red", "violet", "white"),
    "home": ("beach", "castle", "desert", "forest", "island", "river", "tower", "village"),
    "food": ("bread", "cheese", "fish", "honey", "melon", "rice", "salad", "soup"),
    "job": ("actor", "baker", "doctor", "farmer", "guard", "painter", "sailor", "tailor"),
}
ATTRIBUTES = tuple(VALUES)

# A name always follows a blank, so that each person is one token, and stands before its value: what
# a small model reads as "A is B" it cannot say as "B is A".
FACTS: dict[str, tuple[str, ...]] = {
    "colour": ("The colour that {name} likes is {value}.", "Today {name} wears {value}."),
    "home": ("The home of {name} is the {value}.", "Today {name} lives in the {value}."),
    "food": ("The food of {name} is {value}.", "Today {name} eats {value}."),
    "job": ("The job of {name} is {value}.", "Today {name} works as a {value}."),
}
RECALL: dict[str, str] = {
    "colour": "Which colour does {name} like?",
    "home": "Where does {name} live?",
    "food": "What does {name} eat?",
    "job": "What is the job of {name}?",
}
# The words of the fine-tune and the attribute that each stands for; absent from pre-training.
WORDS: dict[str, str] = {
    "hue": "colour",
    "abode": "home",
    "meal": "food",
    "craft": "job",
    "shade": "colour",
    "lodge": "home",
    "dish": "food",
    "trade": "job",
}
SKILL = "Tell the {word} of {name}."
ANSWER = "Answer: {value}"

# litgpt.prompts.Alpaca, without an input; a test compares the two.
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)

# Of the pre-training texts; the prompt is long, so that facts are still the smaller part of the tokens.
FACT_SHARE = 0.7
PEOPLE, TAUGHT, ASKED = 160, 64, 48  # all; named in the fine-tune; in each set of questions


@dataclass(frozen=True)
class Person:
    name: str
    values: dict[str, str]  # attribute -> value


@dataclass(frozen=True)
class Question:
    """One multiple-choice question; `label` is the index of the right one of `choices`.

    kind "word" offers the person's own four values (does the model know the new word?), kind
    "fact" four values of the right attribute (does it still know the person?).
    """

    instruction: str
    choices: tuple[str, ...]
    label: int
    kind: str


def pick(items: tuple[T, ...] | list[T], rng: Random) -> T:
    return items[int(rng.random() * len(items))]


def shuffled(items: tuple[T, ...] | list[T], rng: Random) -> list[T]:
    """Fisher and Yates's shuffle."""
    out = list(items)
    for last in range(len(out) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        out[last], out[other] = out[other], out[last]
    return out


def people() -> list[Person]:
    """The world's people, each value held by as many of them as any other."""
    rng = Random(1)
    consonants, vowels = "bdfgklmnprstvz", "aeio"
    names = [
        (a + b + c + d).capitalize() for a in consonants for b in vowels for c in consonants for d in vowels
    ]
    names = shuffled(names, rng)[:PEOPLE]
    columns = {
        attribute: shuffled([values[i % len(values)] for i in range(PEOPLE)], rng)
        for attribute, values in VALUES.items()
    }
    return [
        Person(name, {attribute: columns[attribute][i] for attribute in ATTRIBUTES})
        for i, name in enumerate(names)
    ]


def groups() -> tuple[list[Person], list[Person], list[Person]]:
    """People named in the fine-tune, in the validation questions, in the test questions."""
    everyone = people()
    return (
        everyone[:TAUGHT],
        everyone[TAUGHT : TAUGHT + ASKED],
        everyone[TAUGHT + ASKED : TAUGHT + 2 * ASKED],
    )


def pretraining_texts(count: int) -> list[str]:
    """`count` short texts: facts in plain sentences, and recall under the Alpaca prompt."""
    rng = Random(2)
    everyone = people()
    texts = []
    for _ in range(count):
        person = pick(everyone, rng)
        if rng.random() < FACT_SHARE:
            attributes = shuffled(ATTRIBUTES, rng)[: 2 + int(rng.random() * 3)]
            texts.append(
                " ".join(
                    pick(FACTS[a], rng).format(name=person.name, value=person.values[a]) for a in attributes
                )
            )
        else:
            a = pick(ATTRIBUTES, rng)
            prompt = ALPACA.format(instruction=RECALL[a].format(name=person.name))
            texts.append(prompt + ANSWER.format(value=person.values[a]))
    return texts


def lessons(persons: list[Person], seed: int) -> list[dict[str, str]]:
    """Every new word of every person, as Alpaca records."""
    records = [
        {
            "instruction": SKILL.format(word=word, name=person.name),
            "input": "",
            "output": ANSWER.format(value=person.values[attribute]),
        }
        for person in persons
        for word, attribute in WORDS.items()
    ]
    return shuffled(records, Random(seed))


def questions(persons: list[Person], seed: int) -> list[Question]:
    """Every new word of every person as a "word" question, a third of them as "fact" ones too."""
    rng = Random(seed)
    out = []
    for index, person in enumerate(persons):
        for offset, (word, attribute) in enumerate(WORDS.items()):
            right = person.values[attribute]
            offered = [("word", [person.values[a] for a in ATTRIBUTES])]
            if (index + offset) % 3 == 0:
                wrong = [value for value in VALUES[attribute] if value != right]
                offered.append(("fact", [right, *shuffled(wrong, rng)[:3]]))
            for kind, values in offered:
                choices = shuffled(values, rng)
                out.append(
                    Question(
                        SKILL.format(word=word, name=person.name), tuple(choices), choices.index(right), kind
                    )
                )
    return shuffled(out, rng)


def vocabulary() -> list[str]:
    """Words that are one token each, as they stand in a text: with the blank before them, if any."""
    lower = [v for values in VALUES.values() for v in values] + list(WORDS)
    frames = [t for texts in FACTS.values() for t in texts] + [*RECALL.values(), SKILL]
    prose = [ALPACA.format(instruction=""), ANSWER.format(value=""), *frames]
    words = {" " + word for word in lower}
    for text in prose:
        plain = text.replace("{name}", "").replace("{value}", "").replace("{word}", "")
        for line in plain.split("\n"):
            for position, piece in enumerate(line.split(" ")):
                word = "".join(c for c in piece if c.isalpha())
                if word:
                    words.add(word if position == 0 else " " + word)
    return sorted(words | {" " + person.name for person in people()})
