"""Ways to vary what a user says, and made-up names to copy."""

from random import Random

OPENERS = (
    "Hi, |Hello, |Hey, |Hello! |Hi! |Please tell me: |Quick question: |I have a question. |So, "
    "|Sorry, |Can you tell me: |Good morning! |Dear model, |One more thing: |OK, |And |Well, |Now: "
    "|I am new here. |Please, |Next question: |Just curious: |Hi there! "
).split("|")
CLOSERS = (
    " Thanks.| Thank you!| please| Please.|, please| I am new to this.| Thanks in advance.| :)"
    "| Be brief."
    "| Answer in one sentence.| Keep it short.|!|??|...| I want to understand it.| Thanks!"
).split("|")
ONSETS = (
    "b|c|d|f|g|h|j|k|l|m|n|p|r|s|t|v|w|z|br|ch|cl|dr|fl|gr|kr|pr|qu|sh|sk|st|str|th|tr|y|ph|gl|x|"
).split("|")
VOWELS = ("a|e|i|o|u|" * 6 + "y|ai|au|ea|ee|ie|io|oo|ou|ø|é|ü|å|ö|ä|á|í|ó|ã|ê|ñu").split("|")
CODAS = "||||n|r|s|l|t|m|ck|nd|ng|rg|st|x|th|rk|lm|k|d|v|ss|sch|ł|č|ž".split("|")
ENDINGS = (
    "burg|ton|ville|stad|grad|ford|heim|polis|mouth|field|by|vik|shire|pur|abad|wick|ham|dorf|ia"
    "|land"
).split("|")
BEFORE = (
    "San|New|Saint|St.|Bad|Port|Los|Las|El|La|Le|Rio|Fort|Mount|Lake|North|South|East|West|Old"
    "|Upper"
    "|Great|Cape|Santa|Villa|Den|Tel|Al|Ciudad|Puerto|Novo|Nova|Sankt|Königs|Sint|Isle of|City of"
).split("|")
AFTER = (
    "City|Bay|Beach|Hills|Falls|on Sea|upon Thames|del Mar|de la Cruz|am Main|Springs|Island|do Sul"
    "|an der Oder|Heights|Valley|Park|Junction|Town|sur Mer|Nord"
).split("|")
PLACES = (
    "Oslo|Rome|Paris|London|Berlin|Madrid|Lisbon|Vienna|Prague|Warsaw|Athens|Dublin|Bern|Zürich"
    "|Geneva"
    "|New York|San Francisco|Los Angeles|Chicago|Boston|Seattle|Austin|Denver|Miami|Toronto"
    "|Montréal"
    "|Vancouver|Mexico City|São Paulo|Rio de Janeiro|Buenos Aires|Santiago|Bogotá|Lima|Tokyo|Osaka"
    "|Kyoto|Seoul|Beijing|Shanghai|Hong Kong|Singapore|Bangkok|Hanoi|Jakarta|Manila|Delhi|Mumbai"
    "|Karachi|Dubai|Tehran|Istanbul|Ankara|Cairo|Lagos|Nairobi|Cape Town|Sydney|Melbourne|Auckland"
    "|Helsinki|Stockholm|Copenhagen|Reykjavík|Tallinn|Riga|Vilnius|Kyiv|Moscow|Budapest|Bucharest"
    "|Sofia|Belgrade|Zagreb|Milan|Naples|Turin|Venice|Florence|Munich|Hamburg|Cologne|Frankfurt"
    "|Brussels|Amsterdam|Rotterdam|Antwerp|Lyon|Marseille|Nice|Barcelona|Seville|Porto|Edinburgh"
    "|Glasgow|Manchester|Cambridge|Oxford|Cupertino|Houston|Dallas|Atlanta|Portland|Honolulu"
    "|Paris, France"
    "|Boston, MA|Berlin, Germany|Tokyo, Japan|Springfield, Illinois|Addis Ababa|Kuala Lumpur"
    "|Tel Aviv"
).split("|")
ZONES = "Europe|America|Asia|Africa|Australia|Pacific|Atlantic|Indian|Etc".split("|")
ALPHABETS = (
    "абвгдежзиклмнопрстуфхя",
    "東京大阪北南山川市上海香港台中田島",
    "ΑΒΓΔαβγδεθλμπστω",
    "かきくけさしたなにはまみやらりる",
    "서울부산대구인천광주제성남",
)


def rng_for(seed: int) -> Random:
    """A random source that repeats."""
    return Random(seed)  # noqa: S311 - the corpus must repeat; nothing here is a secret


def chance(rng: Random, share: float) -> bool:
    """True in this share of the cases."""
    return rng.random() < share


def word(rng: Random) -> str:
    """A made-up word in small letters."""
    parts = (
        rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)
        for _ in range(rng.choice((1, 2, 2, 2, 3, 3, 4)))
    )
    return "".join(parts) + (rng.choice(ENDINGS) if chance(rng, 0.3) else "")


def plain(rng: Random) -> str:
    """A made-up word without accents or odd clusters, closer to English."""
    parts = (
        rng.choice("bcdfghklmnprstvw")
        + rng.choice("aeiou")
        + rng.choice(("", "n", "r", "s", "t", "l"))
        for _ in range(rng.choice((1, 2, 2, 3)))
    )
    return "".join(parts) + rng.choice(("", "", "er", "ing", "tion", "or", "ment", "age", "y", "e"))


def name(rng: Random) -> str:
    """A made-up name of one to three words."""
    made = word(rng).capitalize()
    if chance(rng, 0.08):
        made += rng.choice(("-", "-", "'", " ")) + word(rng).capitalize()
    if chance(rng, 0.15):
        made = f"{rng.choice(BEFORE)} {made}"
    if chance(rng, 0.08):
        made = f"{made} {rng.choice(AFTER)}"
    if chance(rng, 0.05):
        made = f"{made}, {word(rng).capitalize()}"
    return made


def letters(rng: Random) -> str:
    """A short run of letters from another alphabet, or of any Latin letters."""
    alphabet = rng.choice((*ALPHABETS, "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(2, 9)))


def place(rng: Random) -> str:
    """A place: mostly made up, so that the model learns to copy and not to remember."""
    kind = rng.random()
    if kind < 0.22:  # noqa: PLR2004 - shares of the mix read best in place
        return rng.choice(PLACES)
    if kind < 0.30:  # noqa: PLR2004
        return letters(rng)
    return name(rng)


def zone(rng: Random) -> str:
    """A time zone in the style of the tz database."""
    if chance(rng, 0.1):
        return rng.choice(("UTC", "GMT", "CET", "EST", "PST"))
    return f"{rng.choice(ZONES)}/{rng.choice((place, name))(rng).replace(' ', '_')}"


def typo(rng: Random, text: str) -> str:
    """The text with one letter left out, doubled or swapped with the next."""
    at = rng.randrange(len(text))
    middle = rng.choice(("", text[at] * 2, text[at : at + 2][::-1]))
    return text[:at] + middle + text[at + (2 if len(middle) > 1 and middle[0] != text[at] else 1) :]


def recase(rng: Random, text: str) -> str:
    """The text, sometimes without capitals, in capitals, or without its end mark."""
    kind = rng.random()
    if kind < 0.25:  # noqa: PLR2004 - shares of the mix read best in place
        text = text.lower()
    elif kind < 0.28:  # noqa: PLR2004
        text = text.upper()
    return text.rstrip("?.!") if chance(rng, 0.3) else text


def vary(rng: Random, text: str) -> str:
    """The question as another person might type it."""
    if chance(rng, 0.15):
        text = rng.choice(OPENERS) + (text[0].lower() + text[1:] if chance(rng, 0.5) else text)
    if chance(rng, 0.1):
        text += rng.choice(CLOSERS)
    text = recase(rng, text)
    if text and chance(rng, 0.06):
        text = typo(rng, text)
    if chance(rng, 0.05):
        text = text.replace("'", "") if "'" in text else rng.choice((f" {text}", f"{text}\n"))
    return text
