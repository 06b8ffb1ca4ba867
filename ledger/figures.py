"""A probability and its spread as people read them: never a certainty, nor an exactness, that no model has."""


def probability_words(probability: float) -> str:
    """Two decimals: "0.93", ">0.99", "<0.01"."""
    if probability > 0.994:
        return ">0.99"
    return "<0.01" if probability < 0.006 else f"{probability:.2f}"


def sd_words(sd: float, decimals: int = 2) -> str:
    """ "0.04"; "<0.01" where nothing but noughts would be left of it."""
    least = 10.0**-decimals
    return f"<{least:.{decimals}f}" if sd < least / 2 else f"{sd:.{decimals}f}"


def with_sd(probability: float, sd: float) -> str:
    """ "0.93 ± 0.04"."""
    return f"{probability_words(probability)} ± {sd_words(sd)}"
