"""DenseNet-121 with channel attention, as the chest-pneumonia package has it."""

from training.networks.classifier import ChannelAttention, Classifier, Head
from training.networks.monte_carlo import STEM_GRID, McConfig, McTriageNet, mask_bank
from training.networks.trunks import DENSENET121

STEM_CHANNELS, _, FEATURE_CHANNELS = DENSENET121.channels
GATE_FEATURES = STEM_CHANNELS * STEM_GRID**2 + FEATURE_CHANNELS

__all__ = [
    "FEATURE_CHANNELS",
    "GATE_FEATURES",
    "STEM_CHANNELS",
    "AttentionDenseNet",
    "ChannelAttention",
    "McConfig",
    "McTriageNet",
    "mask_bank",
]


class AttentionDenseNet(Classifier):
    """One-channel DenseNet-121 -> global pool -> channel attention -> dropout -> linear."""

    def __init__(self, n_labels: int, dropout: float = 0.5, ratio: int = 16) -> None:
        super().__init__(DENSENET121, Head(n_labels, dropout, attention_ratio=ratio))
