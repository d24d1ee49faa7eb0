"""Names and nouns that the tasks write their prompts with.

A task keeps only those that the model's tokenizer takes as it needs them, so the lists are long and
plain. Their order is part of every task: a seed picks by place.
"""

# ruff: noqa: SIM905 (lists of words read best as text)

WOMEN = tuple(
    """Mary Anna Sarah Lily Emma Lucy Amy Kate Jane Susan Laura Linda Rachel Emily Sophie Alice
    Julia Karen Lisa Nancy Helen Grace Rose Maria Olivia Amelia Ruby Ella Bella Molly Jenny Betty
    Sally Sara Mia Sue Tina Nina Lola Zoe Eva Ann Jill Annie Julie Daisy Mandy Barbara Polly
    Rebecca""".split()
)
MEN = tuple(
    """John Tom James Max Tim Jack Bob David Paul Mark Peter George Robert Henry Charlie Adam Alex
    Andy Ben Bill Brian Carl Dan Eric Frank Fred Greg Harry Jake Jim Joe Kevin Leo Luke Matt Mike
    Nick Oscar Roger Ryan Sam Scott Simon Steve Toby Tommy Billy Timmy Johnny Michael""".split()
)
NAMES = tuple(name for pair in zip(WOMEN, MEN, strict=True) for name in pair)
"""Women and men in turn."""

PLACES = tuple(
    """store school garden park station office hospital restaurant house church market library
    beach museum farm""".split()
)
OBJECTS = tuple(
    """drink book ring kiss ball cake letter gift key phone bag box flower coat hat""".split()
)
PLAIN = tuple(
    """apple arm bear bed bell bird boat bread bridge brush bus cat chair cheese circle cloud cow
    cup desk doll door duck egg face field fire fish floor fork frog glass grass green hand hill
    horse ice island jar jump kite lake lamp leaf light lion map milk mirror moon mountain mouse
    music nest night nose ocean orange paper pencil piano pig plane plate pond queen rabbit rain
    river road rock roof rope sail salt sand shell ship shirt shoe silver sky snow soap song spoon
    star stone sugar sun table tail tea tower train tree truck wall water wheel wind window winter
    wood yellow""".split()
)
"""Words for sequences that mean nothing."""
