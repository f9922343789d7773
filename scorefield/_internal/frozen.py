"""The base class of all configurations."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A configuration: immutable, of finite numbers, and strict about names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
