"""Break one line at a time on purpose: do the tests notice? ``python -m tests.mutations``."""

from tests.mutations import carb, store, views

MUTATIONS = [*views.MUTATIONS, *carb.MUTATIONS, *store.MUTATIONS]
