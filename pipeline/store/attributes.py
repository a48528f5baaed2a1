"""What the root attributes of a pseudo-mask store must be, checked before anything trusts them."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, PositiveInt, StrictStr, ValidationError, model_validator

Pair = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]


class _Attributes(BaseModel):
    recipe: dict[str, Any]
    classes: Annotated[list[StrictStr], Field(min_length=1)]
    keys: list[StrictStr]
    digests: list[StrictStr]
    sizes: list[Pair]
    grids: Annotated[dict[str, list[Pair]], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_a_photo(self) -> Self:
        counts = {len(self.keys), len(self.digests), len(self.sizes)}
        counts |= {len(grids) for grids in self.grids.values()}
        if len(counts) > 1 or len(set(self.keys)) < len(self.keys):
            raise ValueError("must have one entry a photo")
        return self


def check_attributes(attributes: dict[str, Any]) -> None:
    """Refuse attributes that no store has.

    Raises:
        ValueError: says which one, in a few words.
    """
    try:
        _Attributes.model_validate(attributes)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "attributes"
        raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
