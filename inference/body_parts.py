"""Which part of the body and which view a header tells of: code strings, SNOMED codes, words of a site's tables."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# Defined terms of Body Part Examined that are common in radiography (PS3.16 Annex L); others count as unknown.
KNOWN_BODY_PARTS = frozenset(
    (
        "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "ANUS", "AORTA", "ARM", "AXILLA", "BACK", "BLADDER", "BRAIN",
        "BREAST", "BUTTOCK", "CALCANEUS", "CALF", "CARDIAC", "CAROTID", "CEREBELLUM", "CERVIX", "CHEEK",
        "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "CLAVICLE", "COCCYX", "COLON", "CSPINE", "CTSPINE", "ELBOW",
        "ESOPHAGUS", "EXTREMITY", "EYE", "FACE", "FEMUR", "FINGER", "FOOT", "FOREARM", "GALLBLADDER", "HAND",
        "HEAD", "HEADNECK", "HEART", "HIP", "HUMERUS", "IAC", "JAW", "KIDNEY", "KNEE", "LARYNX", "LEG", "LIVER",
        "LOWEREXTREMITY", "LSPINE", "LSSPINE", "MANDIBLE", "MAXILLA", "MEDIASTINUM", "MOUTH", "NECK",
        "NECKCHEST", "NECKCHESTABDOMEN", "NOSE", "ORBIT", "PANCREAS", "PARATHYROID", "PATELLA", "PELVIS",
        "PELVISLOWEXTREMT", "PENIS", "PHARYNX", "PROSTATE", "RECTUM", "RENAL", "RIB", "SCALP", "SCAPULA",
        "SELLA", "SHOULDER", "SIJOINT", "SINUS", "SKULL", "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH",
        "TESTIS", "THIGH", "THUMB", "THYMUS", "THYROID", "TLSPINE", "TMJ", "TOE", "TONGUE", "TRACHEA", "TSPINE",
        "ULNA", "UPPEREXTREMITY", "UTERUS", "VAGINA", "WRIST", "ZYGOMA",
    )
)  # fmt: skip
SYNONYMS = {"THORAX": "CHEST", "LUNG": "CHEST", "LUNGS": "CHEST", "CXR": "CHEST"}
SPINE_PARTS = frozenset(("SPINE", "CSPINE", "CTSPINE", "TSPINE", "TLSPINE", "LSPINE", "LSSPINE", "SSPINE", "COCCYX"))

# Anatomic Region Sequence, SNOMED CT and the older SNOMED RT (PS3.16 CID 4, CID 4031).
REGIONS = {
    "ABDOMEN": "818981001 113345001 T-D4000", "ABDOMENANDPELVIS": "818982008", "ANKLE": "70258002 T-15750",
    "BREAST": "76752008 T-04000", "CALCANEUS": "80144004 T-12770", "CSPINE": "122494005 T-11501",
    "CTSPINE": "1217257000", "CHEST": "816094009 51185008 43799004 T-D3000 39607008 T-28000",
    "CHESTABDPELVIS": "416775004 R-FAB56", "CHESTABDOMEN": "416550000 R-FAB55", "CLAVICLE": "51299004 T-12310",
    "COCCYX": "64688005 T-11BF0", "ELBOW": "16953009 T-15430", "EXTREMITY": "66019005 T-D0300",
    "FACIALBONES": "91397008 T-11196", "FEMUR": "71341001 T-12710", "FIBULA": "87342007 T-12750",
    "FINGER": "7569003 T-D8800", "FOOT": "56459004 T-D9700", "FOREARM": "14975008 T-D8500",
    "HAND": "85562004 T-D8700", "HEAD": "69536005 T-D1100", "HIP": "29836001 T-D2500 24136001 T-15710",
    "HUMERUS": "85050009 T-12410", "KNEE": "72696002 T-D9200", "LEG": "30021000 T-D9400",
    "LOWERLIMB": "61685007 T-D9000", "LSPINE": "122496007 T-11503", "LSSPINE": "1217253001",
    "MANDIBLE": "91609006 T-11180", "MAXILLA": "70925003 T-11170", "NASALBONE": "74386004 T-11149",
    "NECK": "45048000 T-D1600", "NECKANDCHEST": "417437006 R-FAB52", "ORBITALSTRUCTURE": "363654007 T-D14AE",
    "PARANASALSINUS": "2095001 T-22000", "PATELLA": "64234005 T-12730", "PELVIS": "816092008 12921003 T-D6000",
    "RIB": "113197003 T-11300", "SSPINE": "1217254007 54735007 T-11AD0", "SACROILIACJOINT": "39723000 T-15680",
    "SCAPULA": "79601000 T-12280", "SHOULDER": "16982005 T-D2220", "SKULL": "89546000 T-11100",
    "SPINE": "421060004 T-D04FF", "STERNUM": "56873002 T-11210", "TEMPOROMANDIBULARJOINT": "53620006 T-15290",
    "THIGH": "68367000 T-D9100", "TSPINE": "122495006 T-11502", "TLSPINE": "1217256009", "THUMB": "76505004 T-D8810",
    "TOE": "29707007 T-D9800", "ARM": "40983000 T-D8200", "UPPERLIMB": "53120007 T-D8000",
    "WRIST": "74670003 T-15460", "ZYGOMA": "13881006 T-11166",
}  # fmt: skip
REGION_CODES = {code: part for part, codes in REGIONS.items() for code in codes.split()}
# View Code Sequence (PS3.16 CID 4010); the older SNOMED RT codes beside the numbers.
VIEWS = {
    "PA": "272479007 R-40888 R-10214",
    "AP": "399348003 R-10206",
    "FRONTAL": "399033003 R-10202",
    "LATERAL": (
        "399067008 R-102CD 399173006 R-10236 399198007 R-10232 399352003 R-10228 399260004 "
        "R-10224 30730003 G-A145 "
    ),
    "OBLIQUE": (
        "399182000 R-102C1 399135007 R-10220 399184004 R-10238 399006002 R-10212 399356000 "
        "R-40985 399236003 R-10234 399038007 R-10210 399312000 R-10208 399059000 R-10216 "
        "399160007 R-10204 260427002 R-40783 "
    ),
    "AXIAL": "399061009 R-10241",
}  # fmt: skip
VIEW_CODES = {code: view for view, codes in VIEWS.items() for code in codes.split()}
VIEW_TERMS = {"PA": "PA", "AP": "AP", "LL": "LATERAL", "RL": "LATERAL", "LAT": "LATERAL", "LATERAL": "LATERAL",
              "RLD": "LATERAL DECUBITUS", "LLD": "LATERAL DECUBITUS", "RLO": "OBLIQUE", "LLO": "OBLIQUE"}  # fmt: skip


@dataclass(frozen=True)
class SiteTables:
    """A site's own words, from settings.look."""

    body_parts: Mapping[str, Sequence[str]]  # defined term -> words
    frontal: tuple[str, ...]
    lateral: tuple[str, ...]


def body_part_of_term(term: str, tables: SiteTables) -> str | None:
    """A defined term for the value of Body Part Examined, or None when it says nothing."""
    name = term.upper().strip()
    squeezed = re.sub(r"[^A-Z]", "", name)
    if not squeezed:
        return None
    if squeezed in SYNONYMS or squeezed in KNOWN_BODY_PARTS:
        return SYNONYMS.get(squeezed, squeezed)
    return body_part_of_text(term, tables)


def body_part_of_text(text: str, tables: SiteTables) -> str | None:
    """The one part whose words of the site's table stand in the text; None when there is none, or more than one."""
    named = [part for part, words in tables.body_parts.items() if any_word(text, words)]
    return named[0] if len(named) == 1 else None


def body_part_of_codes(codes: Iterable[tuple[str, str]]) -> str | None:
    """From (value, scheme) pairs of Anatomic Region Sequence."""
    return next((REGION_CODES[value] for value, _ in codes if value in REGION_CODES), None)


def view_of_term(term: str) -> str | None:
    return VIEW_TERMS.get(term.upper().strip())


def view_of_codes(codes: Iterable[tuple[str, str]]) -> str | None:
    return next((VIEW_CODES[value] for value, _ in codes if value in VIEW_CODES), None)


def view_of_text(text: str, tables: SiteTables) -> str | None:
    """PA, AP, FRONTAL or LATERAL; None when the text says none of them, or both sides ("chest PA and lateral")."""
    frontal = [word for word in tables.frontal if any_word(text, (word,))]
    lateral = any_word(text, tables.lateral)
    if lateral and frontal:
        return None
    if lateral:
        return "LATERAL"
    directions = {re.sub(r"[^a-z]", "", word.casefold()) for word in frontal}
    if not directions:
        return None
    named = directions & {"pa", "ap"}
    return named.pop().upper() if len(named) == 1 else "FRONTAL"


def any_word(text: str, words: Sequence[str]) -> bool:
    """Whole words; a word of four letters or more may also begin a longer one ("Thoraxaufnahme")."""
    folded = text.casefold()
    for word in words:
        end = r"" if len(word) >= 4 else r"(?![^\W_])"
        if word and re.search(rf"(?<![^\W_]){re.escape(word.casefold())}{end}", folded):
            return True
    return False
