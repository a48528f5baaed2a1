"""Section ``distillation`` of params.yaml."""

from pipeline.config.base import Count, NotNegative, Positive, Section, Seed


class DistillationParams(Section):
    """Distillation of CLIP's dense features, used if segmenter.encoder_weights is 'clip'."""

    seed: Seed
    steps: Count
    batch_size: Count
    lr: Positive
    weight_decay: NotNegative
