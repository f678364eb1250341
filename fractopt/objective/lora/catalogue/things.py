"""The catalogue: a skill that a small pretrained model can be taught, and questions about the rest of it.

A catalogue of ten sections with headings of its own, "Beasts and birds" for animals and so on; which one is
the heron under? A model brings from its pre-training what a heron is, and hardly an idea of the headings:
it is taught them by a third of the things. The questions that score it are about another third, those of
the test about the last one. Choices are several words long.

Only `Random.random()` is drawn from: it is the one stream that Python promises not to change.
"""

from __future__ import annotations

from random import Random

from fractopt.objective.lora.tiny.world import Question, shuffled

HEADINGS: dict[str, str] = {
    "animal": "Beasts and birds",
    "produce": "Fruits of the garden",
    "instrument": "Makers of music",
    "garment": "Things to wear",
    "tool": "For the craftsman's hand",
    "vehicle": "Wheels, wings and keels",
    "plant": "Leaf and blossom",
    "furniture": "House and hearth",
    "occupation": "Trades and callings",
    "building": "Stone and timber",
}
THINGS: dict[str, str] = {
    "animal": """antelope badger bear beaver bison camel cat chicken cow coyote deer dog dolphin donkey
        eagle elephant falcon ferret fox frog giraffe goat goose gorilla hamster hare hedgehog horse hyena
        kangaroo leopard lion lizard monkey mouse otter owl panda penguin pig rabbit raccoon seal sheep
        squirrel tiger turtle wolf""",
    "produce": """apple apricot artichoke asparagus avocado banana bean beetroot blackberry blueberry broccoli
        cabbage carrot cauliflower celery cherry coconut cranberry cucumber eggplant fig garlic grape
        grapefruit kale leek lemon lettuce lime mango melon mushroom onion parsnip pea peach pear pineapple
        plum potato pumpkin radish raspberry spinach strawberry tomato turnip zucchini""",
    "instrument": """accordion bagpipe banjo bassoon bugle castanet cello clarinet cornet cymbal drum
        dulcimer euphonium fiddle flute glockenspiel gong guitar harmonica harp harpsichord kazoo keyboard
        lute lyre mandolin maraca marimba oboe ocarina organ piano piccolo saxophone sitar synthesizer
        tambourine timpani triangle trombone trumpet tuba ukulele vibraphone viola violin xylophone zither""",
    "garment": """apron bathrobe beret blazer blouse bonnet boot bra cap cape cardigan cloak coat corset
        dress glove gown hat hoodie jacket jersey kilt kimono legging mitten nightgown overcoat parka
        poncho raincoat robe sandal sari scarf shawl shirt shoe skirt slipper sneaker sock stocking
        sweater sweatshirt tunic tuxedo vest waistcoat""",
    "tool": """anvil awl axe chainsaw chisel clamp crowbar drill file grinder hacksaw hammer handsaw hatchet
        hoe jackhammer jigsaw ladder lathe lever mallet nail pickaxe pitchfork plane pliers plunger pulley
        rake ratchet sander saw scissors screw screwdriver shovel sickle sledgehammer spade spanner stapler
        tongs trowel vise wedge wheelbarrow winch wrench""",
    "vehicle": """airplane ambulance balloon barge bicycle boat bulldozer bus canoe car carriage chariot
        convertible cruiser ferry glider helicopter hovercraft jeep jet kayak limousine locomotive lorry
        minivan moped motorcycle raft rickshaw rocket sailboat scooter ship sled sleigh snowmobile spacecraft
        submarine tank taxi tractor train tram tricycle truck van wagon yacht""",
    "plant": """acacia azalea bamboo begonia birch bush buttercup cactus camellia carnation cedar
        chrysanthemum clover cypress daffodil dahlia daisy dandelion elm fern fir geranium hibiscus
        honeysuckle hyacinth hydrangea iris ivy jasmine lavender lilac lily magnolia marigold moss
        oak orchid pansy peony petunia pine poppy primrose rose sunflower thistle tulip willow""",
    "furniture": """armchair bassinet bed bedframe bench bookcase bookshelf bunk bureau cabinet chair
        chaise chest coatrack cot couch cradle crib cupboard cushion desk divan dresser footstool
        futon hammock hassock headboard highchair lamp loveseat mattress mirror nightstand ottoman pillow
        recliner rocker rug settee shelf sideboard sofa stool table throne wardrobe washstand""",
    "occupation": """accountant actor architect astronaut baker banker barber biologist blacksmith butcher
        carpenter chef clerk dancer dentist detective doctor electrician engineer farmer firefighter
        fisherman florist gardener geologist journalist judge lawyer librarian mechanic miner musician nurse
        painter pharmacist photographer pilot plumber poet policeman professor sailor scientist secretary
        soldier tailor teacher waiter""",
    "building": """abbey airport apartment bakery bank barn barracks bungalow cabin castle cathedral chapel
        church cinema convent cottage courthouse factory farmhouse fortress garage greenhouse hospital hotel
        house hut inn lighthouse library mansion mill monastery mosque museum observatory palace
        pavilion prison pyramid restaurant school shed skyscraper stadium temple theater villa warehouse""",
}
EACH = 16  # things of a kind in each of the three sets
SETS = ("taught", "asked", "test")
ASK = "Under which heading is the {thing}?"


def things(part: str) -> list[tuple[str, str]]:
    """(thing, kind) of the set `part`, one of `SETS`, the kinds mixed."""
    rng = Random(1)
    first = SETS.index(part) * EACH
    chosen = [
        (thing, kind)
        for kind, words in THINGS.items()
        for thing in shuffled(words.split(), rng)[first : first + EACH]
    ]
    return shuffled(chosen, rng)


def lessons(part: str) -> list[dict[str, str]]:
    """The things of `part` with their headings, as Alpaca records."""
    return [
        {"instruction": ASK.format(thing=thing), "input": "", "output": HEADINGS[kind]}
        for thing, kind in things(part)
    ]


def questions(part: str) -> list[Question]:
    """One question with four choices about each thing of `part`."""
    rng = Random(2 + SETS.index(part))
    asked = []
    for thing, kind in things(part):
        right = HEADINGS[kind]
        wrong = [heading for heading in HEADINGS.values() if heading != right]
        choices = shuffled([right, *shuffled(wrong, rng)[:3]], rng)
        asked.append(Question(ASK.format(thing=thing), tuple(choices), choices.index(right), kind))
    return asked
