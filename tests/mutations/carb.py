"""Mistakes in the paper's loss and in the metrics."""

from tests.mutations.mutation import Mutation

CARB = ("carb", "carb_cases", "carb_laws")
MUTATIONS = [
    # carb: the paper's loss
    Mutation(
        "the means are of the own process",
        "carb.py",
        "total = all_reduce_sum(torch.where(region, mass, 0).sum())",
        "total = torch.where(region, mass, 0).sum().detach()",
        ("carb_laws",),
    ),
    Mutation(
        "the gradient is a process's own share",
        "system/distributed.py",
        "part = world_size() * own",
        "part = own",
        ("carb_laws",),
    ),
    Mutation(
        "ignored pixels count in the share of reliable ones",
        "carb.py",
        "/ all_reduce_sum(valid.sum()).clamp_min(1)",
        "/ all_reduce_sum(torch.ones_like(valid).sum()).clamp_min(1)",
        CARB,
    ),
    Mutation(
        "ignored pixels are noisy",
        "carb.py",
        "return reliable, valid & ~reliable",
        "return reliable, ~reliable",
        ("carb_laws",),
    ),
    Mutation(
        "a probability of exactly tau is not enough",
        "carb.py",
        "reliable &= probs[:, 0] >= tau",
        "reliable &= probs[:, 0] > tau",
        ("carb_laws",),
    ),
    Mutation(
        "absent classes share in the probability",
        "carb.py",
        "present.logsumexp(dim=1, keepdim=True)",
        "logits.logsumexp(dim=1, keepdim=True)",
        CARB,
    ),
    Mutation(
        "the ratio of lambda is upside down",
        "carb.py",
        "ratio = means[0] / means[1]",
        "ratio = means[1] / means[0]",
        ("carb", "carb_cases"),
    ),
    Mutation(
        "class weights count in the sum and not in the mean's divisor",
        "carb.py",
        "mass = self.class_weights[masks.masked_fill(~valid, 0)]",
        "mass = torch.ones_like(losses)",
        CARB,
    ),
    Mutation(
        "CARB begins one step early",
        "carb.py",
        "return self.step <= self.warmup_steps",
        "return self.step < self.warmup_steps",
        CARB,
    ),
    Mutation(
        "an empty region is remembered",
        "carb.py",
        "torch.where(both, pushed, self.recent)",
        "pushed",
        ("carb_cases",),
    ),
    Mutation(
        "a window is cut as wide as it is high",
        "carb.py",
        "photo[:, *box.slices()]",
        "photo[:, box.top : box.top + box.height, box.left : box.left + box.height]",
        ("carb_laws",),
    ),
    Mutation(
        "Dice counts the own process alone",
        "system/distributed.py",
        "(all_reduce_sum(own) - part).detach()",
        "(part - part).detach()",
        ("training_loss",),
    ),
    # metrics
    Mutation(
        "mask and prediction change places",
        "metrics.py",
        "np.bincount(truth * width + column,",
        "np.bincount(column * width + truth,",
        ("metrics",),
    ),
    Mutation(
        "ignored pixels are counted",
        "metrics.py",
        "valid = truth != ignore_index",
        "valid = truth >= 0",
        ("metrics",),
    ),
    Mutation(
        "pixels of no class are forgotten in a sum",
        "metrics.py",
        "return counts if counts[:, -1].any() else",
        "return counts if False else",
        ("metrics",),
    ),
    Mutation(
        "the hits are twice in the union",
        "metrics.py",
        "return _ratio(hit, predicted + annotated - hit)",
        "return _ratio(hit, predicted + annotated)",
        ("metrics",),
    ),
    Mutation(
        "classes that are nowhere count as 0 in the mean",
        "metrics.py",
        "known = values[~np.isnan(values)]",
        "known = np.nan_to_num(values)",
        ("metrics",),
    ),
]
