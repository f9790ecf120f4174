"""What an experiment says of itself: the keywords of `@intervention(...)` that a run records."""

from typing import Annotated, Literal

from msgspec import Meta

from voicepatch.types.record import Keys

Rate = Literal["flip_to_target_rate", "flip_from_base_rate"]


class Properties(Keys):
    """The recorded properties of an experiment, so that reports need neither its file nor its name."""

    control: Annotated[
        bool, Meta(description="whether `control --kind all` runs it and figures show it beside the main experiment")
    ]
    main: Annotated[bool, Meta(description="whether it is the main experiment; NAME is then the kind of its pairs")]
    judged_by: Annotated[Rate, Meta(description="its main rate")]
    recipients: Annotated[
        Literal["main", "own"],
        Meta(description="`main`: it has the main experiment's recipients in their order; `own`: another sample"),
    ]
    beside_main: Annotated[
        bool,
        Meta(
            description="whether it runs after the main experiment, and its rate is that of answers which need A's span"
        ),
    ]
    must_change_nothing: Annotated[bool, Meta(description="whether any change is an error of the instrument")]
    reads_only: Annotated[bool, Meta(description="whether it writes nothing and reads the unpatched run")]
    approximate: Annotated[bool, Meta(description="whether its logits are estimates")]
    by_layer: Annotated[
        bool, Meta(description="whether it has a row for each layer; if not, it has one for the model, at layer 0")
    ]
    describes: Annotated[
        str, Meta(description="the sentence in the report; by default its docstring's first paragraph")
    ]
    figures: Annotated[str, Meta(description="the module of its own figures beside its file; empty if it has none")]
