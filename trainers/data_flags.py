"""Where images come from and results go."""

from absl import flags


def define(defaults: dict) -> None:
    """Defines the flags, with the defaults of the data set."""
    flags.DEFINE_string("workdir", None, "Folder that receives everything.")
    flags.mark_flag_as_required("workdir")
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder of prepared TFDS data sets, image folder, or folder of "
        "TFRecord files.",
    )
    flags.DEFINE_bool("download", False, "Download a missing data set.")
    for split in ("train", "validation", "test"):
        flags.DEFINE_string(
            f"{split}_split",
            defaults[f"{split}_split"],
            f"TFDS split for {split}"
            + ("; empty: leave it alone." if split == "test" else "."),
        )
    flags.DEFINE_integer(
        "image_size",
        None,
        "Height and width of the network input in pixels, for photographs; "
        "not given: 224.",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "normalization",
        None,
        "Data set whose mean and standard deviation to use, such as "
        "imagenet2012; not given: its own.",
    )
    flags.DEFINE_enum(
        "corrupt",
        "skip",
        ["skip", "fail"],
        "Photographs that cannot be decoded: leave them out and tell, or stop.",
    )
    flags.DEFINE_string(
        "data_service",
        None,
        "Address of a tf.data service (grpc://host:port) that prepares "
        "training batches of photographs on other hosts.",
    )
    flags.DEFINE_integer(
        "checkpoint_steps",
        defaults.get("checkpoint_steps", 0),
        "Steps between checkpoints inside an epoch; 0: every epoch only.",
        lower_bound=0,
    )
