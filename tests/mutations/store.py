"""Mistakes in the store and its shards."""

from tests.mutations.mutation import Mutation

STORE = ("store", "store_laws", "store_plan", "store_damage")
MUTATIONS = [
    # store and shards
    Mutation(
        "the recorded digest is not compared",
        "store/plan.py",
        'return record.read_bytes() == f"{json.dumps(file_digest(file))}\\n".encode()',
        "return True",
        ("store",),
    ),
    Mutation(
        "what a killed run left of a shard is not removed",
        "store/writer.py",
        "remove(file.parents[2])",
        "pass",
        ("store_laws",),
    ),
    Mutation(
        "logits of another recipe are reused",
        "store/writer.py",
        "return _recipe_of(before, level) == _recipe_of(plan.recipe, level)",
        "return True",
        STORE,
    ),
    Mutation(
        "a photo is known by its key",
        "store/writer.py",
        'dict(zip(previous.attributes["digests"], previous.keys, strict=True))',
        "{photo.digest: photo.key for photo in plan.photos if photo.key in previous.keys}",
        STORE,
    ),
    Mutation(
        "a damaged shard of an earlier store is reused",
        "store/writer.py",
        "return fits and self._previous.intact(key, level)",
        "return fits",
        STORE,
    ),
    Mutation(
        "the fingerprint forgets the photos' bytes",
        "store/plan.py",
        '"digests": [photo.digest for photo in self.photos],',
        '"digests": ["" for photo in self.photos],',
        ("store",),
    ),
    Mutation(
        "grids are padded at the top left",
        "store/writer.py",
        "block[place, :, : logits.shape[1], : logits.shape[2]] = logits",
        "block[place, :, -logits.shape[1] :, -logits.shape[2] :] = logits",
        STORE,
    ),
    Mutation(
        "a photo's grid is read with rows and columns swapped",
        "store/reader.py",
        "return self.read_padded(key, level)[:, :rows, :columns]",
        "return self.read_padded(key, level)[:, :columns, :rows]",
        STORE,
    ),
    Mutation(
        "the last shard is forgotten",
        "store/plan.py",
        "return -(-len(self.photos) // self.shard_size(level))",
        "return max(1, len(self.photos) // self.shard_size(level))",
        STORE,
    ),
    Mutation(
        "a store's metadata is not compared with its digest",
        "store/reader.py",
        "if damaged := damaged_layout(path):",
        'if damaged := "":',
        ("store_damage",),
    ),
    Mutation(
        "a checkpoint's values are not compared with their digest",
        "system/tensor_files.py",
        "if (require_digest or digest is not None) and digest != _digest(tensors, notes):",
        "if require_digest and digest is None:",
        ("checkpoints",),
    ),
]
