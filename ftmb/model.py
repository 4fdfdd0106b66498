"""The base of every model that is read from or written to a file."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Unknown keys refused, values fixed once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
