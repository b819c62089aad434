"""English (and other) words in answers: numbers in words, hedges, names of units, sentences around an answer."""

from __future__ import annotations

import functools
import re
import unicodedata
from fractions import Fraction

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
SMALL_NUMBERS = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
MAGNITUDES = {
    "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9,
    "trillion": 10**12, "mn": 10**6, "bn": 10**9, "k": 10**3, "万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8,
    "만": 10**4, "억": 10**8, "тысяч": 10**3, "тысячи": 10**3, "тысяча": 10**3, "миллионов": 10**6, "миллиона": 10**6,
    "миллион": 10**6, "миллиард": 10**9, "миллиардов": 10**9, "लाख": 10**5, "करोड़": 10**7, "dozen": 12,
}  # fmt: skip
_ORDINARY_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
                   "ninth": 9, "tenth": 10}  # fmt: skip

NEGATIVE = frozenset(
    "not no nor never neither none nobody nothing nowhere without except unless hardly barely cannot cant false falsely "
    "wrong wrongly incorrect incorrectly untrue invalid impossible opposite contrary other another different instead "
    "rather but however although though or either maybe perhaps possibly probably likely might may could would should "
    "unknown undefined undetermined indeterminate unclear unsure uncertain guess guessing if whether versus vs exclude "
    "excluding excluded excludes reject rejected deny denies fail fails failed error mistake ignore disregard almost "
    "nearly anything everything something somebody "
    "isn't aren't wasn't don't doesn't didn't can't won't n't non und oder nicht kein ou pas o y no ni sin".split()
) - {"y", "o", "no_"}  # fmt: skip
"""Words that turn what stands beside them into something else, or leave it open."""
SMALL_WORDS = frozenset(["a", "an", "the", "on", "in", "at", "of", "by", "it", "its", "is", "are", "was", "be", "all"])
_NO_UNITS = frozenset(
    "and to plus minus over under mod modulo base pi sqrt root squared cubed factorial times time multiplied divided "
    "less fewer more than greater smaller larger higher lower bigger above below beneath beyond between around about "
    "approximately approx roughly exactly negative positive zero tens hundreds half halves double doubled triple "
    "tripled twice thrice fold score gross pair pairs dozens every out as is are was were be been being am has have had "
    "do does did this that these those which who what why how when where there here then thus hence so because since "
    "for from with into onto until till after before yes true equals equal exceeds means gives makes becomes yields "
    "differs remains needs seems looks plus percent sum difference product quotient ratio power powers square root "
    "roots inverse reciprocal reciprocals negatives minuses i we you he she they me us him her them my your his their "
    "our first second third fourth fifth sixth seventh eighth ninth tenth last next sometimes always often usually "
    "sometime ever just only even odd also too very quite infinity infinite infinitely nan null nil finite e x y z "
    "halfs thirds quarters fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths quadrillion "
    "quadrillions quintillion sextillion googol myriad myriads bits-of upwards downwards prime primes exclusive "
    "inclusive expo exponent max min maximum minimum factor factors multiple multiples solution solutions answer "
    "answers guesses errors mistakes counterexamples lies".split()
)
_KNOWN = frozenset(
    "m km cm mm dm nm µm um mi ft in yd inch foot mile yard meter metre centimeter centimetre kilometer kilometre "
    "millimeter millimetre nanometer micrometer micron angstrom å parsec pc ly au s sec second ms min minute h hr hour day week month year "
    "decade century g kg mg µg lb lbs pound oz ounce ton tonne t stone l ml dl cl liter litre milliliter millilitre "
    "gallon gal quart qt pint pt cup teaspoon tablespoon tsp tbsp n newton j kj mj joule w kw mw watt kwh v kv mv volt a ma "
    "amp ampere hz khz mhz ghz hertz k kelvin c f celsius fahrenheit deg degree rad radian steradian sr pa kpa mpa atm "
    "bar psi torr mmhg mol mole mmol ev kev mev gev erg dyne ohm farad henry tesla weber coulomb lumen lux candela cal "
    "kcal calorie btu hp horsepower mph kph kmph kmh fps rpm bps kbps mbps bit byte kb mb gb tb acre hectare ha "
    "sqft unit percent person people man men woman women child children mouse mice goose geese fish sheep deer foot "
    "feet tooth teeth cent dollar euro mark piece slice item apple student point page way hour outcome digit egg "
    "car dog cat book pen pencil ticket game card coin marble box boxes ball cookie candy candies pie pizza cake block "
    "row column edge vertex vertices face side angle triangle degree° term set step turn lap cube tile number integer "
    "arrangement permutation combination subset path route possibility possibilities minute-s".split()
)
_NO_PLURAL = re.compile(r"(?:ss|us|is|ous|less|ness|ways?)$")
_FOREIGN_VALUE = re.compile(r"[万萬億亿兆千百十半倍或和不没無无非以约約负負零]|тысяч|милли|или|не(?![а-яё])|нет|лакх|लाख|करोड़|हज़ार|نصف|ألف|مليون|만|억|천|백|或者|または")
_FOREIGN = {
    "см": "cm", "м": "m", "км": "km", "мм": "mm", "кг": "kg", "г": "g", "л": "l", "мл": "ml", "ч": "h", "час": "h",
    "часа": "h", "часов": "h", "мин": "min", "минут": "min", "с": "s", "сек": "s", "секунд": "s", "руб": "rub",
    "рублей": "rub", "рубля": "rub", "рубль": "rub", "долларов": "$", "доллара": "$", "евро": "€", "метров": "m",
    "метра": "m", "градусов": "°", "процентов": "%", "米": "m", "厘米": "cm", "公分": "cm", "毫米": "mm", "千米": "km",
    "公里": "km", "公斤": "kg", "千克": "kg", "克": "g", "升": "l", "毫升": "ml", "小时": "h", "小時": "h", "时间": "h",
    "時間": "h", "分钟": "min", "分鐘": "min", "分": "min", "秒": "s", "元": "cny", "人民币": "cny", "美元": "$", "美金": "$",
    "日元": "¥", "円": "¥", "欧元": "€", "원": "krw", "度": "°", "平方米": "m2", "平方厘米": "cm2", "立方米": "m3",
    "मीटर": "m", "किमी": "km", "किलो": "kg", "घंटे": "h", "रुपये": "inr", "متر": "m", "كم": "km", "سم": "cm", "ساعة": "h",
    "دولار": "$", "미터": "m", "센티미터": "cm", "킬로그램": "kg", "시간": "h", "달러": "$", "メートル": "m", "センチ": "cm",
    "グラム": "g", "キロ": "kg", "ドル": "$", "个": "", "個": "", "只": "", "人": "person", "名": "person", "本": "", "つ": "",
    "개": "", "명": "person", "штук": "", "шт": "",
}  # fmt: skip
_CURRENCIES = {
    "$": "$", "€": "€", "£": "£", "¥": "¥", "₹": "inr", "₩": "krw", "₽": "rub", "₺": "try", "₫": "vnd", "₪": "ils",
    "₦": "ngn", "₱": "php", "฿": "thb", "₴": "uah", "¢": "¢", "￥": "¥", "₵": "ghs", "₡": "crc", "₲": "pyg", "₸": "kzt",
}  # fmt: skip
_CODES = {
    code: code for code in "inr krw rub try vnd ils ngn php thb uah chf sek nok dkk pln czk huf aud cad nzd sgd hkd brl "
    "mxn zar aed sar egp pkr bdt idr myr twd kes ars clp cop pen ron bgn isk".split()
} | {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥", "cny": "cny", "rmb": "cny"}  # fmt: skip
_NAMED_CURRENCIES = {
    "dollar": "$", "buck": "$", "euro": "€", "pound sterling": "£", "sterling": "£", "quid": "£", "yen": "¥",
    "yuan": "cny", "renminbi": "cny", "rupee": "inr", "rs": "inr", "won": "krw", "ruble": "rub", "rouble": "rub",
    "rupiah": "idr", "rand": "zar", "real": "brl", "reais": "brl", "peso": "peso", "franc": "chf", "krona": "sek",
    "krone": "nok", "kroner": "nok", "kronor": "sek", "zloty": "pln", "dirham": "aed", "riyal": "sar", "lira": "try",
    "shekel": "ils", "baht": "thb", "naira": "ngn", "dong": "vnd", "ringgit": "myr", "taka": "bdt", "hryvnia": "uah",
}  # fmt: skip
_SYNONYMS = {
    "°": "°", "degree": "°", "deg": "°", "percent": "%", "pct": "%", "cent": "¢", "centimeter": "cm", "centimetre": "cm",
    "meter": "m", "metre": "m", "kilometer": "km", "kilometre": "km", "millimeter": "mm", "millimetre": "mm",
    "inch": "inch", "inche": "inch", "in": "inch", "foot": "foot", "feet": "foot", "ft": "foot", "yard": "yd", "hour": "h",
    "hr": "h", "minute": "min", "min": "min", "second": "s", "sec": "s", "gram": "g", "kilogram": "kg", "kilo": "kg",
    "milligram": "mg", "liter": "l", "litre": "l", "milliliter": "ml", "millilitre": "ml", "rad": "radian",
    "people": "person", "lb": "lb", "pound": "lb", "ounce": "oz", "gallon": "gal", "mile": "mi", "day": "day",
    "newton": "N", "joule": "J", "watt": "W", "volt": "V", "ampere": "A", "amp": "A", "kelvin": "K", "hertz": "Hz",
    "tonne": "t", "ton": "t", "mph": "mi/h", "kph": "km/h", "kmph": "km/h", "kmh": "km/h", "fps": "foot/s",
    "sqft": "foot2", "celsius": "C", "fahrenheit": "F", "l": "l", "L": "l", "women": "woman", "men": "man",
    "children": "child", "units": "unit",
}  # fmt: skip
_AFTER = re.compile(
    r"\s+(?:in (?:total|all)|total|altogether|overall|remaining|left|left over|apiece|each|now|tall|long|wide|high|deep|"
    r"old|away|ago|later|increase|decrease|chance|off|discount|profit|of (?:the )?(?:total|people|students|cases))$"
)
_ATOM = re.compile(r"([^\W\d_]+|[$€£¢%°'\"]|[^\x00-\x7f])(?:\s*\^?\s*\{?\s*(-?[123])\s*\}?)?")


def spelled_number(text: str) -> Fraction | None:
    """The value of a number in English words, such as "two hundred and five" or "minus three"; None for other text."""
    words = re.split(r"[\s-]+", text.casefold().replace(",", " ").strip())
    if not words or len(words) > 16:
        return None
    negative = words[0] in ("minus", "negative")
    words = words[negative:]
    if len(words) == 2 and words[1].removesuffix("s") in _ORDINARY_PARTS and words[0] in ("a", "an", *SMALL_NUMBERS):
        value = Fraction(SMALL_NUMBERS.get(words[0], 1), _ORDINARY_PARTS[words[1].removesuffix("s")])
        return -value if negative else value
    total = _whole(words)
    return None if total is None else Fraction(-total if negative else total)


def _whole(words: list[str]) -> int | None:
    if len(words) > 1 and words[0] in ("a", "an") and words[1] in MAGNITUDES:
        words = ["one", *words[1:]]
    total, group, previous, bound = 0, 0, "", 10**15
    for index, word in enumerate(words):
        if word == "and" and previous in ("hundred", "thousand", "million") and index < len(words) - 1:
            continue
        if word in SMALL_NUMBERS:
            value = SMALL_NUMBERS[word]
            fits = previous == "" or previous in MAGNITUDES or (previous in _TENS and 0 < value < 10)
            if not fits or (value == 0 and len(words) > 1):
                return None
            group += value
        elif word == "hundred" and 0 < group < 100:
            group *= 100
        elif word in ("thousand", "million", "billion", "trillion") and 0 < group < 1000 and MAGNITUDES[word] < bound:
            bound = MAGNITUDES[word]
            total, group = total + group * bound, 0
        else:
            return None
        previous = word
    return total + group if previous else None


def is_negative(text: str) -> bool:
    """Whether a text denies, hedges, or leaves something open."""
    return any(word in NEGATIVE or word.endswith("n't") for word in re.findall(r"[^\W\d_]+(?:'[a-z]+)?", text.casefold()))


def magnitude(text: str) -> tuple[int, str]:
    """The power of ten that a unit begins with ("million dollars": 10^6), and the rest."""
    value, words = 1, text.split()
    while words and (name := words[0].casefold().rstrip(".")) and name != "k":
        known = name if name in MAGNITUDES else name.removesuffix("s")
        if known not in MAGNITUDES or known == "k":
            break
        value, words = value * MAGNITUDES[known], words[1:]
        if words[:1] == ["of"]:
            words = words[1:]
    return value, " ".join(words)


@functools.lru_cache(maxsize=4096)
def unit(text: str) -> str | None:
    """The one spelling of a unit, or of what is counted; None for other words. Spaces at both ends must be gone.

    Known units may be combined ("km/h", "m s^-1", "dollars per hour"). Things that are counted are plural nouns with
    up to three words before them ("right triangles"). Words that change the value, deny or hedge are no units.
    """
    text = re.sub(r"\s+", " ", text.strip().rstrip("."))
    text = re.sub(r"\((?:in )?([^()\d]*)\)", r"\1", text) if text.startswith("(") else text
    if not text:
        return ""
    money = currency(text)
    if money is not None:
        return money
    combined = _combined(text)
    if combined is not None:
        return combined
    before = text
    text = _AFTER.sub("", f" {text}").strip()
    if text != before:
        return unit(text)
    counted = _counted(text)
    if counted is not None:
        return counted
    head, middle, rest = re.match(r"(.*?)(?: (per|of|in|from|for|a|an|each|every) (.*))?$", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if middle and rest and not is_negative(rest):
        first = unit(head)
        second = unit(rest) if middle in ("per", "a", "an", "each", "every") else (
            "" if _plain_words(rest) else None
        )  # fmt: skip
        if first is not None and second is not None and (first or head == ""):
            return f"{first}/{second}" if middle in ("per", "a", "an", "each", "every") else first
    return None


def currency(text: str) -> str | None:
    """The one spelling of a currency's sign, code or name; None for other text."""
    text = text.strip().replace("\\$", "$")
    if text in _CURRENCIES:
        return _CURRENCIES[text]
    if len(text) == 1 and unicodedata.category(text) == "Sc":
        return text
    code = re.fullmatch(r"(?:US|C|A|CA|AU|NZ|HK|S)?\$", text)
    if code:
        return "$"
    folded = text.casefold().rstrip(".")
    if len(folded) == 3 and folded in _CODES and (text.isupper() or folded in ("usd", "eur", "rmb")):
        return _CODES[folded]
    folded = re.sub(r"^(?:us|u\.s\.|american|canadian|australian|indian|japanese|chinese|korean|british|russian) ", "", folded)
    return _NAMED_CURRENCIES.get(folded) or _NAMED_CURRENCIES.get(folded.removesuffix("s"))


def _combined(text: str) -> str | None:
    parts: list[str] = []
    square = {"square": "2", "sq": "2", "sq.": "2", "cubic": "3", "cu": "3", "cu.": "3"}
    raised = ""
    text = re.sub(r"\\cdot(?![A-Za-z])|⋅|·|(?<=[a-zA-Z])-(?=[a-zA-Z])", " ", text)
    for piece in re.findall(r"/|[^\s/]+(?:\s*\^\s*\{?-?\d\}?)?", text):
        if piece == "/" or piece.casefold() == "per":
            parts.append("/")
            continue
        if piece.casefold() in square and not raised:
            raised = square[piece.casefold()]
            continue
        match = _ATOM.fullmatch(piece.rstrip("."))
        name = match and _known(match[1])
        if not match or name is None:
            return None
        parts.append(name + (match[2] or raised))
        raised = ""
    if raised or not parts or parts[-1] == "/" or parts.count("/") > 2 or len(parts) > 6:
        return None
    joined = " ".join(parts).replace(" / ", "/").replace("/ ", "/")
    return re.sub(r" ?(\w+)-1$", r"/\1", joined) if joined.count(" ") + joined.count("-1") == 2 else joined


def _known(word: str) -> str | None:
    """The one spelling of a single known unit."""
    if not word.isascii() and word not in "€£¢°":
        return _foreign(word)
    if word == "°" or word == "%":
        return word
    if word == "'" or word == '"':
        return "'" if word == "'" else '"'
    money = currency(word)
    if money is not None:
        return money
    for name in (word, word.casefold()):
        for form in (name, name.removesuffix("s"), name.removesuffix("es")):
            if form in _SYNONYMS and (len(form) > 1 or form == word):
                return _SYNONYMS[form]
    folded = word.casefold()
    if len(word) == 1:
        return word if word in "mgshlLCFNJWKVAt" else None
    return next((form for form in (folded, folded.removesuffix("s"), folded.removesuffix("es")) if form in _KNOWN), None)


def _foreign(word: str) -> str | None:
    if word in _FOREIGN:
        return _FOREIGN[word]
    if currency(word) is not None:
        return currency(word)
    if _FOREIGN_VALUE.search(word) or not re.fullmatch(r"[^\W\d_]{1,12}", word):
        return None
    return None if any("LATIN" in unicodedata.name(char, "LATIN") for char in word) and not word.isalpha() else word


def _counted(text: str) -> str | None:
    """What is counted: a plural noun with up to three words before it."""
    words = re.split(r"[ -]", text)
    if len(words) > 4 or not all(re.fullmatch(r"[^\W\d_]+(?:'s?)?", word) for word in words):
        return None
    folded = [word.casefold() for word in words]
    if any(word in NEGATIVE or word in _NO_UNITS or is_value(word) for word in folded):
        return None
    if any(word.endswith("ly") and len(word) > 4 for word in folded):
        return None
    last = folded[-1]
    if not last.isascii():
        return text
    if last in _KNOWN or (last in _SYNONYMS and len(last) > 2):
        return " ".join([*folded[:-1], last])
    is_plural = len(last) > 3 and last.endswith("s") and not _NO_PLURAL.search(last)
    return " ".join([*folded[:-1], last.removesuffix("s")]) if is_plural else None


def _plain_words(text: str) -> bool:
    words = text.casefold().split()
    return len(words) <= 4 and all(
        re.fullmatch(r"[^\W\d_]+", word) and not is_value(word) and (word not in _NO_UNITS or word in ("each", "all"))
        for word in words
    )


def is_value(word: str) -> bool:
    """Whether a word is a number or a power of ten."""
    word = word.casefold()
    forms = (word, word.removesuffix("s"), word.removesuffix("es"))
    return any(form in SMALL_NUMBERS or form in MAGNITUDES for form in forms if form != "k")


def normal_words(text: str) -> tuple[str, ...]:
    """The words and signs of a text in the form that is compared.

    Case does not matter, except in names without vowels (XYZ, xyz); nor do articles and prepositions at the start.
    """
    found = re.findall(r"\\[A-Za-z]+|[^\W_]+(?:'[^\W_]+)?|[^\s\w]", re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text))
    words = [word.casefold() if re.search(r"[aeiouAEIOU]|[^\x00-\x7f]", word) else word for word in found]
    while len(words) > 1 and words[0] in SMALL_WORDS and words[1].isalpha():
        del words[0]
    return tuple(word for word in words if word not in ("{", "}"))


_SENTENCE = re.compile(r"(?P<subject>(?:\S+\s+){1,5}?)(?:is|are|was|were|am|equals)\s+(?P<rest>\S.*)", re.IGNORECASE | re.DOTALL)


def statement(text: str) -> str | None:
    """What a short sentence ("the function is even") says of its subject; None if it is none, or hedges."""
    match = _SENTENCE.fullmatch(re.sub(r"\s+", " ", text.strip()))
    if match is None or is_negative(text) or re.search(r"\d", match["subject"]):
        return None
    return match["rest"]
