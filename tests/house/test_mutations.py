"""The table of mutations is about the code as it is; ``python -m tests.mutations`` tries them."""

import ast

import pytest

from tests.mutations import MUTATIONS
from tests.mutations.mutation import ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_each_mutation_breaks_one_line_that_is_there(mutation: Mutation) -> None:
    content = (ROOT / mutation.path).read_text("utf-8")
    assert content.count(mutation.old) == 1
    assert "\n" not in mutation.old + mutation.new
    broken = content.replace(mutation.old, mutation.new)
    assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(content))
    for name in mutation.tests:
        assert any((ROOT / "tests").rglob(f"test_{name}.py"))


def test_views_batches_carb_metrics_and_store_are_each_broken() -> None:
    broken = {mutation.file for mutation in MUTATIONS}
    assert broken >= {"views.py", "carb.py", "metrics.py"}
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
