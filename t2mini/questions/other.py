"""
Everyday requests that need none of the experts: facts, letters, poems, recipes, small talk.

What:  `make_other(rng)` fills one template; half the time a short word answers it and can be
       checked ("contains"), half the time anything may be said ("open", used for routing only).
       `unseen=True` uses other templates.
Why:   the router must learn that "other" is broad. So there are questions and commands, greetings,
       names and times of day, one word and two sentences; never a sum to work out, a program to
       write or options to choose from.
"""
import random

from .example import Example
from .tables import read


def _pairs(text):
    return [tuple(pair.strip().split("="))
            for pair in text.replace("\n", " ").strip(" ;").split(";")]


TEXT = read("other")
CAPITALS, SPANISH, FRENCH, AUTHORS, PROVERBS, LANGUAGES, INVENTIONS = (
    _pairs(TEXT[name]) for name in ("CAPITALS", "SPANISH", "FRENCH", "AUTHORS", "PROVERBS",
                                    "LANGUAGES", "INVENTIONS"))
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June "
          "July August September October November December").split()
NEXT = [(a, b) for names in (DAYS, MONTHS) for a, b in zip(names, names[1:] + names[:1])]
WORDS = ("lantern breakfast mountain velvet orchid thunder pebble "
         "galaxy marble whisper canyon jasmine copper meadow\n "
         "puzzle ribbon saffron tunnel voyage walnut anchor "
         "blossom cactus dolphin ember falcon garden harbor island").split()

# {t} topic, {n} name, {m} another name, {p} place, {h} time, {f} food, {s} sentence
NAME = ("Maria Tom Aisha Ben Chloe Daniel Elena Farid Grace Hiro "
        "Ivan Julia Kofi Lena Mateo Nora Omar Priya Sam Zoe")
PLACE = ("Rome;Lisbon;Kyoto;the Alps;New Zealand;Cape Town;Iceland;New York;"
         "Morocco;Vietnam;Scotland;Peru;Athens")
HOUR = ("3 pm;9:30;8 tonight;noon;10 am on Friday;half past four;5 pm on Tuesday;"
        "7 in the evening;a quarter to nine")
FILL = {"n": NAME.split(), "m": NAME.split()}
FILL.update({slot: text.replace("\n", "").split(";")
             for slot, text in dict(t=TEXT["TOPIC"], p=PLACE, h=HOUR, f=TEXT["FOOD"],
                                    s=TEXT["SENTENCE"]).items()})
SEEN = {  # name: (table or None, wordings)
    "capital": (CAPITALS, ["What is the capital of {0}?",
                           "Name the capital city of {0}.",
                           "capital of {0}"]),
    "spanish": (SPANISH, ["How do you say \"{0}\" in Spanish?",
                          "Translate {0} to Spanish.",
                          "Spanish for {0}?"]),
    "french": (FRENCH, ["What is French for {0}?",
                        "Translate \"{0}\" into French.",
                        "How do I say {0} in French?"]),
    "author": (AUTHORS, ["Who wrote {0}?",
                         "Who is the author of {0}?",
                         "I loved {0}. Who was it by?"]),
    "proverb": (PROVERBS, ["Complete the proverb: {0} ...",
                           "How does this saying end? \"{0} ...\"",
                           "{0} ..."]),
    "next": (NEXT, ["What comes after {0}?", "It is {0} now. What is next?"]),
    "repeat": ([(w, w) for w in WORDS], ["Please say the word {0}.",
                                         "Repeat after me: {0}",
                                         "Write \"{0}\" once."]),
    "poem": (None, ["Write a short poem about {t}.",
                    "Compose a haiku about {t}",
                    "Please rhyme something on {t}."]),
    "story": (None, ["Write the opening of a story about {n} and {t}.",
                     "Tell me a story with {n} and about {t}."]),
    "mail": (None, ["I have a meeting with {n} at {h}. "
                    "Write an email to {m} to say I will be late.",
                    "Write an email to {n} and ask to move our appointment from {h} "
                    "because {m} is ill."]),
    "invite": (None, ["Invite {n} to dinner: {f} at {h}.",
                      "Write {n} a text message: {f} at our place, {h}?"]),
    "recipe": (None, ["How do I make {f}?",
                      "A simple recipe for {f}?",
                      "What goes into {f}?",
                      "{f} recipe please"]),
    "explain": (None, ["Tell me something about {t}.",
                       "Explain {t} to a ten year old.",
                       "What is special about {t}?"]),
    "opinion": (None, ["What do you think about {t}?",
                       "Do you like {t}? Why?",
                       "What are good and bad sides of {t}?"]),
    "translate": (None, ["Translate into Spanish: {s}",
                         "How would {n} say this in French? {s}",
                         "In German: {s}"]),
    "rewrite": (None, ["Make this sentence more polite: {s}",
                       "Rewrite in a cheerful tone, for {n}: {s}"]),
    "trip": (None, ["Plan a weekend in {p} for {n} and me.",
                    "We land in {p} at {h}. What should we see first?"]),
    "packing": (None, ["What should {n} pack for a trip to {p}?",
                       "Is {p} nice in winter? {n} wants to go there."]),
    "advice": (None, ["My friend {n} is angry with me because of {t}. What should I do?",
                      "I feel nervous about meeting {n}. Any advice?"]),
    "greet": (None, ["Hello, I'm {n}! How are you today?",
                     "Good morning! {n} here.",
                     "Nice to meet you, I am {n}."]),
    "thanks": (None, ["Write a thank-you note to {n} for the book about {t}.",
                      "Thank {n} for making {f}, from {m}."]),
    "describe": (None, ["Describe {p} at night in a few sentences.",
                        "Describe a perfect day in {p} with {n}."]),
    "birthday": (None, ["{n} turns 40 soon. Write a card about {t}.",
                        "Birthday wishes for {n}, who loves {t}."]),
    "title": (None, ["Suggest a title for an essay on {t}.",
                     "Give {n} a catchy headline about {t}."])}
UNSEEN = {
    "language": (LANGUAGES, ["What language is spoken in {0}?",
                             "Which language do most people in {0} speak?"]),
    "maker": (INVENTIONS, ["Whose name is connected with {0}?",
                           "Who do we have to thank for {0}?"]),
    "toast": (None, ["Give a wedding toast for {n} and {m}.",
                     "I speak at {n}'s farewell at {h}. Draft a speech."]),
    "dialogue": (None, ["Imagine a conversation between {n} and {m} about {t}.",
                        "Let {n} and {m} argue about {t}."]),
    "review": (None, ["Review a restaurant in {p} that is famous for {f}.",
                      "{n} hated the {f} in {p}. Complain."]),
    "slogan": (None, ["Invent a slogan for a museum of {t}.",
                      "We sell postcards of {p}. Find us a slogan."]),
    "diary": (None, ["Dear diary: continue, as {n}, after a day with {t}.",
                     "Write what {n} dreamed about {t}."]),
    "shorten": (None, ["Say it in fewer words: {s}", "{n} told me: \"{s}\" Summarize that."]),
    "joke": (None, ["Know any jokes about {t}?", "Make {n} laugh with a joke on {t}."]),
    "gift": (None, ["What gift would suit {n}, who is into {t}?",
                    "Gift ideas for {n}, who adores {f}."]),
    "chat": (None, ["I'm bored, {n} is away until {h}.",
                    "Ugh, what a day. {n} burned the {f} again!"])}


def make_other(rng: random.Random, unseen: bool = False) -> Example:
    """One request; its key is the template and what was filled in,
    not the wording or the greeting around it."""
    templates = UNSEEN if unseen else SEEN
    checkable = rng.random() < 0.5
    kind = rng.choice([k for k, (table, _) in templates.items() if bool(table) == checkable])
    table, wordings = templates[kind]
    wording = rng.choice(wordings)
    if table:
        about, answer = rng.choice(table)
        text, key = wording.format(about), f"{kind}/{about}"
    else:
        fill = {slot: rng.choice(FILL[slot]) for slot in FILL}
        while fill["m"] == fill["n"]:
            fill["m"] = rng.choice(FILL["m"])
        answer, text = "", wording.format(**fill)
        key = "/".join([kind] + [fill[slot] for slot in FILL if "{" + slot + "}" in wording])
    before = rng.choice(["Hi! ", "Hello, quick question. ", "Hey, "]) if rng.random() < 0.15 else ""
    after = (rng.choice([" Thanks!", " Thank you in advance.", " Please keep it short."])
             if rng.random() < 0.15 else "")
    text += "." if after and text[-1] not in ".?!" else ""
    return Example(before + text + after, answer, "contains" if table else "open", kind, key)
