"""Section ``distillation`` of params.yaml."""

from pipeline.config.base import Count, NotNegative, Positive, Section, Seed


class DistillationParams(Section):
    """How the encoder learns CLIP's dense features when segmenter.encoder_weights is 'clip'."""

    seed: Seed
    steps: Count
    batch_size: Count
    lr: Positive
    weight_decay: NotNegative
