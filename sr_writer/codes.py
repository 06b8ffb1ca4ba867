"""Coded concepts the objects use, and the private scheme for the few the standard lacks."""

from highdicom.sr import CodedConcept

from ledger.records import Code
from sr_writer.identity import uid_from

PRIVATE_SCHEME = "99OPENTRIAGE"
PRIVATE_SCHEME_UID = uid_from("coding scheme", PRIVATE_SCHEME)


def _dcm(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "DCM", meaning)


def _sct(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "SCT", meaning)


def _private(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, PRIVATE_SCHEME, meaning)


PRIORITY = _sct("260870009", "Priority")
HIGH_PRIORITY = _sct("394849002", "High priority")
URGENT = _sct("103391001", "Urgent")  # CID 3414; a priority that is not raised is not coded: its code means "Normal"

PRESENT = _sct("52101004", "Present")
ABSENT = _sct("272519000", "Absent")
UNDETERMINED = _sct("373068000", "Undetermined")
PRESENCES = (PRESENT, UNDETERMINED, ABSENT)  # what is on any image goes before what is on the others

PROBABILITY = _dcm("122157", "Probability")
PROB_OF_LABEL = "PROB_"  # and the label, at most 16 characters (SH): for viewers that show names alone
PROB_OF_BOX = "PROB_BOX_"  # the same of one box of several, whose numbers are their own
PROBABILITY_SD = _private("PROB_SD", "Probability SD (MC dropout)")
VOLUME = _sct("118565006", "Volume")
MILLILITRE = CodedConcept("ml", "UCUM", "ml")
NO_UNITS = CodedConcept("1", "UCUM", "no units")
PERCENT = CodedConcept("%", "UCUM", "%")

ACTIONABLE = _private("ACTIONABLE", "Actionable finding classification")
ACR_CATEGORY_1 = CodedConcept("RID49480", "RADLEX", "ACR Category 1 Actionable Finding")
ACR_CATEGORY_2 = CodedConcept("RID49481", "RADLEX", "ACR Category 2 Actionable Finding")
ACR_CATEGORY_3 = CodedConcept("RID49482", "RADLEX", "ACR Category 3 Actionable Finding")
ACR_CATEGORIES = {1: ACR_CATEGORY_1, 2: ACR_CATEGORY_2, 3: ACR_CATEGORY_3}
CRITICAL_FLAG = _private("CRITICAL_FLAG", "Critical flag")
CONNECTION_TEST = _private("CONNECTION_TEST", "Connection test pattern, no finding")

QUALITATIVE_EVALUATIONS = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
ORIGINAL_SOURCE = _dcm("111040", "Original Source")
IMAGE_REGION = _dcm("111030", "Image Region")
COMMENT = _dcm("121106", "Comment")
FINDING = _dcm("121071", "Finding")
FINDINGS = _dcm("121070", "Findings")
IMPRESSION = _dcm("121073", "Impression")
IMPRESSIONS = _dcm("121072", "Impressions")
RECOMMENDATION = _dcm("121075", "Recommendation")
RECOMMENDATIONS = _dcm("121074", "Recommendations")
PROCEDURE_REPORTED = _dcm("121058", "Procedure reported")
IMAGING_PROCEDURE = _sct("363679005", "Imaging procedure")
DIAGNOSTIC_REPORT = CodedConcept("18748-4", "LN", "Diagnostic Imaging Report")
ABNORMAL_STRUCTURE = _sct("49755003", "Morphologically Abnormal Structure")
NEOPLASM = _sct("108369006", "Neoplasm")
ARTIFICIAL_INTELLIGENCE = _dcm("123110", "Artificial Intelligence")
DEVICE = _dcm("121007", "Device")
PROCESSING_EQUIPMENT = _dcm("109102", "Processing Equipment")
OF_INTEREST = _dcm("113000", "Of Interest")
KEY_OBJECT_DESCRIPTION = _dcm("113012", "Key Object Description")
CLASS_ACTIVATION = _dcm("130402", "Class activation")
GRADIENT_CLASS_ACTIVATION = _dcm("130403", "Gradient-weighted class activation")
RESULT_STATUS = _private("RESULT_STATUS", "AI result status")
WITHDRAWN = _private("WITHDRAWN", "Withdrawn")
SOURCE_IMAGE = _dcm("121322", "Source image for image processing operation")
INTERPRETATION = _dcm("110005", "Interpretation")
ENGLISH = CodedConcept("en-US", "RFC5646", "English (United States)")


_NEOPLASMS = frozenset({("108369006", "SCT"), ("126952004", "SCT")})  # neoplasm, neoplasm of brain


def concept(code: Code) -> CodedConcept:
    return CodedConcept(code.value, code.scheme, code.meaning)


def segmented(code: Code) -> CodedConcept:
    """The type of a segment (CID 7151 and after): a neoplasm of some organ is a neoplasm, the organ stands apart."""
    return NEOPLASM if (code.value, code.scheme) in _NEOPLASMS else concept(code)


def flag_concept(flag: str) -> CodedConcept:
    """RESPIRATORY_EMERGENCY -> a private code of at most 16 characters (SH) with the flag in its meaning."""
    initials = "".join(word[:7] for word in flag.split("_"))[:16]
    return _private(initials, flag.replace("_", " ").capitalize())


def presence(present: bool, in_doubt: bool) -> CodedConcept:
    """Present stays present however much the passes disagree; in doubt is neither."""
    if present:
        return PRESENT
    return UNDETERMINED if in_doubt else ABSENT
